// An LwM2M client that is light enough for thousands in one process: one UDP socket, a timer while it registers, no CoAP stack. It
// registers, answers what a server asks of it, is observed, and notifies when it is told to.
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import {
  type CoapMessage,
  type CoapOption,
  decode,
  encode,
  Malformed,
  noBytes,
  Type,
} from '../../src/wire/coap/codec.ts';
import { Code, isRequestCode } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, sorted, textOptions, uint, uintOption, uriOptions } from '../../src/wire/coap/options.ts';
import { encodeContent } from '../../src/wire/lwm2m/content.ts';
import { parsePath } from '../../src/wire/lwm2m/path.ts';

/** Who observes what. */
interface Relation {
  readonly path: string;
  readonly token: Uint8Array;
  readonly format: number;
  sequence: number;
  /** Of its last notification. */
  messageId?: number;
}

export class LightClient implements Disposable {
  readonly id: string;
  /** The value of `/3303/0/5700`. */
  value = 0;
  /** Query of Write-Attributes, by path. */
  readonly attributes = new Map<string, readonly string[]>();
  readonly #gateway: number;
  readonly #address: string;
  readonly #socket: Socket = createSocket('udp4');
  readonly #relations = new Map<string, Relation>();
  readonly #waiting = new Map<number, (message: CoapMessage) => void>();
  #messageId = Math.floor(Math.random() * 0xffff);
  #observed: () => void = () => {};
  /** Resolves when the client is observed for the first time after its registration. */
  observed: Promise<void> = Promise.resolve();

  /**
   * @param gateway UDP port of the gateway at 127.0.0.1
   * @param address loopback address of the client
   */
  constructor(id: string, gateway: number, address = '127.0.0.1') {
    this.id = id;
    this.#gateway = gateway;
    this.#address = address;
    this.#socket.on('message', (datagram) => this.#receive(datagram));
  }

  /** Number of observations. */
  get relations(): number {
    return this.#relations.size;
  }

  /** Opens its socket, and registers until it is answered. Observations of before are forgotten. */
  async register(): Promise<void> {
    this.observed = this.observedNext();
    this.#relations.clear();
    if (!this.#isOpen()) {
      this.#socket.bind(0, this.#address);
      await once(this.#socket, 'listening');
    }
    const query = [`ep=${this.id}`, 'lt=86400', 'lwm2m=1.1', 'b=U'];
    const options = [...uriOptions(['rd'], query), uint(Option.ContentFormat, ContentFormat.LinkFormat)];
    const answer = await this.#request(Code.POST, options, Buffer.from('</3/0>,</3303/0>'));
    if (answer.code !== Code.Created) throw new Error(`${this.id}: registration answered ${answer.code}`);
  }

  #isOpen(): boolean {
    try {
      return this.#socket.address() !== undefined;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    if (this.#isOpen()) this.#socket.close();
  }

  /** Resolves at the next time that it is observed. */
  observedNext(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#observed = resolve;
    return promise;
  }

  /** Tells a new value to whoever observes it. */
  notify(value: number): void {
    this.value = value;
    for (const relation of this.#relations.values()) {
      relation.messageId = ++this.#messageId & 0xffff;
      this.#send(this.#content(Type.NON, relation.messageId, relation));
    }
  }

  /** Sends values unasked (LwM2M core 1.1, section 6.4.6). Returns the code of the answer. */
  async send(value: number): Promise<number> {
    const entries = [{ path: parsePath('/3303/0/5700'), value }];
    const options = [...uriOptions(['dp']), uint(Option.ContentFormat, ContentFormat.SenmlCbor)];
    const body = encodeContent(ContentFormat.SenmlCbor, entries, parsePath('/3303/0/5700'));
    return (await this.#request(Code.POST, options, Buffer.from(body))).code;
  }

  /** A confirmable request, repeated each two seconds. */
  async #request(code: number, options: readonly CoapOption[], payload: Buffer): Promise<CoapMessage> {
    const messageId = ++this.#messageId & 0xffff;
    const token = Buffer.of(messageId >> 8, messageId & 255);
    const message = { type: Type.CON, code, messageId, token, options: sorted(options), payload };
    const { promise, resolve } = Promise.withResolvers<CoapMessage>();
    this.#waiting.set(messageId, resolve);
    const again = setInterval(() => this.#send(message), 2000);
    this.#send(message);
    try {
      return await promise;
    } finally {
      clearInterval(again);
      this.#waiting.delete(messageId);
    }
  }

  #receive(datagram: Buffer): void {
    const message = decode(datagram);
    if (message instanceof Malformed) return;
    const { type, code, messageId, token } = message;
    if (isRequestCode(code)) {
      this.#answer(message);
      return;
    }
    if (type === Type.RST) {
      for (const [key, relation] of this.#relations)
        if (relation.messageId === messageId) this.#relations.delete(key);
      return;
    }
    // A separate response is acknowledged.
    if (type === Type.CON)
      this.#send({ ...message, type: Type.ACK, code: 0, token: noBytes, options: [], payload: noBytes });
    if (code === 0) return;
    const id = token.length === 2 ? Buffer.from(token).readUInt16BE() : messageId;
    this.#waiting.get(id)?.(message);
  }

  #answer({ code, messageId, token, options, type }: CoapMessage): void {
    const path = `/${textOptions(options, Option.UriPath).join('/')}`;
    const format = uintOption(options, Option.Accept) ?? ContentFormat.SenmlCbor;
    const reply = (answer: number) =>
      this.#send({
        ...{ type: type === Type.CON ? Type.ACK : Type.NON, code: answer, messageId, token },
        ...{ options: [], payload: noBytes },
      });
    if (code === Code.PUT) {
      this.attributes.set(path, textOptions(options, Option.UriQuery));
      reply(Code.Changed);
      return;
    }
    if (code !== Code.GET) {
      reply(Code.MethodNotAllowed);
      return;
    }
    const relation: Relation = { path, token, format, sequence: 1 };
    const observe = uintOption(options, Option.Observe);
    const key = Buffer.from(token).toString('hex');
    if (observe === 0) this.#relations.set(key, relation);
    if (observe === 1) this.#relations.delete(key);
    this.#send(this.#content(Type.ACK, messageId, relation, observe === 0));
    if (observe === 0) this.#observed();
  }

  #content(type: Type, messageId: number, relation: Relation, observed = true): CoapMessage {
    const { path, token, format } = relation;
    const all = [
      { path: '/3/0/0', value: 'Light' },
      { path: '/3/0/1', value: 'L1' },
      { path: '/3/0/2', value: this.id },
      { path: '/3303/0/5700', value: this.value },
    ];
    const entries = all
      .filter((entry) => entry.path === path || entry.path.startsWith(`${path}/`))
      .map((entry) => ({ path: parsePath(entry.path), value: entry.value }));
    if (entries.length === 0)
      return { type, code: Code.NotFound, messageId, token, options: [], payload: noBytes };
    const options = [
      ...(observed ? [uint(Option.Observe, relation.sequence++)] : []),
      uint(Option.ContentFormat, format),
    ];
    const payload = Buffer.from(encodeContent(format, entries, parsePath(path)));
    return { type, code: Code.Content, messageId, token, options: sorted(options), payload };
  }

  #send(message: CoapMessage): void {
    this.#socket.send(encode(message), this.#gateway, '127.0.0.1');
  }
}
