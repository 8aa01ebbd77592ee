/**
 * CoAP Content-Formats that Postern meets. Those of DM have no registered number, so they use the experimental range
 * (RFC 7252 section 12.3); docs/bindings.md says so.
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
  SyncmlXml: 65001,
  SyncmlWbxml: 65002,
  SyncmlCbor: 65003,
  Notification: 65004,
  TndsXml: 65005,
  TndsWbxml: 65006,
} as const;

/** Media types of the DM formats, as DM's HTTP binding and the MQTT envelope name them. */
const mediaTypes: Readonly<Record<number, string>> = {
  [ContentFormat.SyncmlXml]: 'application/vnd.syncml.dm+xml',
  [ContentFormat.SyncmlWbxml]: 'application/vnd.syncml.dm+wbxml',
  [ContentFormat.SyncmlCbor]: 'application/vnd.postern.dm+cbor',
  [ContentFormat.Notification]: 'application/vnd.syncml.notification',
};

/** The formats that DM packages come in, as links tell them. */
export const dmContentFormats = `${ContentFormat.SyncmlXml} ${ContentFormat.SyncmlWbxml} ${ContentFormat.SyncmlCbor}`;

export const mediaTypeOf = (contentFormat: number): string | undefined => mediaTypes[contentFormat];

export function contentFormatOf(mediaType: string): number | undefined {
  const found = Object.entries(mediaTypes).find(([, name]) => name === mediaType);
  return found && Number(found[0]);
}
