import type { Monotonic } from '../../base/clock.ts';
import { errorOfCoap, PosternError } from '../../base/errors.ts';
import { fitsXml } from '../../base/presentable.ts';
import { DmError } from '../../dm/dm-error.ts';
import type { NodeOperation, OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus } from '../../dm/status.ts';
import { escapeName, nodeUri, parseNodeUri, unescapeName, uriLimits } from '../../dm/uri.ts';
import type { CoapAnswer, CoapCall } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { parseLinks } from '../../wire/coap/link-format.ts';
import { Option, uintOption } from '../../wire/coap/options.ts';
import { interior, type Result, textIn } from './adapted-values.ts';
import { type Adapter, performOn, type SingleOperation } from './adapter.ts';

export interface CoapAdapterParts {
  /** Whether a device is attached here as a plain CoAP device. */
  readonly isAttached: (deviceId: string) => boolean;
  readonly lastHeard: (deviceId: string) => Monotonic;
  /** Called when a device has answered. */
  readonly answered: (deviceId: string) => void;
  /** Sends a request to a device. Rejects as `call` (wire/coap/blockwise-client.ts). */
  readonly call: (deviceId: string, request: CoapCall) => Promise<CoapAnswer>;
}

/** Milliseconds for each exchange. */
const timeout = 20_000;
/** Most resources of a device that are shown. */
const mostResources = 256;
/** Content-Format numbers whose content is text, with their media types. All other content is octets. */
const textTypes: ReadonlyMap<number | undefined, string> = new Map([
  [ContentFormat.TextPlain, 'text/plain'],
  [ContentFormat.LinkFormat, 'application/link-format'],
  [41, 'application/xml'],
  [50, 'application/json'],
  [ContentFormat.SenmlJson, 'application/senml+json'],
]);

/**
 * Devices that speak nothing but CoAP (RFC 7252), as a management tree. `./Coap` has a leaf for each resource that
 * `/.well-known/core` (RFC 6690) lists; its name is the path of the resource, escaped: `./Coap/sensors%2Ftemp`. Get is GET, Replace
 * is PUT, Exec is POST. The gateway keeps nothing of the resources.
 */
export class CoapAdapter implements Adapter {
  readonly #parts: CoapAdapterParts;

  constructor(parts: CoapAdapterParts) {
    this.#parts = parts;
  }

  readonly sleeps: Adapter['sleeps'] = (deviceId) => (this.#parts.isAttached(deviceId) ? false : undefined);

  readonly lastHeard: Adapter['lastHeard'] = (deviceId) => this.#parts.lastHeard(deviceId);

  readonly isThere: Adapter['isThere'] = async (deviceId, since, signal) => {
    if (this.#parts.lastHeard(deviceId) >= since) return true;
    return await this.resources(deviceId, signal).then(
      () => true,
      () => false,
    );
  };

  readonly perform: Adapter['perform'] = (deviceId, operation, patience) =>
    performOn(operation, patience, (each) => this.#command(deviceId, each, patience.signal));

  /**
   * Paths of the resources of a device, without the slash in front.
   * @throws {PosternError} `malformed`, `timeout`, or as the device's answer
   */
  async resources(deviceId: string, signal?: AbortSignal): Promise<readonly string[]> {
    const { payload } = await this.#ask(deviceId, Code.GET, ['.well-known', 'core'], {}, signal);
    const names = parseLinks(Buffer.from(payload).toString()).flatMap(({ target }) => {
      const path = /^\/(?!\/)(.+)$/.exec(target)?.[1] ?? '';
      const fits = Buffer.byteLength(escapeName(path)) <= uriLimits.segmentBytes && fitsXml(path);
      return path !== '' && fits ? [path] : [];
    });
    return [...new Set(names)].slice(0, mostResources);
  }

  async #command(
    deviceId: string,
    operation: SingleOperation,
    signal: AbortSignal,
  ): Promise<Partial<OperationOutcome>> {
    if (operation.name === 'Alert')
      throw new DmError(DmStatus.OptionalFeatureNotSupported, 'a CoAP device has no user to ask');
    const { name, uri } = operation;
    const { path, query } = parseNodeUri(uri);
    if (name === 'Get') return { results: await this.#get(deviceId, path, query, signal) };
    const [root, resource, ...more] = path;
    if (root !== 'Coap' || resource === undefined || more.length > 0 || query !== undefined || !methods[name])
      throw new DmError(DmStatus.CommandNotAllowed, `no ${name} at ${uri}`);
    await this.#ask(deviceId, methods[name], segmentsOf(resource), bodyOf(operation), signal);
    return {};
  }

  async #get(
    deviceId: string,
    path: readonly string[],
    query: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly Result[]> {
    if (query !== undefined && query !== 'list=Struct' && query !== 'list=StructData')
      throw new DmError(DmStatus.OptionalFeatureNotSupported, `no ${query}`);
    const node = await this.#node(deviceId, path, signal);
    if (query === undefined || node.format !== 'node') return [bare(node, query)];
    const found = [node];
    for (const child of String(node.data).split('/').filter(Boolean)) {
      const at = [...path, child];
      // A resource that cannot be read, such as an actuator, does not hide the others.
      const below = await this.#get(deviceId, at, query, signal).catch((thrown) => {
        if (thrown instanceof PosternError && thrown.code !== 'timeout') return [];
        throw thrown;
      });
      found.push(...below);
    }
    return found;
  }

  async #node(deviceId: string, path: readonly string[], signal: AbortSignal): Promise<Result> {
    const [root, name, ...more] = path;
    const uri = nodeUri(path);
    if (root === undefined) return interior(uri, ['DevInfo', 'Coap']);
    if (root === 'DevInfo' && name === undefined) return interior(uri, ['DevId']);
    if (root === 'DevInfo' && name === 'DevId' && more.length === 0)
      return { uri, format: 'chr', data: deviceId };
    if (root !== 'Coap' || more.length > 0) throw new DmError(DmStatus.NotFound, `${uri} is not there`);
    if (name === undefined) return interior(uri, (await this.resources(deviceId, signal)).map(escapeName));
    const { options, payload } = await this.#ask(deviceId, Code.GET, segmentsOf(name), {}, signal);
    // Many devices name no format. Their text is told from octets by what it is.
    const type = textTypes.get(uintOption(options, Option.ContentFormat) ?? ContentFormat.TextPlain);
    const text = Buffer.from(payload).toString();
    const isText = type !== undefined && fitsXml(text) && Buffer.from(text).equals(payload);
    return isText ? { uri, format: 'chr', type, data: text } : { uri, format: 'bin', data: payload };
  }

  async #ask(
    deviceId: string,
    method: number,
    path: readonly string[],
    body: Pick<CoapCall, 'contentFormat' | 'payload'>,
    signal: AbortSignal | undefined,
  ): Promise<CoapAnswer> {
    const answer = await this.#parts.call(deviceId, { method, path, timeout, ...body, signal });
    this.#parts.answered(deviceId);
    if (isSuccess(answer.code)) return answer;
    const code = codeText(answer.code);
    throw new PosternError(errorOfCoap(code), `${deviceId} answered ${code} for /${path.join('/')}`);
  }
}

const methods: Readonly<Record<string, number>> = { Replace: Code.PUT, Exec: Code.POST };

/** Segments of the path of a resource, by the name of its node. */
const segmentsOf = (name: string): string[] => unescapeName(name).split('/').map(unescapeName);

const bare = (node: Result, query: string | undefined): Result =>
  query === 'list=Struct' ? { uri: node.uri, format: node.format, data: '' } : node;

/** What is sent: octets, or text, in the format that the Type of the command names. */
function bodyOf({ data, type }: NodeOperation): Pick<CoapCall, 'contentFormat' | 'payload'> {
  if (data === undefined) return {};
  if (data instanceof Uint8Array) return { contentFormat: ContentFormat.OctetStream, payload: data };
  const [named = ContentFormat.TextPlain] = [...textTypes].find(([, known]) => known === type) ?? [];
  return { contentFormat: named, payload: Buffer.from(textIn(data)) };
}
