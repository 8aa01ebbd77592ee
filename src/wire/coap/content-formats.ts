/**
 * Numbers of the CoAP Content-Formats that Postern uses. The formats of DM have no registered number, so they use the
 * experimental range (RFC 7252 section 12.3; docs/bindings.md).
 */
export const ContentFormat = {
  TextPlain: 0,
  LinkFormat: 40,
  OctetStream: 42,
  Cbor: 60,
  SenmlJson: 110,
  SenmlCbor: 112,
  LwM2mTlv: 11542,
  /** Of LwM2M 1.0. */
  LwM2mJson: 11543,
  /** Of LwM2M 1.2. */
  LwM2mCbor: 11544,
  SyncmlXml: 65001,
  SyncmlWbxml: 65002,
  SyncmlCbor: 65003,
  Notification: 65004,
  TndsXml: 65005,
  TndsWbxml: 65006,
} as const;

/** Media types of the DM formats, as used in DM's HTTP binding and in the MQTT envelope. */
const mediaTypes: Readonly<Record<number, string>> = {
  [ContentFormat.SyncmlXml]: 'application/vnd.syncml.dm+xml',
  [ContentFormat.SyncmlWbxml]: 'application/vnd.syncml.dm+wbxml',
  [ContentFormat.SyncmlCbor]: 'application/vnd.postern.dm+cbor',
  [ContentFormat.Notification]: 'application/vnd.syncml.notification',
};

/** The formats of DM packages, as the value of the link attribute `ct`: numbers separated by spaces. */
export const dmContentFormats = `${ContentFormat.SyncmlXml} ${ContentFormat.SyncmlWbxml} ${ContentFormat.SyncmlCbor}`;

/** Media type of a DM format. Returns `undefined` for any other Content-Format. */
export const mediaTypeOf = (contentFormat: number): string | undefined => mediaTypes[contentFormat];

/** Content-Format of a DM media type. Returns `undefined` for any other media type. */
export const contentFormatOf = (mediaType: string): number | undefined => contentFormats.get(mediaType);

const contentFormats: ReadonlyMap<string, number> = new Map(
  Object.entries(mediaTypes).map(([number, name]) => [name, Number(number)]),
);
