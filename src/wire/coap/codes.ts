/**
 * Methods and response codes as the byte on the wire: class in the upper 3 bits, detail in the lower 5 (RFC 7252
 * sections 12.1.1 and 12.1.2, RFC 7959, RFC 8132).
 */
export const Code = {
  Empty: 0x00,
  GET: 0x01,
  POST: 0x02,
  PUT: 0x03,
  DELETE: 0x04,
  FETCH: 0x05,
  PATCH: 0x06,
  iPATCH: 0x07,
  Created: 0x41,
  Deleted: 0x42,
  Valid: 0x43,
  Changed: 0x44,
  Content: 0x45,
  Continue: 0x5f,
  BadRequest: 0x80,
  Unauthorized: 0x81,
  BadOption: 0x82,
  Forbidden: 0x83,
  NotFound: 0x84,
  MethodNotAllowed: 0x85,
  NotAcceptable: 0x86,
  RequestEntityIncomplete: 0x88,
  Conflict: 0x89,
  PreconditionFailed: 0x8c,
  RequestEntityTooLarge: 0x8d,
  UnsupportedContentFormat: 0x8f,
  TooManyRequests: 0x9d,
  InternalServerError: 0xa0,
  NotImplemented: 0xa1,
  BadGateway: 0xa2,
  ServiceUnavailable: 0xa3,
  GatewayTimeout: 0xa4,
  ProxyingNotSupported: 0xa5,
  /** RFC 8768. */
  HopLimitReached: 0xa8,
} as const;

/** The text form of a code: `0x45` gives `2.05`. */
export const codeText = (code: number): string => `${code >> 5}.${String(code & 31).padStart(2, '0')}`;

/** The code of a text form: `2.05` gives `0x45`. */
export const codeFromText = (text: string): number => (Number(text[0]) << 5) | Number(text.slice(2));

export const isRequestCode = (code: number): boolean => code >= 0x01 && code <= 0x1f;
export const isResponseCode = (code: number): boolean => code >= 0x40 && code <= 0xbf;
export const isSuccess = (code: number): boolean => code >> 5 === 2;
