// What all attacks have in common: what an attacker knows, sockets at many addresses, and requests.
import { AsyncLocalStorage } from 'node:async_hooks';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { Entropy } from '../../src/base/entropy.ts';
import { literalLookup } from '../../src/base/source-address.ts';
import { type CoapOption, encode, Type } from '../../src/wire/coap/codec.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, sorted, uint, uriOptions } from '../../src/wire/coap/options.ts';
import type { KeyedPlace } from './deed.ts';

/** What an attacker knows of the site. */
export interface Target {
  /** Address of the gateway. */
  readonly host: string;
  /** Its IPv6 address, in networks of their own. */
  readonly host6?: string;
  readonly coap: number;
  /** UDP port of CoAP over DTLS. */
  readonly coaps: number;
  readonly http: number;
  /** Address of the attacker by which it reaches multicast groups. */
  readonly multicast: string;
  /** First two octets of the addresses that the attacker has. */
  readonly sources: string;
  readonly broker: string;
  /** Port of the gate before the broker, by which it becomes hostile. */
  readonly gate: number;
  /** URL of the head-end's API. */
  readonly api: string;
  /** Honest devices. Their IDs are no secret. */
  readonly devices: number;
  /** Addresses of honest devices, in networks of their own. They are no secret either. */
  readonly deviceAddresses: readonly string[];
  /** Places of honest parties with an association. Whoever reads the network knows them. */
  readonly keyed: readonly KeyedPlace[];
  /** An authority for certificates of devices, whose key the attacker has. */
  readonly authority: AuthorityFiles;
}

/** An authority as text, so that another process can issue its certificates. */
export interface AuthorityFiles {
  readonly pem: string;
  readonly keyPem: string;
  /** DER of its name in hexadecimal digits. */
  readonly subject: string;
}

export interface Attack {
  /** One line for `--help`. */
  readonly what: string;
  /** The machine that the attacker is on: another one of the same network, or the head-end's. */
  readonly from?: 'network' | 'inside';
  /** It needs network namespaces: on loopback nobody can forge the address of another one. */
  readonly needsNetwork?: true;
  /** It cuts the gateway off from its DM server. Meanwhile only work that does without this server can go on. */
  readonly cutsOff?: true;
  /** The DM server hangs meanwhile. */
  readonly stopsServer?: true;
  /** Somebody lets devices join meanwhile. */
  readonly opensJoinWindow?: true;
  readonly run: (target: Target, chance: Entropy) => Promise<void>;
}

export const int = (chance: Entropy, below: number): number => Math.floor(chance.uniform() * below);
export const Method = { GET: 1, POST: 2, PUT: 3, DELETE: 4 } as const;

/** An address of the attacker's own, by number from 0 to 65,535. */
export const sourceOf = ({ sources }: Target, at: number): string =>
  `${sources}.${(at >> 8) & 255}.${at & 255}`;

/** A socket at an address that need not be this machine's. Sending fails until it is bound. */
export async function socketAt(address: string, port = 0): Promise<Socket> {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', ...literalLookup });
  socket.on('error', () => {});
  // It may be bound at once.
  const bound = once(socket, 'listening');
  socket.bind({ port, address, exclusive: true });
  await bound;
  return socket;
}

/** Sockets at addresses of their own. */
export class Strangers {
  readonly sockets: readonly Socket[];
  readonly #target: Target;

  constructor(target: Target, sockets: readonly Socket[]) {
    this.#target = target;
    this.sockets = sockets;
  }

  static async at(target: Target, count: number): Promise<Strangers> {
    const sockets: Socket[] = [];
    for (let at = 0; at < count; at++) sockets.push(await socketAt(sourceOf(target, at)));
    return new Strangers(target, sockets);
  }

  /** Sends a datagram from the address of this number. */
  send(
    at: number,
    datagram: Uint8Array,
    { to = this.#target.host, port = this.#target.coap }: { to?: string; port?: number } = {},
  ): void {
    this.sockets[at % this.sockets.length]!.send(datagram, port, to);
  }
}

/** Sends one datagram from an address that is used once, which may be forged. */
export async function sendOnce(
  { coap }: Target,
  from: string,
  datagram: Uint8Array,
  to: string,
): Promise<void> {
  const socket = await socketAt(from);
  socket.send(datagram, coap, to, () => socket.close());
}

/** The attack that is running, and what each has done so far: datagrams, requests, messages or connections. */
const running = new AsyncLocalStorage<string>();
const acts = new Map<string, number>();

/** What each attack has of its rate: those that go on at once have the load of one together. */
let share = 1;

/** Counts what the running attack has done. An attack that does nothing proves nothing. */
export function acted(): void {
  const name = running.getStore()!;
  acts.set(name, (acts.get(name) ?? 0) + 1);
}

/** Runs attacks at once, for ever. Tells the program again and again how much the one has done that did least. */
export async function runAll(attacks: readonly (readonly [string, () => Promise<void>])[]): Promise<void> {
  share = 1 / attacks.length;
  for (const [name] of attacks) acts.set(name, 0);
  setInterval(() => process.stdout.write(`${Math.min(...acts.values())}\n`), 100);
  await Promise.all(attacks.map(([name, run]) => running.run(name, run)));
}

/** Runs `act` about `rate` times per second, for ever. Attacks that go on at once share this rate. */
export async function repeatedly(rate: number, act: (round: number) => unknown): Promise<never> {
  const began = performance.now();
  for (let done = 0; ; ) {
    const due = ((performance.now() - began) / 1000) * rate * share;
    for (; done < due; done++) {
      await act(done);
      acted();
    }
    await pause(5);
  }
}

interface Question {
  readonly type?: Type;
  readonly code?: number;
  readonly path: string;
  readonly query?: readonly string[];
  readonly options?: readonly CoapOption[];
  readonly payload?: Uint8Array;
}

let messageId = 0;
/** A CoAP request with the next message ID and a token of its own. */
export function request({
  type = Type.CON,
  code = Method.POST,
  path,
  query = [],
  options = [],
  payload,
}: Question): Buffer {
  messageId = (messageId + 1) & 0xffff;
  return encode({
    type,
    code,
    messageId,
    token: Buffer.from([messageId >> 8, messageId & 255, 7]),
    options: sorted([...uriOptions(path.split('/'), query), ...options]),
    payload: payload ?? new Uint8Array(),
  });
}

/** Sends a body in blocks of 1 KiB, without waiting for answers. */
export function inBlocks(question: Question, body: Buffer): Buffer[] {
  const count = Math.ceil(body.length / 1024);
  return Array.from({ length: count }, (_, at) =>
    request({
      ...question,
      options: [...(question.options ?? []), uint(Option.Block1, at * 16 + (at < count - 1 ? 8 : 0) + 6)],
      payload: body.subarray(at * 1024, (at + 1) * 1024),
    }),
  );
}

/** A first DM message in XML, with the credential that the attacker likes. */
export function firstMessage(
  device: string,
  session: string,
  message: number,
  { body = '', credential = '', server = 'gw-1' } = {},
): Buffer {
  return Buffer.from(
    `<?xml version="1.0"?><SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>${session}</SessionID><MsgID>${message}</MsgID><Target><LocURI>${server}</LocURI></Target><Source><LocURI>${device}</LocURI></Source>${credential}</SyncHdr><SyncBody>${body}<Final/></SyncBody></SyncML>`,
  );
}
export const xml = uint(Option.ContentFormat, ContentFormat.SyncmlXml);

/** A credential of the scheme MD5 with a digest that is guessed. */
export const guess = (chance: Entropy): string =>
  `<Cred><Meta><Type xmlns="syncml:metinf">syncml:auth-md5</Type><Format xmlns="syncml:metinf">b64</Format></Meta><Data>${Buffer.from(chance.bytes(16)).toString('base64')}</Data></Cred>`;

/** A CBOR bignum of this many octets in a map (RFC 8949, section 3.4.3). */
export const bignum = (octets: number): Buffer =>
  Buffer.concat([
    Buffer.from([0xa1, 0x01, 0xc2, 0x5a, 0, 0, octets >> 8, octets & 255]),
    Buffer.alloc(octets, 0xff),
  ]);
