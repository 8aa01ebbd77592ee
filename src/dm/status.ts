/** Status codes that this engine sends or understands (OMA DM representation protocol 1.2.1, section 10). */
export const DmStatus = {
  Ok: 200,
  AcceptedForProcessing: 202,
  Authenticated: 212,
  ChunkAccepted: 213,
  OperationCancelled: 214,
  NotExecuted: 215,
  RolledBack: 216,
  /** DM 1.3: the requested ACL is inherited. */
  InheritedAcl: 217,
  NotModified: 304,
  BadRequest: 400,
  InvalidCredentials: 401,
  Forbidden: 403,
  NotFound: 404,
  CommandNotAllowed: 405,
  OptionalFeatureNotSupported: 406,
  MissingCredentials: 407,
  RequestTimeout: 408,
  SizeRequired: 411,
  IncompleteCommand: 412,
  RequestEntityTooLarge: 413,
  UriTooLong: 414,
  UnsupportedMediaType: 415,
  AlreadyExists: 418,
  DeviceFull: 420,
  SizeMismatch: 424,
  PermissionDenied: 425,
  CommandFailed: 500,
  NotImplemented: 501,
  UnsupportedDtd: 505,
  AtomicFailed: 507,
  UnsupportedProtocol: 513,
  SessionAborted: 514,
  AtomicRollbackFailed: 516,
  AtomicTooLarge: 517,
} as const;

/** Codes of the Alert command (section 9). */
export const AlertCode = {
  Display: 1100,
  ConfirmOrReject: 1101,
  TextInput: 1102,
  SingleChoice: 1103,
  MultipleChoice: 1104,
  ServerInitiated: 1200,
  ClientInitiated: 1201,
  NextMessage: 1222,
  SessionAbort: 1223,
  ClientEvent: 1224,
  NoEndOfData: 1225,
  Generic: 1226,
} as const;

/** 2xx codes of commands that were cancelled, not executed or undone. */
const undone: ReadonlySet<number> = new Set([
  DmStatus.OperationCancelled,
  DmStatus.NotExecuted,
  DmStatus.RolledBack,
]);

/** Whether a status reports success: a 2xx code other than those of commands that were not executed or were undone. */
export const isOk = (status: number): boolean => status >= 200 && status < 300 && !undone.has(status);

/** Whether this alert asks or tells the user something: 1100 to 1104 (OMA DM protocol 1.2.1, section 10). */
export const isUserInteraction = (alert: number): boolean =>
  alert >= AlertCode.Display && alert <= AlertCode.MultipleChoice;
