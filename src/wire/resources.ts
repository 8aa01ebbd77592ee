import { fitsXml } from '../base/presentable.ts';

/** Paths of the southbound binding (docs/bindings.md). */
export const paths = {
  bootstrap: '/dm/bs',
  sessions: '/dm',
  tunnel: '/dm/t',
  status: '/gw/status',
  images: '/img',
  registrations: '/rd',
  /** Data push: the operation Send (LwM2M core 1.1, section 6.4.6). */
  send: '/dp',
  lwm2mBootstrap: '/bs',
  lwm2mBootstrapPack: '/bspack',
  /** On the device. */
  notification: ['dmn'],
} as const;

/** Resource types (attribute `rt`) in `/.well-known/core`. */
export const resourceTypes = {
  bootstrap: 'oma.dm.bs',
  sessions: 'oma.dm',
  tunnel: 'oma.dm.tunnel',
  status: 'oma.gw.status',
  images: 'oma.gw.image',
  /** RFC 9176 section 9.1. */
  registrations: 'core.rd',
  lwm2mBootstrap: 'oma.lwm2m.bs',
} as const;

/** Most bytes of a device ID. With its name it fits in one Uri-Query option. */
export const deviceIdBytes = 200;

/** What `isDeviceId` demands, for people: after the word `expected`. */
export const deviceIdRule = `a device ID (DevId) of 1 to ${deviceIdBytes} bytes of UTF-8, without spaces and control characters`;

/** Spaces, line separators, and characters of which nothing is seen: controls, formats, surrogates, those without a use. */
const unfit = /[\p{Z}\p{C}]/u;

/** Whether the text is a device ID; see `deviceIdRule`. */
export const isDeviceId = (text: string | undefined): text is string =>
  text !== undefined &&
  text !== '' &&
  Buffer.byteLength(text) <= deviceIdBytes &&
  !unfit.test(text) &&
  fitsXml(text);
