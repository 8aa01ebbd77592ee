import type { NamedOption, ParsedPacket } from 'coap-packet';
import { type Clock, pause } from '../../../src/base/clock.ts';
import { type CoapAnswer, type CoapHabits, CoapSocket, optionOf, uintBytes, uintOf } from './coap-socket.ts';
import type { Dice } from './dice.ts';
import {
  decodeValues,
  encodeValues,
  type Format,
  type Held,
  heldFrom,
  numbers,
  type Values,
} from './lwm2m-values.ts';

/** The habits of an LwM2M client. */
export interface Lwm2mHabits extends CoapHabits {
  readonly version: '1.0' | '1.1' | '1.2';
  readonly lifetime: string | undefined;
  readonly binding: string | undefined;
  /** It asks for queue mode by the parameter `Q`. */
  readonly queue: boolean;
  readonly root: string;
  /** `rt` and `ct` of the root's link. */
  readonly rootLink: string;
  /** It registers objects without their instances too. */
  readonly linksObjects: boolean;
  readonly format: Format;
  readonly draftNumbers: boolean;
  /** What it answers to a format that it does not know. */
  readonly refusal: '4.06' | '4.00' | '4.02' | '5.00';
  readonly hasDiscover: boolean;
  readonly wideIntegers: boolean;
  readonly block: number;
  /** It downloads from a socket of its own. */
  readonly ownDownloads: boolean;
  readonly delivery: number | undefined;
  readonly reboot: 'deregisters' | 'silent' | 'stays';
  /** Its update fails with this result; 1 is success. */
  readonly updateResult: number;
  /** It reboots after a Reset of the update by an empty URI only where it has that. */
  readonly knowsReset: boolean;
}

export function lwm2mHabits(dice: Dice): Lwm2mHabits {
  const version = dice.pick<Lwm2mHabits['version']>(['1.0', '1.1', '1.2']);
  return {
    version,
    lifetime: dice.pick([undefined, '0', '60', '86400', '4294967295']),
    binding: dice.pick([undefined, 'U', 'UQ']),
    queue: version !== '1.0' && dice.chance(0.2),
    root: dice.pick(['', '/lwm2m', '/a/b']),
    rootLink: dice.pick([
      ';rt="oma.lwm2m"',
      ';rt="oma.lwm2m core.b";ct=11542',
      ';ct="110 112 11542";rt=oma.lwm2m',
    ]),
    linksObjects: dice.chance(0.5),
    format:
      version === '1.0'
        ? dice.pick<Format>(['tlv', 'old-json'])
        : dice.pick<Format>(['tlv', 'senml-json', 'senml-cbor']),
    draftNumbers: version === '1.0' && dice.chance(0.2),
    refusal: dice.pick(['4.06', '4.00', '4.02', '5.00']),
    hasDiscover: dice.chance(0.7),
    wideIntegers: dice.chance(0.3),
    block: dice.pick([16, 64, 256, 1024]),
    ownDownloads: dice.chance(0.6),
    delivery: dice.pick([undefined, 0, 1, 2]),
    reboot: dice.pick(['deregisters', 'silent', 'stays']),
    updateResult: dice.pick([1, 1, 1, 5, 6, 8]),
    knowsReset: dice.chance(0.7),
    answers: dice.pick(['piggybacked', 'separate', 'separate-non']),
    loses: dice.pick([0, 0, 0.15]),
    doubles: dice.pick([0, 0.2]),
    tokenLength: dice.between(1, 8),
  };
}

export interface Lwm2mClientParts {
  readonly name: string;
  readonly habits: Lwm2mHabits;
  readonly dice: Dice;
  readonly clock: Clock;
  /** Sends a datagram to the gateway from one of its ports. */
  readonly send: (from: number, datagram: Buffer) => void;
  /** Objects that it has besides Server, Device and Firmware Update. */
  readonly values: Values;
}

/** A request that changed something, as the client has done it. */
export interface Lwm2mDone {
  readonly method: string;
  readonly path: string;
  readonly code: string;
}

const usualPort = 5683;
/** Milliseconds that a client in queue mode hears after its last message. */
const awake = 90_000;

/** An LwM2M client that has its own reading of the specification, and nothing of Postern. */
export class Lwm2mClient {
  readonly #parts: Lwm2mClientParts;
  readonly #sockets = new Map<number, CoapSocket>();
  readonly values: Map<string, Held>;
  readonly writable: ReadonlySet<string>;
  readonly log: Lwm2mDone[] = [];
  /** The image that it runs, and those that it has got. */
  image: Buffer = Buffer.alloc(0);
  readonly images: Buffer[] = [];
  #location: readonly string[] = [];
  #sent = 0;
  #isOff = false;
  /** The body that a request brings in blocks, by its path. */
  readonly #bodies = new Map<string, Buffer[]>();
  #state = 0;
  #result = 0;
  #work: Promise<unknown> = Promise.resolve();

  constructor(parts: Lwm2mClientParts) {
    this.#parts = parts;
    const text = (value: string): Held => ({ type: 'string', value });
    const integer = (value: number): Held => ({ type: 'integer', value: BigInt(value) });
    this.values = new Map<string, Held>([
      ['1/0/0', integer(1)],
      ['1/0/1', integer(600)],
      ['1/0/7', text('U')],
      ['3/0/0', text('Stock & Co')],
      ['3/0/1', text('S<1>')],
      ['3/0/3', text('1.0')],
      ['3/0/6/0', integer(1)],
      ['3/0/6/3', integer(5)],
      ['3/0/9', integer(77)],
      ['3/0/13', { type: 'time', value: 1_700_000_000n }],
      ['3/0/14', text('+01:00')],
      ...parts.values,
    ]);
    this.writable = new Set(['1/0/1', '3/0/13', '3/0/14', ...parts.values.keys()]);
    this.#open(usualPort);
  }

  /** Nothing of it goes on. */
  async stop(): Promise<void> {
    this.#isOff = true;
    for (const socket of this.#sockets.values()) socket.stop();
    await this.#work;
  }

  /** State and Update Result of its object Firmware Update. */
  get firmware(): { readonly state: number; readonly result: number } {
    return { state: this.#state, result: this.#result };
  }

  receive(port: number, datagram: Buffer): void {
    const { habits, clock } = this.#parts;
    const queues = habits.queue || habits.binding === 'UQ';
    if (this.#isOff || (queues && port === usualPort && clock.now() - this.#sent > awake)) return;
    this.#sockets.get(port)?.receive(datagram);
  }

  async register(): Promise<string> {
    const { name, habits } = this.#parts;
    const { version, lifetime, binding, queue } = habits;
    const query = [
      `ep=${name}`,
      `lwm2m=${version}`,
      ...(lifetime === undefined ? [] : [`lt=${lifetime}`]),
      ...(binding === undefined ? [] : [`b=${binding}`]),
      ...(queue ? ['Q'] : []),
    ];
    const answer = await this.#ask('POST', ['rd'], query, Buffer.from(this.#links()), 40);
    this.#location = answer.options
      .filter((each) => each.name === 'Location-Path')
      .map(({ value }) => String(value));
    return answer.code;
  }

  async update(): Promise<string> {
    return (await this.#ask('POST', this.#location, [])).code;
  }

  async deregister(): Promise<string> {
    return (await this.#ask('DELETE', this.#location, [])).code;
  }

  #links(): string {
    const { root, rootLink, linksObjects } = this.#parts.habits;
    const instances = new Set(
      [...this.values.keys(), '5/0/3'].map((path) => path.split('/').slice(0, 2).join('/')),
    );
    const objects = linksObjects ? new Set([...instances].map((path) => path.split('/')[0] ?? '')) : [];
    const links = [...objects, ...instances].map((path) => `<${root}/${path}>`);
    return [`<${root === '' ? '/' : root}>${rootLink}`, ...links].join(',');
  }

  async #ask(
    code: string,
    path: readonly string[],
    query: readonly string[],
    payload = Buffer.alloc(0),
    contentFormat?: number,
  ): Promise<ParsedPacket> {
    const options: NamedOption[] = [
      ...path.map((each): NamedOption => ({ name: 'Uri-Path', value: Buffer.from(each) })),
      ...(contentFormat === undefined
        ? []
        : [{ name: 'Content-Format' as const, value: uintBytes(contentFormat) }]),
      ...query.map((each): NamedOption => ({ name: 'Uri-Query', value: Buffer.from(each) })),
    ];
    return await this.#sockets.get(usualPort)!.request(code, options, payload);
  }

  #open(port: number): CoapSocket {
    const { habits, dice, clock, send } = this.#parts;
    const socket = new CoapSocket({
      habits,
      dice,
      clock,
      send: (datagram) => {
        if (this.#isOff) return;
        if (port === usualPort) this.#sent = clock.now();
        send(port, datagram);
      },
      serve: (request) => this.#serve(request),
    });
    this.#sockets.set(port, socket);
    return socket;
  }

  #serve(request: ParsedPacket): CoapAnswer {
    const { root } = this.#parts.habits;
    const segments = request.options
      .filter(({ name }) => name === 'Uri-Path')
      .map(({ value }) => String(value));
    const start = root.split('/').filter((each) => each !== '');
    if (start.some((each, at) => segments[at] !== each)) return { code: '4.04' };
    const path = segments.slice(start.length).join('/');
    const body = this.#bodyOf(request, path);
    if (!Buffer.isBuffer(body)) return body;
    const block1 = optionOf(request, 'Block1');
    const answer = this.#do(request, path, body);
    if (request.code !== '0.01') this.log.push({ method: request.code, path, code: answer.code });
    const options = [
      ...(answer.options ?? []),
      ...(block1 ? [{ name: 'Block1' as const, value: block1 }] : []),
    ];
    return this.#blockOf(request, { ...answer, options });
  }

  /** The body of a request, or the answer that asks for its next block. */
  #bodyOf(request: ParsedPacket, path: string): Buffer | CoapAnswer {
    const option = optionOf(request, 'Block1');
    if (!option) return request.payload;
    const value = uintOf(option);
    const [number, hasMore, exponent] = [value >> 4, (value & 8) !== 0, value & 7];
    const blocks = number === 0 ? [] : (this.#bodies.get(path) ?? []);
    const at = blocks.reduce((sum, { length }) => sum + length, 0);
    if (at !== number << (exponent + 4)) return { code: '4.08' };
    blocks.push(request.payload);
    this.#bodies.set(path, blocks);
    if (hasMore) {
      const wanted = Math.min(exponent, Math.log2(this.#parts.habits.block) - 4);
      // A smaller size is asked for with the first block, whose number stays as it was.
      const size = number === 0 ? wanted : exponent;
      return { code: '2.31', options: [{ name: 'Block1', value: uintBytes((number << 4) | 8 | size) }] };
    }
    this.#bodies.delete(path);
    return Buffer.concat(blocks);
  }

  #blockOf(request: ParsedPacket, answer: CoapAnswer): CoapAnswer {
    const { payload = Buffer.alloc(0), options = [], code } = answer;
    const asked = optionOf(request, 'Block2');
    const value = uintOf(asked);
    const size = Math.min(this.#parts.habits.block, asked ? 16 << (value & 7) : 1024);
    const number = Math.floor(((value >> 4) * (asked ? 16 << (value & 7) : size)) / size);
    if (payload.length <= size && number === 0) return answer;
    const from = number * size;
    if (from >= payload.length) return { code: '4.02' };
    const hasMore = from + size < payload.length;
    const block = uintBytes((number << 4) | (hasMore ? 8 : 0) | (Math.log2(size) - 4));
    return {
      code,
      options: [...options, { name: 'Block2', value: block }],
      payload: payload.subarray(from, from + size),
    };
  }

  #do(request: ParsedPacket, path: string, body: Buffer): CoapAnswer {
    const contentFormat = uintOf(optionOf(request, 'Content-Format'));
    const isPlain = optionOf(request, 'Content-Format') === undefined;
    if (request.code === '0.01') return this.#get(request, path);
    if (path.startsWith('5/')) return this.#firmware(request, path, body);
    if (request.code === '0.02') {
      if (path === '1/0/8') {
        this.#later(async () => {
          await this.update();
        });
        return { code: '2.04' };
      }
      if (path === '3/0/4' || path === '3/0/12') return { code: '2.04' };
      return { code: this.#has(path) ? '4.05' : '4.04' };
    }
    if (request.code !== '0.03') return { code: '4.05' };
    const before = this.values.get(path);
    if (!before) return { code: this.#has(path) ? '4.05' : '4.04' };
    if (!this.writable.has(path)) return { code: '4.05' };
    if (!this.#takes(isPlain ? 0 : contentFormat, before)) return { code: '4.15' };
    const held = heldFrom(decodeValues(contentFormat, body, path).get(path), before);
    if (!held) return { code: '4.00' };
    this.values.set(path, held);
    return { code: '2.04' };
  }

  #takes(contentFormat: number, { type }: Held): boolean {
    const { format } = this.#parts.habits;
    if (contentFormat === 0) return type !== 'opaque';
    if (contentFormat === 42) return type === 'opaque';
    return contentFormat === numbers[format] || (format === 'old-json' && contentFormat === numbers.tlv);
  }

  #has(path: string): boolean {
    return [...this.values.keys()].some((key) => key === path || key.startsWith(`${path}/`));
  }

  #get(request: ParsedPacket, path: string): CoapAnswer {
    const { habits } = this.#parts;
    const accept = optionOf(request, 'Accept');
    const base = path.split('/').map(Number);
    const all = new Map([...this.values, ...this.#firmwareValues()]);
    const found = new Map([...all].filter(([key]) => key === path || key.startsWith(`${path}/`)));
    if (found.size === 0) return { code: '4.04' };
    if (accept && uintOf(accept) === 40) {
      if (!habits.hasDiscover) return { code: '4.06' };
      const below = new Set(
        [...found.keys()].map((key) => key.split('/').slice(0, Math.max(3, base.length)).join('/')),
      );
      const links = [`<${habits.root}/${path}>`, ...[...below].map((key) => `<${habits.root}/${key}>`)];
      return this.#content(40, Buffer.from(links.join(',')));
    }
    const wanted =
      accept === undefined ? this.#usualFormat(path, found) : this.#formatOf(uintOf(accept), path, found);
    if (!wanted) return { code: habits.refusal };
    const number = numbers[wanted];
    const drafted = habits.draftNumbers && number >= 11542 ? number - 10000 : number;
    return this.#content(drafted, encodeValues(wanted, found, base, habits.wideIntegers));
  }

  #usualFormat(path: string, found: Values): Format {
    const only = found.get(path);
    if (only?.type === 'opaque') return 'opaque';
    // Always the same for a path: the blocks of an answer are of one form.
    return only && path.length % 2 === 0 ? 'text' : this.#parts.habits.format;
  }

  #formatOf(number: number, path: string, found: Values): Format | undefined {
    const { format } = this.#parts.habits;
    const only = found.get(path);
    if (number === 0) return only && only.type !== 'opaque' ? 'text' : undefined;
    if (number === 42) return only?.type === 'opaque' ? 'opaque' : undefined;
    return number === numbers[format] ? format : undefined;
  }

  #content(contentFormat: number, payload: Buffer): CoapAnswer {
    return { code: '2.05', options: [{ name: 'Content-Format', value: uintBytes(contentFormat) }], payload };
  }

  #firmwareValues(): Values {
    const integer = (value: number): Held => ({ type: 'integer', value: BigInt(value) });
    const { delivery } = this.#parts.habits;
    return new Map([
      ['5/0/3', integer(this.#state)],
      ['5/0/5', integer(this.#result)],
      ['5/0/8/0', integer(0)],
      ...(delivery === undefined ? [] : ([['5/0/9', integer(delivery)]] as const)),
    ]);
  }

  #firmware({ code }: ParsedPacket, path: string, body: Buffer): CoapAnswer {
    const { knowsReset, delivery } = this.#parts.habits;
    if (code === '0.02' && path === '5/0/2') {
      if (this.#state !== 2) return { code: '4.05' };
      this.#state = 3;
      this.#later(() => this.#install());
      return { code: '2.04' };
    }
    if (code !== '0.03' || this.#state === 3) return { code: '4.05' };
    if (path === '5/0/0') {
      if (delivery === 0) return { code: '4.05' };
      const isReset = body.length <= 1;
      if (isReset && !knowsReset) return { code: '4.00' };
      this.#state = isReset ? 0 : 2;
      this.#result = 0;
      if (!isReset) this.images.push(body);
      return { code: '2.04' };
    }
    if (path !== '5/0/1' || delivery === 1) return { code: '4.05' };
    const [written = ''] = [...decodeValues(writtenFormat(body), body, path).values()];
    const uri = String(written instanceof Uint8Array ? Buffer.from(written) : written);
    if (uri === '') {
      if (!knowsReset) return { code: '4.00' };
      this.#state = 0;
      this.#result = 0;
      return { code: '2.04' };
    }
    this.#state = 1;
    this.#result = 0;
    this.#later(() => this.#download(new URL(uri)));
    return { code: '2.04' };
  }

  #later(work: () => Promise<void>): void {
    const { clock } = this.#parts;
    this.#work = Promise.all([
      this.#work,
      pause(clock, 100, new AbortController().signal).then(async () => {
        if (!this.#isOff) await work().catch(() => {});
      }),
    ]);
  }

  /** Fetches an image block by block, from a port of its own where that is its habit. */
  async #download({ pathname, search }: URL): Promise<void> {
    const { habits } = this.#parts;
    const port = habits.ownDownloads ? usualPort + 1 : usualPort;
    const socket = this.#sockets.get(port) ?? this.#open(port);
    const path = pathname.split('/').slice(1).map(decodeURIComponent);
    const query = search
      .slice(1)
      .split('&')
      .filter((each) => each !== '')
      .map(decodeURIComponent);
    const options: NamedOption[] = [
      ...path.map((each): NamedOption => ({ name: 'Uri-Path', value: Buffer.from(each) })),
      ...query.map((each): NamedOption => ({ name: 'Uri-Query', value: Buffer.from(each) })),
    ];
    let exponent = Math.log2(habits.block) - 4;
    const blocks: Buffer[] = [];
    for (let at = 0; ; ) {
      const block: NamedOption = {
        name: 'Block2',
        value: uintBytes(((at >> (exponent + 4)) << 4) | exponent),
      };
      const answer = await socket.request('GET', [...options, block]).catch(() => undefined);
      if (answer?.code !== '2.05') {
        this.#state = 0;
        this.#result = answer ? 7 : 4;
        return;
      }
      blocks.push(answer.payload);
      at += answer.payload.length;
      // The server may give smaller blocks than it was asked for.
      exponent = Math.min(exponent, uintOf(optionOf(answer, 'Block2')) & 7);
      if ((uintOf(optionOf(answer, 'Block2')) & 8) === 0) break;
    }
    this.images.push(Buffer.concat(blocks));
    this.#state = 2;
  }

  async #install(): Promise<void> {
    const { habits, clock } = this.#parts;
    if (habits.reboot === 'deregisters') await this.deregister();
    this.#isOff = habits.reboot !== 'stays';
    await pause(clock, 20_000, new AbortController().signal);
    this.#isOff = false;
    const isDone = habits.updateResult === 1;
    // A failed installation leaves the package with some clients.
    this.#state = isDone || habits.updateResult === 5 ? 0 : 2;
    this.#result = habits.updateResult;
    if (isDone) this.image = this.images.at(-1) ?? this.image;
    if (habits.reboot !== 'stays') await this.register();
  }
}

/** The format of a written Package URI: a text has a scheme or is empty, SenML begins with an array. */
function writtenFormat(body: Buffer): number {
  if (body.length === 0 || /^coaps?:/.test(body.toString('latin1'))) return 0;
  if (body[0] === 0x5b) return 110;
  return (body[0] ?? 0) >> 5 === 4 ? 112 : 11542;
}
