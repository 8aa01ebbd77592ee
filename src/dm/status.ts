/** Status codes that this engine gives (OMA DM representation protocol 1.2.1, section 10). */
export const DmStatus = {
  Ok: 200,
  AcceptedForProcessing: 202,
  Authenticated: 212,
  NotExecuted: 215,
  BadRequest: 400,
  InvalidCredentials: 401,
  Forbidden: 403,
  NotFound: 404,
  CommandNotAllowed: 405,
  OptionalFeatureNotSupported: 406,
  MissingCredentials: 407,
  RequestEntityTooLarge: 413,
  UriTooLong: 414,
  UnsupportedMediaType: 415,
  AlreadyExists: 418,
  DeviceFull: 420,
  PermissionDenied: 425,
  CommandFailed: 500,
  NotImplemented: 501,
  SessionAborted: 514,
} as const;

/** Codes of the Alert command (section 9). */
export const AlertCode = {
  ServerInitiated: 1200,
  ClientInitiated: 1201,
  NextMessage: 1222,
  SessionAbort: 1223,
  Generic: 1226,
} as const;

export const isOk = (status: number): boolean => status >= 200 && status < 300;
