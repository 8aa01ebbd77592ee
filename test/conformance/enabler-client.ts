import { EventEmitter, once } from 'node:events';
import { toCbor } from '../../src/base/cbor.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import type { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { type CoapRequest, type Reply, refusal, reply } from '../../src/wire/coap/message.ts';
import { Option, uintOption } from '../../src/wire/coap/options.ts';
import { remoteKey } from '../../src/wire/coap/peer.ts';
import { decodeContent, encodeContent } from '../../src/wire/lwm2m/content.ts';
import { typeOf } from '../../src/wire/lwm2m/objects.ts';
import { isBelow, type Path, parsePath, pathText } from '../../src/wire/lwm2m/path.ts';
import type { Entry, Value } from '../../src/wire/lwm2m/resource.ts';
import { decodePaths } from '../../src/wire/lwm2m/senml.ts';
import { instancesIn } from '../../src/wire/lwm2m/tlv.ts';
import { CoapPeer } from '../peers/coap-peer.ts';

/** Configuration 3 of the enabler tests, with the object Portfolio of configuration 12. */
const configuration: Readonly<Record<string, Value>> = {
  '/1/0/0': 1,
  '/1/0/1': 86_400,
  '/1/0/2': 1,
  '/1/0/3': 10,
  '/1/0/5': 86_400,
  '/1/0/6': false,
  '/1/0/7': 'U',
  '/3/0/0': 'Open Mobile Alliance',
  '/3/0/1': 'Lightweight M2M Client',
  '/3/0/2': '345000123',
  '/3/0/3': '1.0',
  '/3/0/11/0': 0,
  '/3/0/16': 'U',
  '/16/0/0/0': 'aa',
  '/16/0/0/1': 'bb',
};

/** Resources of it that a server may write. */
const writable: ReadonlySet<string> = new Set([
  '/1/0/1',
  '/1/0/2',
  '/1/0/3',
  '/1/0/5',
  '/1/0/6',
  '/1/0/7',
  '/1/0/23',
  '/3/0/13',
  '/3/0/14',
  '/3/0/15',
]);

/** A request that the client has heard. */
export interface Heard {
  /** Such as `PUT /1/0/1`, `PUT /3/0/7?pmin=5`, `GET /3/0/7 observe`, or `FETCH /1/0/1 /3/0/16 cancel`. */
  readonly what: string;
  readonly contentFormat: number | undefined;
  readonly accept: number | undefined;
  readonly payload: Uint8Array;
}

const names: Readonly<Record<number, string>> = {
  [Code.GET]: 'GET',
  [Code.POST]: 'POST',
  [Code.PUT]: 'PUT',
  [Code.DELETE]: 'DELETE',
  [Code.FETCH]: 'FETCH',
  [Code.iPATCH]: 'iPATCH',
};

/** A request as `Heard` has it. */
function whatIs({ method, path, query, message, contentFormat, payload }: CoapRequest): string {
  const about =
    method === Code.FETCH
      ? decodePaths(contentFormat, payload).map(pathText).join(' ')
      : `/${path.join('/')}`;
  const asked = query.length > 0 ? `?${query.join('&')}` : '';
  const observe = [' observe', ' cancel'][uintOption(message.options, Option.Observe) ?? 2] ?? '';
  return `${names[method]} ${about}${asked}${observe}`;
}

/**
 * An LwM2M client as the enabler test specification has it: the objects of a configuration, and one content format in which it
 * answers and which it takes. What it sends is up to the test.
 */
export class EnablerClient {
  readonly values = new Map(Object.entries(configuration));
  readonly heard: Heard[] = [];
  /** Conditions of notifications that a Write-Attributes has set, such as `pmin=5`, by path. */
  readonly conditions = new Map<string, Map<string, string>>();
  /** Content format of its answers. */
  format: number = ContentFormat.LwM2mTlv;
  /** Content formats that it takes in a Write. */
  takes: readonly number[] = [ContentFormat.LwM2mTlv];
  /** Times that its Registration Update Trigger was executed: by an order, or for a proof that it is there. */
  triggers = 0;
  /** Called then. A client sends an Update. */
  triggered: () => void = () => {};
  /** Answers a request in place of the objects; undefined for as usual. A promise without an end is no answer. */
  instead: (request: CoapRequest, what: string) => Reply | Promise<never> | undefined = () => undefined;
  readonly #told = new EventEmitter();

  /** Requests that were heard, such as `PUT /1/0/1`, without the triggers. */
  get orders(): string[] {
    return this.heard.map(({ what }) => what);
  }

  /** Resolves with the request when this has been heard. */
  async until(what: string): Promise<Heard> {
    for (;;) {
      const found = this.heard.find((each) => each.what === what);
      if (found) return found;
      await once(this.#told, 'heard');
    }
  }

  readonly answer = (request: CoapRequest): Reply | Promise<never> => {
    const path = request.path.map(Number);
    const what = whatIs(request);
    const { contentFormat, accept, payload } = request;
    if (what === 'POST /1/0/8') {
      this.triggers++;
      setImmediate(this.triggered);
      return reply(Code.Changed);
    }
    this.heard.push({ what, contentFormat, accept, payload: Buffer.from(payload) });
    this.#told.emit('heard');
    return this.instead(request, what) ?? this.#answerAs(request, path);
  };

  #answerAs(request: CoapRequest, path: Path): Reply {
    switch (request.method) {
      case Code.GET:
        return request.accept === ContentFormat.LinkFormat ? this.#discover(path) : this.#read(request, path);
      case Code.DELETE:
        for (const { path: at } of this.below(path)) this.values.delete(pathText(at));
        return reply(Code.Deleted);
      case Code.POST:
        if (path.length === 3) return reply(Code.Changed);
        return path.length === 1 ? this.#create(request, path) : this.#write(request, path);
      case Code.PUT:
        return request.query.length > 0 ? this.#setConditions(request, path) : this.#write(request, path);
      default:
        return this.#write(request, path);
    }
  }

  /** The values at a path and below. */
  below(path: Path): Entry[] {
    const entries = [...this.values].map(([text, value]) => ({ path: parsePath(text), value }));
    return entries.filter((entry) => isBelow(entry.path, path));
  }

  #discover(path: Path): Reply {
    const resources = new Map<string, number>();
    for (const { path: at } of this.below(path)) {
      const name = pathText(at.slice(0, 3));
      resources.set(name, (resources.get(name) ?? 0) + (at.length > 3 ? 1 : 0));
    }
    const conditionsOf = (name: string) =>
      [...(this.conditions.get(name) ?? [])].map(([attribute, value]) => `;${attribute}=${value}`).join('');
    const links = [...resources].map(
      ([name, dim]) => `<${name}>${dim > 0 ? `;dim=${dim}` : ''}${conditionsOf(name)}`,
    );
    const executable = path[0] === 3 ? ['</3/0/4>'] : [];
    const own = pathText(path);
    const payload = [`<${own}>${conditionsOf(own)}`, ...links, ...executable].join();
    return reply(Code.Content, { payload, contentFormat: ContentFormat.LinkFormat });
  }

  #read({ accept }: CoapRequest, path: Path): Reply {
    const found = this.below(path);
    if (path[0] === 0) return refusal(Code.Unauthorized, '');
    if (found.length === 0) return refusal(Code.NotFound, '');
    if (accept !== undefined && accept !== this.format) return refusal(Code.NotAcceptable, '');
    return reply(Code.Content, { payload: this.#content(found, path), contentFormat: this.format });
  }

  #content(found: readonly Entry[], path: Path): Uint8Array {
    const only = found[0]?.value ?? '';
    if (this.format === ContentFormat.Cbor) return toCbor(only);
    if (this.format !== ContentFormat.LwM2mJson) return encodeContent(this.format, found, path);
    const e = found.map(({ path: at, value }) => {
      const n = at.slice(path.length).join('/');
      if (typeof value === 'boolean') return { n, bv: value };
      return typeof value === 'number' ? { n, v: value } : { n, sv: value };
    });
    return Buffer.from(JSON.stringify({ bn: `${pathText(path)}/`, e }));
  }

  /** Write-Attributes. An attribute without a value is taken away. */
  #setConditions({ query }: CoapRequest, path: Path): Reply {
    if (this.below(path).length === 0) return refusal(Code.NotFound, '');
    const set = this.conditions.get(pathText(path)) ?? new Map<string, string>();
    for (const [attribute = '', value] of query.map((each) => each.split('='))) {
      if (value === undefined) set.delete(attribute);
      else set.set(attribute, value);
    }
    this.conditions.set(pathText(path), set);
    return reply(Code.Changed);
  }

  #write({ contentFormat = 0, payload }: CoapRequest, path: Path): Reply {
    if (!this.takes.includes(contentFormat)) return refusal(Code.UnsupportedContentFormat, '');
    const entries = decodeContent(contentFormat, payload, path);
    const isFixed = ({ path: at }: Entry) => at[0] !== 16 && !writable.has(pathText(at));
    if (entries.some(isFixed)) return refusal(Code.MethodNotAllowed, '');
    for (const { path: at, value } of entries)
      this.values.set(
        pathText(at),
        typeOf(at) || !(value instanceof Uint8Array) ? value : `${Buffer.from(value)}`,
      );
    return reply(Code.Changed);
  }

  #create({ payload }: CoapRequest, path: Path): Reply {
    for (const id of instancesIn(payload)) this.values.set(pathText([...path, id, 0, 0]), 'new');
    return reply(Code.Created);
  }
}

/** An enabler test client on a socket, and the port of the gateway that it talks to. */
export class EnablerPeer implements AsyncDisposable {
  readonly client: EnablerClient;
  readonly id: string;
  readonly #peer: CoapPeer;
  readonly #port: number;
  /** Path that the last registration was given. */
  location: readonly string[] = [];

  private constructor(client: EnablerClient, peer: CoapPeer, id: string, port: number) {
    this.client = client;
    this.#peer = peer;
    this.id = id;
    this.#port = port;
    client.triggered = () => {
      // The gateway may have stopped meanwhile.
      if (this.location.length > 0) this.update().catch(() => {});
    };
  }

  static async open(id: string, port: number): Promise<EnablerPeer> {
    const client = new EnablerClient();
    const peer = await CoapPeer.open(client.answer);
    // A client believes the address of its server: an answer may be longer than three times the request.
    peer.endpoint.vouch({ address: '127.0.0.1', port, key: remoteKey('127.0.0.1', port) });
    return new EnablerPeer(client, peer, id, port);
  }

  get endpoint(): CoapEndpoint {
    return this.#peer.endpoint;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#peer[Symbol.asyncDispose]();
  }

  /** Sends a request to the gateway. Returns the code of the answer. */
  async send(
    method: number,
    path: readonly string[],
    query: readonly string[] = [],
    payload = '',
  ): Promise<string> {
    const { name, options } = await this.#peer.call(this.#port, {
      method,
      path,
      query,
      ...(payload !== '' && { payload: Buffer.from(payload), contentFormat: ContentFormat.LinkFormat }),
    });
    const location = options.filter(({ number }) => number === Option.LocationPath.number);
    if (location.length > 0) this.location = location.map(({ value }) => Buffer.from(value).toString());
    return name;
  }

  /** Objects and instances that it registers. */
  links = '</1/0>,</3/0>,</16/0>';

  register = async (...query: readonly string[]): Promise<string> =>
    await this.send(Code.POST, ['rd'], [`ep=${this.id}`, 'lwm2m=1.1', ...query], this.links);

  /** Sends the values at these paths unasked (Send), unless the resource Mute Send forbids it. Returns the code of the answer. */
  async sendValues(format: number, ...paths: readonly string[]): Promise<string | undefined> {
    if (this.client.values.get('/1/0/23') === true) return undefined;
    const entries = paths.flatMap((path) => this.client.below(parsePath(path)));
    const { name } = await this.#peer.call(this.#port, {
      method: Code.POST,
      path: ['dp'],
      contentFormat: format,
      payload: encodeContent(format, entries, []),
    });
    return name;
  }

  update = async (...query: readonly string[]): Promise<string> =>
    await this.send(Code.POST, this.location, query);

  deregister = async (): Promise<string> => await this.send(Code.DELETE, this.location);

  bootstrap = async (): Promise<string> => await this.send(Code.POST, ['bs'], [`ep=${this.id}`]);
}

/** What the gateway's API shows of the registration of a client. */
export const shownOf = (gateway: Gateway, id: string) =>
  (gateway.devices() as readonly { deviceId: string; registration?: object }[]).find(
    ({ deviceId }) => deviceId === id,
  )?.registration;
