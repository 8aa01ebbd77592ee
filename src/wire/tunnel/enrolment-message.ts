import { fromCbor, toCbor } from '../../base/cbor.ts';
import { plainProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';

/** What a gateway asks for (docs/bindings.md, Enrolment). */
export interface EnrolmentRequest {
  /** PKCS#10 in DER. Its subject is the name of the gateway, and its key is on P-256. */
  readonly request: Uint8Array;
  /** One-time code. */
  readonly code?: string;
  /** Serial number of the board. */
  readonly serial?: string;
  /** ServerID of the DM server that is meant. Absent: whichever is there. */
  readonly server?: string;
}

/** The answer to an `EnrolmentRequest`. */
export type EnrolmentAnswer =
  /** `sealed`: an `EnrolmentGrant`, sealed to the key of the request. */
  | { readonly state: 'granted'; readonly sealed: Uint8Array }
  /** A person must approve it, or this key may not be here. `again`: seconds until the gateway asks again. */
  | { readonly state: 'waiting' | 'refused'; readonly reason: string; readonly again: number };

/** What an enrolled gateway gets. */
export interface EnrolmentGrant {
  readonly gateway: string;
  /** Certificates in DER, the gateway's own first, each issued by the next one. */
  readonly chain: readonly Uint8Array[];
  /** ServerID of the DM server. */
  readonly server: string;
  readonly clientSecret: string;
  readonly serverSecret: string;
  /** Topics of the gateway at the broker. */
  readonly topics: { readonly state: string; readonly up: string; readonly down: string };
}

/** `info` of HPKE for a grant. */
export const grantInfo = Buffer.from('postern enrolment 1');

const version = 1;
/** Most bytes of a message of enrolment. */
export const enrolmentBytes = 16_384;
const states = ['granted', 'waiting', 'refused'] as const;
const textLength = 255;

type Fields = ReadonlyMap<unknown, unknown>;

const wrong = (what: string) => new PosternError('malformed', `enrolment: ${what}`);

function read(payload: Uint8Array): Fields {
  if (payload.length > enrolmentBytes)
    throw new PosternError('tooLarge', 'enrolment: the message is too large');
  const map = fromCbor(payload, plainProfile, 'enrolment');
  if (!(map instanceof Map) || map.get(1) !== version) throw wrong('not a message of version 1');
  return map;
}

function optionalText(map: Fields, key: number): string | undefined {
  const value = map.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || value.length === 0 || value.length > textLength)
    throw wrong(`${key} must be a text of 1 to ${textLength} characters`);
  return value;
}

function text(map: Fields, key: number): string {
  const value = optionalText(map, key);
  if (value === undefined) throw wrong(`${key} is missing`);
  return value;
}

function octets(value: unknown, key: number): Uint8Array {
  if (!(value instanceof Uint8Array)) throw wrong(`${key} must be a byte string`);
  return value;
}

const encode = (...entries: readonly (readonly [number, unknown])[]): Buffer =>
  toCbor(new Map<number, unknown>([[1, version], ...entries.filter(([, value]) => value !== undefined)]));

/** Writes a request as a CBOR map. */
export const encodeEnrolmentRequest = ({ request, code, serial, server }: EnrolmentRequest): Buffer =>
  encode([2, Buffer.from(request)], [3, code], [4, serial], [5, server]);

/**
 * Reads a request. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeEnrolmentRequest(payload: Uint8Array): EnrolmentRequest {
  const map = read(payload);
  const [code, serial, server] = [optionalText(map, 3), optionalText(map, 4), optionalText(map, 5)];
  return {
    request: octets(map.get(2), 2),
    ...(code !== undefined && { code }),
    ...(serial !== undefined && { serial }),
    ...(server !== undefined && { server }),
  };
}

/** Writes an answer as a CBOR map. */
export const encodeEnrolmentAnswer = (answer: EnrolmentAnswer): Buffer =>
  answer.state === 'granted'
    ? encode([2, states.indexOf(answer.state)], [3, Buffer.from(answer.sealed)])
    : encode([2, states.indexOf(answer.state)], [4, answer.reason.slice(0, textLength)], [5, answer.again]);

/**
 * Reads an answer. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeEnrolmentAnswer(payload: Uint8Array): EnrolmentAnswer {
  const map = read(payload);
  const state = states[map.get(2) as number];
  if (state === undefined) throw wrong('2 must be 0, 1 or 2');
  if (state === 'granted') return { state, sealed: octets(map.get(3), 3) };
  const again = map.get(5);
  if (!Number.isSafeInteger(again) || (again as number) < 0) throw wrong('5 must be an unsigned number');
  return { state, reason: text(map, 4), again: again as number };
}

/** Writes a grant as a CBOR map, which is then sealed. */
export const encodeEnrolmentGrant = (grant: EnrolmentGrant): Buffer =>
  encode(
    [2, grant.gateway],
    [3, grant.chain.map((one) => Buffer.from(one))],
    [4, grant.server],
    [5, grant.clientSecret],
    [6, grant.serverSecret],
    [7, grant.topics.state],
    [8, grant.topics.up],
    [9, grant.topics.down],
  );

/**
 * Reads a grant. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeEnrolmentGrant(payload: Uint8Array): EnrolmentGrant {
  const map = read(payload);
  const chain = map.get(3);
  if (!Array.isArray(chain) || chain.length === 0) throw wrong('3 must be a list of certificates');
  return {
    gateway: text(map, 2),
    chain: chain.map((one) => octets(one, 3)),
    server: text(map, 4),
    clientSecret: text(map, 5),
    serverSecret: text(map, 6),
    topics: { state: text(map, 7), up: text(map, 8), down: text(map, 9) },
  };
}
