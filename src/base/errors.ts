/**
 * One root for every error that Postern raises on purpose. `code` is stable and is what other code matches on;
 * the message is for a person. Each code maps to one DM status and one CoAP response code.
 */
export type ErrorCode = keyof typeof errorTable;

/**
 * Error code -> DM status (OMA DM representation protocol, section on status codes) and CoAP code (RFC 7252, 12.1.2). Where
 * several have one CoAP code, the first is what it is read as.
 */
const errorTable = {
  malformed: { dm: 400, coap: '4.00' },
  unauthorized: { dm: 401, coap: '4.01' },
  credentialsMissing: { dm: 407, coap: '4.01' },
  forbidden: { dm: 403, coap: '4.03' },
  notFound: { dm: 404, coap: '4.04' },
  notAllowed: { dm: 405, coap: '4.05' },
  conflict: { dm: 409, coap: '4.09' },
  lockedOut: { dm: 401, coap: '4.29' },
  timeout: { dm: 408, coap: '5.04' },
  tooLarge: { dm: 413, coap: '4.13' },
  unsupportedFormat: { dm: 415, coap: '4.15' },
  exists: { dm: 418, coap: '4.09' },
  unavailable: { dm: 503, coap: '5.03' },
  full: { dm: 420, coap: '5.03' },
  unsupportedVersion: { dm: 505, coap: '4.00' },
  internal: { dm: 500, coap: '5.00' },
  configuration: { dm: 500, coap: '5.00' },
} as const;

export class PosternError extends Error {
  override readonly name = 'PosternError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  get dmStatus(): number {
    return errorTable[this.code].dm;
  }

  get coapCode(): string {
    return errorTable[this.code].coap;
  }
}

const ofCoap = new Map(
  Object.entries(errorTable)
    .toReversed()
    .map(([code, { coap }]) => [coap as string, code as ErrorCode]),
);

/** What another party's CoAP code says, such as `4.04`; one that is not known is whose fault its class says. */
export const errorOfCoap = (coap: string): ErrorCode =>
  ofCoap.get(coap) ?? (coap.startsWith('4') ? 'malformed' : 'internal');

/** What was caught, as a PosternError: its own kind untouched, anything else as `internal` with the cause kept. */
export function asPosternError(thrown: unknown): PosternError {
  if (thrown instanceof PosternError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new PosternError('internal', message, { cause: thrown });
}
