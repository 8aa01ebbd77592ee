import type { NamedOption, ParsedPacket } from 'coap-packet';
import { type Clock, pause } from '../../../src/base/clock.ts';
import { type CoapAnswer, CoapSocket, optionOf, uintBytes, uintOf } from './coap-socket.ts';
import type { Dice } from './dice.ts';
import { Lwm2mAccounts } from './lwm2m-accounts.ts';
import { Lwm2mFirmware } from './lwm2m-firmware.ts';
import type { Lwm2mHabits } from './lwm2m-habits.ts';
import { Lwm2mObjects, type ObjectRequest } from './lwm2m-objects.ts';
import { Lwm2mObserved } from './lwm2m-observed.ts';
import { decodeValues, encodeValues, type Held, numbers, type Values } from './lwm2m-values.ts';

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
/** Milliseconds that it waits for a Bootstrap-Finish (EXCHANGE_LIFETIME). */
const patience = 247_000;

/** An LwM2M client that has its own reading of the specification, and nothing of Postern. */
export class Lwm2mClient {
  readonly #parts: Lwm2mClientParts;
  readonly #sockets = new Map<number, CoapSocket>();
  readonly objects: Lwm2mObjects;
  readonly accounts: Lwm2mAccounts;
  readonly firmware: Lwm2mFirmware;
  readonly observed: Lwm2mObserved;
  readonly log: Lwm2mDone[] = [];
  /** Datagrams that it did not hear because it slept. */
  missed = 0;
  #location: readonly string[] = [];
  #lifetime: number | undefined;
  #sent = 0;
  #isOff = false;
  #isOver = false;
  /** Counts the times that it lost its power. */
  #life = 0;
  /** The body that a request brings in blocks, by its path. */
  readonly #bodies = new Map<string, Buffer[]>();
  #work: Promise<unknown> = Promise.resolve();

  constructor(parts: Lwm2mClientParts) {
    this.#parts = parts;
    const { habits, clock, values } = parts;
    this.firmware = new Lwm2mFirmware({
      habits,
      later: (work) => this.#later(work),
      socket: () => this.#socket(habits.ownDownloads ? usualPort + 1 : usualPort),
      reboot: () => this.#reboot(),
    });
    this.objects = new Lwm2mObjects(habits, values, () => this.firmware.values);
    this.accounts = new Lwm2mAccounts(habits);
    this.observed = new Lwm2mObserved(clock, habits.conditions === 'heeds', (token, answer, more, ended) => {
      const limited = this.#blockOf(undefined, answer);
      const options = [...(limited.options ?? []), ...more];
      const isConfirmable = habits.notifies === 'confirmable';
      if (!this.#isOff) this.#socket(usualPort).notify(isConfirmable, { ...limited, options }, token, ended);
    });
  }

  get values(): Map<string, Held> {
    return this.objects.values;
  }

  /** The last part of the path of its registration. */
  get location(): string | undefined {
    return this.#location.at(-1);
  }

  get isAsleep(): boolean {
    const { habits, clock } = this.#parts;
    return (habits.queue || habits.binding === 'UQ') && clock.now() - this.#sent > awake;
  }

  /** Nothing of it goes on. */
  async stop(): Promise<void> {
    this.#isOver = true;
    this.#off();
    await this.#work;
  }

  receive(port: number, datagram: Buffer): void {
    if (port === usualPort && this.isAsleep) this.missed++;
    else if (!this.#isOff) this.#sockets.get(port)?.receive(datagram);
  }

  /** Gets an account, as its habits say. Returns the code of the answer, or `no end`. */
  async bootstrap(): Promise<string> {
    const { name, habits, clock, dice } = this.#parts;
    if (habits.bootstrap === 'pack') {
      const format = dice.pick(['senml-json', 'senml-cbor'] as const);
      const answer = await this.#fetch(['bspack'], [`ep=${name}`], numbers[format]);
      if (answer.code === '2.05') this.accounts.unpack(decodeValues(numbers[format], answer.payload, ''));
      return answer.code;
    }
    const pct = habits.format.startsWith('senml') ? [`pct=${numbers[habits.format]}`] : [];
    const finished = this.accounts.finished().then(() => true);
    const { code } = await this.#ask('POST', ['bs'], [`ep=${name}`, ...pct]);
    if (code !== '2.04') return code;
    const stop = new AbortController();
    const isFinished = await Promise.race([finished, pause(clock, patience, stop.signal).then(() => false)]);
    stop.abort();
    this.#lifetime = [...this.accounts.servers.values()].at(-1)?.lifetime;
    return isFinished ? code : 'no end';
  }

  async register(): Promise<string> {
    const { name, habits } = this.#parts;
    const { version, binding, queue } = habits;
    const lifetime = this.#lifetime ?? habits.lifetime;
    const query = [
      `ep=${name}`,
      `lwm2m=${version}`,
      ...(lifetime === undefined ? [] : [`lt=${lifetime}`]),
      ...(binding === undefined ? [] : [`b=${binding}`]),
      ...(queue ? ['Q'] : []),
    ];
    this.observed.clear();
    const answer = await this.#ask('POST', ['rd'], query, Buffer.from(this.#links()), 40);
    this.#location = answer.options
      .filter((each) => each.name === 'Location-Path')
      .map(({ value }) => String(value));
    return answer.code;
  }

  async update(hasObjects = false): Promise<string> {
    const links = Buffer.from(hasObjects ? this.#links() : '');
    return (await this.#ask('POST', this.#location, [], links, hasObjects ? 40 : undefined)).code;
  }

  async deregister(): Promise<string> {
    return (await this.#ask('DELETE', this.#location, [])).code;
  }

  /** Sends values unasked (LwM2M core 1.1, section 6.4.6). Returns the code of the answer. */
  async sendValues(values: Values): Promise<string> {
    const { habits } = this.#parts;
    const format = habits.format === 'senml-json' ? 'senml-json' : 'senml-cbor';
    const body = encodeValues(format, values, [], habits.wideIntegers);
    return (await this.#ask('POST', ['dp'], [], body, numbers[format])).code;
  }

  /** A value changes by itself. */
  change(path: string, held: Held): void {
    this.values.set(path, held);
    this.observed.changed(path);
  }

  /** Loses its power, and has it again after a while. It keeps objects and packages, and forgets all else. */
  async losePower(milliseconds: number): Promise<void> {
    this.#off();
    await pause(this.#parts.clock, milliseconds, new AbortController().signal);
    this.firmware.restart();
    if (!this.#isOver) this.#isOff = false;
  }

  #off(): void {
    this.#isOff = true;
    this.#life++;
    this.observed.clear();
    this.#bodies.clear();
    for (const socket of this.#sockets.values()) socket.stop();
    this.#sockets.clear();
  }

  /** Goes away after an update, and comes back. */
  async #reboot(): Promise<void> {
    const { habits, clock } = this.#parts;
    const { reboot } = habits;
    if (reboot === 'deregisters') await this.deregister().catch(() => {});
    this.#isOff = reboot !== 'stays';
    await pause(clock, 20_000, new AbortController().signal);
    if (!this.#isOver) this.#isOff = false;
    if (reboot !== 'stays') this.#later(() => this.register());
  }

  #links(): string {
    const { root, rootLink, linksObjects } = this.#parts.habits;
    const { instances } = this.objects;
    const objects = linksObjects ? new Set([...instances].map((path) => path.split('/')[0] ?? '')) : [];
    const links = [...objects, ...instances].map((path) => `<${root}/${path}>`);
    return [`<${root === '' ? '/' : root}>${rootLink}`, ...links].join(',');
  }

  async #ask(
    code: string,
    path: readonly string[],
    query: readonly string[],
    payload: Buffer = Buffer.alloc(0),
    contentFormat?: number,
    more: readonly NamedOption[] = [],
  ): Promise<ParsedPacket> {
    const options: NamedOption[] = [
      ...path.map((each): NamedOption => ({ name: 'Uri-Path', value: Buffer.from(each) })),
      ...(contentFormat === undefined
        ? []
        : [{ name: 'Content-Format' as const, value: uintBytes(contentFormat) }]),
      ...query.map((each): NamedOption => ({ name: 'Uri-Query', value: Buffer.from(each) })),
      ...more,
    ];
    return await this.#socket(usualPort).request(code, options, payload);
  }

  /** Gets a body of one or more blocks. */
  async #fetch(
    path: readonly string[],
    query: readonly string[],
    accept: number,
  ): Promise<{ code: string; payload: Buffer }> {
    const blocks: Buffer[] = [];
    for (let number = 0; ; number++) {
      const block = uintBytes((number << 4) | 2);
      const answer = await this.#ask('GET', path, query, undefined, undefined, [
        { name: 'Accept', value: uintBytes(accept) },
        { name: 'Block2', value: block },
      ]);
      blocks.push(answer.payload);
      const isLast = (uintOf(optionOf(answer, 'Block2')) & 8) === 0;
      if (isLast || answer.code !== '2.05') return { code: answer.code, payload: Buffer.concat(blocks) };
    }
  }

  #socket(port: number): CoapSocket {
    const { habits, dice, clock, send } = this.#parts;
    const known = this.#sockets.get(port);
    if (known) return known;
    const life = this.#life;
    const socket = new CoapSocket({
      habits,
      dice,
      clock,
      send: (datagram) => {
        if (this.#isOff || life !== this.#life) return;
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
      .map(({ value }) => String(value))
      .filter((each) => each !== '');
    const start = this.accounts.isInBootstrap ? [] : root.split('/').filter((each) => each !== '');
    if (start.some((each, at) => segments[at] !== each)) return { code: '4.04' };
    const path = segments.slice(start.length).join('/');
    const body = this.#bodyOf(request, path);
    if (!Buffer.isBuffer(body)) return body;
    const block1 = optionOf(request, 'Block1');
    const answer = this.#do(request, path, body);
    const isCondition = request.code === '0.03' && optionOf(request, 'Uri-Query') !== undefined;
    if (!reading.has(request.code) && !isCondition)
      this.log.push({ method: request.code, path, code: answer.code });
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
    if (at !== number << (exponent + 4)) {
      // It has lost its power since the first block.
      this.log.push({ method: request.code, path, code: '4.08' });
      return { code: '4.08' };
    }
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

  /** @param request the request of an answer; undefined for a notification */
  #blockOf(request: ParsedPacket | undefined, answer: CoapAnswer): CoapAnswer {
    const { payload = Buffer.alloc(0), options = [], code } = answer;
    const asked = request && optionOf(request, 'Block2');
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
    const format = optionOf(request, 'Content-Format');
    const contentFormat = format && uintOf(format);
    const bootstrap = this.accounts.do(request.code, path, body, contentFormat ?? 0);
    if (bootstrap) return bootstrap;
    const accept = optionOf(request, 'Accept');
    const asked: ObjectRequest = { path, body, contentFormat, accept: accept && uintOf(accept) };
    switch (request.code) {
      case '0.01':
        return this.#observe(request, [path], () => this.objects.read(asked));
      case '0.05': {
        const paths = pathsIn(contentFormat, body);
        return this.#observe(request, paths, () => this.objects.readAll(paths));
      }
      case '0.07': {
        const answer = this.objects.writeAll(asked);
        if (answer.code === '2.04')
          for (const each of decodeValues(contentFormat ?? 0, body, '').keys()) this.observed.changed(each);
        return answer;
      }
      case '0.02':
        return this.#post(asked);
      case '0.03':
        return this.#put(request, asked);
      case '0.04':
        return this.#told(this.objects.remove(path));
      default:
        return { code: '4.05' };
    }
  }

  #observe(request: ParsedPacket, paths: readonly string[], read: () => CoapAnswer): CoapAnswer {
    const { observes } = this.#parts.habits;
    const option = optionOf(request, 'Observe');
    const answer = read();
    if (!option || !observes || answer.code !== '2.05') return answer;
    const more = this.observed.ask(uintOf(option), request.token, paths, read);
    return { ...answer, options: [...more, ...(answer.options ?? [])] };
  }

  #post(asked: ObjectRequest): CoapAnswer {
    const { path, body } = asked;
    if (path.startsWith('5/')) return this.firmware.do('0.02', path, body);
    if (path === '1/0/8') {
      this.#later(async () => await this.update());
      return { code: '2.04' };
    }
    if (path === '3/0/4' || path === '3/0/12') return { code: '2.04' };
    if (!path.includes('/')) return this.#told(this.objects.create(asked));
    return { code: this.objects.has(path) ? '4.05' : '4.04' };
  }

  #put(request: ParsedPacket, asked: ObjectRequest): CoapAnswer {
    const { path, body } = asked;
    const query = request.options.filter(({ name }) => name === 'Uri-Query').map(({ value }) => `${value}`);
    if (query.length > 0) {
      if (this.#parts.habits.conditions === 'refuses') return { code: '4.05' };
      this.observed.setConditions(path, query);
      return { code: '2.04' };
    }
    if (path.startsWith('5/')) return this.firmware.do('0.03', path, body);
    const answer = this.objects.write(asked);
    if (answer.code === '2.04') this.observed.changed(path);
    return answer;
  }

  /** An instance has come or gone: the servers learn of it by the next update. */
  #told(answer: CoapAnswer): CoapAnswer {
    if (answer.code.startsWith('2.') && this.#parts.habits.tellsObjects)
      this.#later(async () => await this.update(true));
    return answer;
  }

  #later(work: () => Promise<unknown>): void {
    const { clock } = this.#parts;
    const life = this.#life;
    this.#work = Promise.all([
      this.#work,
      pause(clock, 100, new AbortController().signal).then(async () => {
        if (life === this.#life) await work().catch(() => {});
      }),
    ]);
  }
}

/** Methods that change nothing. */
const reading: ReadonlySet<string> = new Set(['0.01', '0.05']);

/** The paths in a request for a composite operation: SenML CBOR without values. */
const pathsIn = (contentFormat: number | undefined, body: Buffer): readonly string[] =>
  contentFormat === numbers['senml-cbor'] ? [...decodeValues(contentFormat, body, '').keys()] : [];
