import { Alert, DtlsFailure } from './alerts.ts';
import { Reader, uint, uintVector, vector } from './bytes.ts';
import { extensionBytes, type HelloExtensions, readExtensions } from './extensions.ts';
import { dtls10, dtls12 } from './record.ts';

/** A ClientHello (RFC 5246 section 7.4.1.2, with the cookie of RFC 6347 section 4.2.1). */
export interface ClientHello {
  readonly random: Buffer;
  readonly sessionId: Buffer;
  readonly cookie: Buffer;
  /** Numbers of cipher suites. */
  readonly suites: readonly number[];
  readonly extensions: HelloExtensions;
}

/** A ServerHello (RFC 5246 section 7.4.1.3). */
export interface ServerHello {
  readonly random: Buffer;
  readonly sessionId: Buffer;
  readonly suite: number;
  readonly extensions: HelloExtensions;
}

/** The number by which a client says that it knows of secure renegotiation (RFC 5746 section 3.3). */
export const renegotiationSignal = 0x00ff;

/** Reads a ClientHello. @throws {DtlsFailure} */
export function readClientHello(body: Buffer): ClientHello {
  const reader = new Reader(body);
  // A higher version of DTLS has a lower number.
  if (reader.uint(2) > dtls12) throw new DtlsFailure(Alert.ProtocolVersion, 'the client lacks DTLS 1.2');
  const random = reader.take(32);
  const sessionId = reader.vector(1, 0, 32);
  const cookie = reader.vector(1);
  const suites = new Reader(reader.vector(2, 2)).uints(2);
  if (!reader.vector(1, 1).includes(0))
    throw new DtlsFailure(Alert.IllegalParameter, 'the client wants compression');
  const extensions = readExtensions(reader);
  reader.end();
  return { random, sessionId, cookie, suites, extensions };
}

export const clientHelloBytes = ({ random, sessionId, cookie, suites, extensions }: ClientHello): Buffer =>
  Buffer.concat([
    uint(dtls12, 2),
    random,
    vector(1, sessionId),
    vector(1, cookie),
    uintVector(2, 2, suites),
    uintVector(1, 1, [0]),
    extensionBytes(extensions),
  ]);

/** The cookie of a ClientHello, and the rest of its body. Undefined when it is too short. */
export function splitCookie(body: Buffer): { cookie: Buffer; rest: Buffer } | undefined {
  const at = 35 + (body[34] ?? 0);
  const length = body[at];
  if (length === undefined || at + 1 + length > body.length) return undefined;
  return {
    cookie: body.subarray(at + 1, at + 1 + length),
    rest: Buffer.concat([body.subarray(0, at), body.subarray(at + 1 + length)]),
  };
}

/** Reads a ServerHello. @throws {DtlsFailure} */
export function readServerHello(body: Buffer): ServerHello {
  const reader = new Reader(body);
  if (reader.uint(2) !== dtls12) throw new DtlsFailure(Alert.ProtocolVersion, 'the server lacks DTLS 1.2');
  const random = reader.take(32);
  const sessionId = reader.vector(1, 0, 32);
  const suite = reader.uint(2);
  if (reader.uint(1) !== 0) throw new DtlsFailure(Alert.IllegalParameter, 'the server wants compression');
  const extensions = readExtensions(reader);
  reader.end();
  return { random, sessionId, suite, extensions };
}

export const serverHelloBytes = ({ random, sessionId, suite, extensions }: ServerHello): Buffer =>
  Buffer.concat([
    uint(dtls12, 2),
    random,
    vector(1, sessionId),
    uint(suite, 2),
    uint(0, 1),
    extensionBytes(extensions, true),
  ]);

/** The body of a HelloVerifyRequest. Its version is that of DTLS 1.0 in any case (RFC 6347 section 4.2.1). */
export const helloVerifyBytes = (cookie: Uint8Array): Buffer =>
  Buffer.concat([uint(dtls10, 2), vector(1, cookie)]);

/** The cookie of a HelloVerifyRequest. @throws {DtlsFailure} */
export function readHelloVerify(body: Buffer): Buffer {
  const reader = new Reader(body);
  reader.uint(2);
  const cookie = reader.vector(1);
  reader.end();
  return cookie;
}
