/**
 * Code of an error that Postern raises on purpose. Codes are stable, so callers may compare them. Each code maps to one
 * DM status and one CoAP response code.
 */
export type ErrorCode = keyof typeof errorTable;

interface ErrorFacts {
  readonly dm: number;
  readonly coap: string;
  readonly retryAfter?: number;
}

/**
 * DM status (OMA DM representation protocol 1.2.1, section 10) and CoAP response code (RFC 7252, section 12.1.2) of
 * each error code. Several error codes have the same CoAP code; a received CoAP code is read as the first of them.
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
  /** The data budget of the uplink has no room for it. */
  overBudget: { dm: 503, coap: '5.03', retryAfter: 3600 },
  /** The disk is full, failing or read-only. */
  storage: { dm: 420, coap: '5.03', retryAfter: 30 },
  unsupportedVersion: { dm: 505, coap: '4.00' },
  internal: { dm: 500, coap: '5.00' },
  configuration: { dm: 500, coap: '5.00' },
} as const satisfies Record<string, ErrorFacts>;

/** The class of all errors that Postern raises on purpose. The message is for people. */
export class PosternError extends Error {
  override readonly name = 'PosternError';
  readonly code: ErrorCode;
  readonly #retryAfter: number | undefined;

  /** @param options `retryAfter`: see the getter; that of the code if absent */
  constructor(
    code: ErrorCode,
    message: string,
    options?: { readonly cause?: unknown; readonly retryAfter?: number },
  ) {
    super(message, options);
    this.code = code;
    this.#retryAfter = options?.retryAfter;
  }

  get dmStatus(): number {
    return errorTable[this.code].dm;
  }

  get coapCode(): string {
    return errorTable[this.code].coap;
  }

  /** Seconds after which the same request may succeed: Retry-After of HTTP, Max-Age of CoAP. Undefined when nobody knows. */
  get retryAfter(): number | undefined {
    const facts: ErrorFacts = errorTable[this.code];
    return this.#retryAfter ?? facts.retryAfter;
  }
}

const ofCoap = new Map(
  Object.entries(errorTable)
    .toReversed()
    .map(([code, { coap }]) => [coap as string, code as ErrorCode]),
);

/**
 * The error code for a CoAP response code such as `4.04`. An unknown 4.xx is `malformed`, any other code is `internal`.
 */
export const errorOfCoap = (coap: string): ErrorCode =>
  ofCoap.get(coap) ?? (coap.startsWith('4') ? 'malformed' : 'internal');

/**
 * A caught value as a PosternError. A PosternError is returned unchanged; anything else becomes `internal`, with the
 * caught value as its cause. The stack of an error stays the one of the place that threw it.
 */
export function asPosternError(thrown: unknown): PosternError {
  if (thrown instanceof PosternError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const error = new PosternError('internal', message, { cause: thrown });
  if (thrown instanceof Error && thrown.stack !== undefined) error.stack = thrown.stack;
  return error;
}

/**
 * A value that must be there.
 * @param what what is missed otherwise, in words
 * @throws {PosternError} `notFound`
 */
export function existing<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new PosternError('notFound', `there is no ${what}`);
  return value;
}
