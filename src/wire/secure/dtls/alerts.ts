/** Descriptions of alerts that are sent or understood here (RFC 5246 section 7.2, RFC 4279 section 5, RFC 6066 section 9). */
export const Alert = {
  CloseNotify: 0,
  UnexpectedMessage: 10,
  RecordOverflow: 22,
  HandshakeFailure: 40,
  BadCertificate: 42,
  UnsupportedCertificate: 43,
  CertificateExpired: 45,
  CertificateUnknown: 46,
  IllegalParameter: 47,
  UnknownCa: 48,
  DecodeError: 50,
  DecryptError: 51,
  ProtocolVersion: 70,
  UserCanceled: 90,
  NoRenegotiation: 100,
  UnsupportedExtension: 110,
} as const;
export type Alert = (typeof Alert)[keyof typeof Alert];

/** Levels of alerts (RFC 5246 section 7.2). */
export const warning = 1;
export const fatal = 2;

/** The two bytes of an alert. */
export const alertBytes = (description: number, level: number = fatal): Buffer =>
  Buffer.from([level, description]);

/** An error of the peer that ends a handshake. `alert` is what the peer is told. */
export class DtlsFailure extends Error {
  readonly alert: Alert;

  constructor(alert: Alert, message: string) {
    super(message);
    this.alert = alert;
  }
}
