import { BoundedMap } from '../../base/bounded-map.ts';
import { errorOfCoap, PosternError } from '../../base/errors.ts';
import type { CallBody, CoapAnswer, CoapCall } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { parseLinks } from '../../wire/coap/link-format.ts';
import { Option, textOptions, uintOption } from '../../wire/coap/options.ts';
import {
  decodeContent,
  encodeContent,
  nameable,
  selfDescribing,
  writable,
} from '../../wire/lwm2m/content.ts';
import { isCommon } from '../../wire/lwm2m/objects.ts';
import { type Path, parsePath, pathText } from '../../wire/lwm2m/path.ts';
import type { Entry, TypeOf } from '../../wire/lwm2m/resource.ts';
import { emptyInstance } from '../../wire/lwm2m/tlv.ts';
import type { Registration } from '../store/registrations.ts';
import type { DeviceLocator } from './device-locator.ts';

/** The fields of a registration that are needed to send requests to a client. */
export type LwM2mClient = Pick<
  Registration,
  'deviceId' | 'address' | 'port' | 'heardOn' | 'version' | 'root' | 'formats' | 'keyed'
>;

/** Sees to it that requests reach the client that they are meant for. */
export interface LwM2mGuard {
  /** Called before each request. Throws a `PosternError` when the client is known to be elsewhere. */
  check(client: LwM2mClient): void;
  /** Called before a request that changes something. Rejects with a `PosternError` when the client cannot be assured. */
  assure(client: LwM2mClient, signal?: AbortSignal): Promise<void>;
}

/** Milliseconds for each exchange, unless the caller says otherwise. */
const usualTimeout = 20_000;
/** Maximum number of clients whose accepted write format is remembered. */
const remembered = 1024;

/** Answers to a request for an unknown content format. The right one is 4.06; some clients send others. */
export const unacceptable: ReadonlySet<number> = new Set([
  Code.NotAcceptable,
  Code.BadOption,
  Code.BadRequest,
  Code.UnsupportedContentFormat,
  Code.InternalServerError,
]);

/**
 * The gateway as LwM2M server: device management operations on a client (LwM2M core 1.1, section 6.3). Every operation
 * throws a `PosternError`: as `DeviceLocator.call` when the exchange fails (`timeout` when the client does not answer),
 * or the code that corresponds to the CoAP code when the client refuses.
 */
export class LwM2mCalls {
  readonly #call: DeviceLocator['call'];
  readonly #guard: LwM2mGuard | undefined;
  readonly #partyOf: (client: LwM2mClient) => string | undefined;
  /** Content format of the last write that each client accepted. */
  readonly #taken = new BoundedMap<string, number>(remembered);

  /**
   * @param guard absent for requests to a client that has just said where it is, and may have forged that
   * @param partyOf the only party that may read and answer the requests to a client, as in `CoapCall`
   */
  constructor(
    call: DeviceLocator['call'],
    guard?: LwM2mGuard,
    partyOf: (client: LwM2mClient) => string | undefined = () => undefined,
  ) {
    this.#call = call;
    this.#guard = guard;
    this.#partyOf = partyOf;
  }

  /**
   * Reads an object, an instance, a resource or a resource instance. Returns one entry per value.
   * @throws {PosternError} as the class says; `malformed` or `unsupportedFormat` for an answer that cannot be decoded
   */
  async read(
    client: LwM2mClient,
    path: Path,
    signal?: AbortSignal,
    timeout?: number,
  ): Promise<readonly Entry[]> {
    for (const accept of [...preferred(client, path), undefined]) {
      const answer = await this.exchange(client, path, {
        method: Code.GET,
        ...(accept !== undefined && { accept }),
        signal,
        timeout,
      });
      if (accept !== undefined && unacceptable.has(answer.code)) continue;
      const { options, payload } = checked(answer, client, path);
      return decodeContent(uintOption(options, Option.ContentFormat), payload, path, true);
    }
    return [];
  }

  /**
   * Discover. Returns the IDs directly below an object or an instance, in ascending order. Resources that can only be
   * executed are among them.
   * @throws {PosternError} as the class says; `malformed` for an answer that cannot be decoded
   */
  async discover(client: LwM2mClient, path: Path, signal?: AbortSignal): Promise<readonly number[]> {
    const { payload } = checked(
      await this.exchange(client, path, {
        method: Code.GET,
        accept: ContentFormat.LinkFormat,
        signal,
      }),
      client,
      path,
    );
    const prefix = [...client.root, ...path].map((segment) => `/${segment}`).join('');
    const ids = parseLinks(Buffer.from(payload).toString()).flatMap(({ target }) => {
      if (!target.startsWith(`${prefix}/`)) return [];
      return parsePath(target.slice(prefix.length)).slice(0, 1);
    });
    return [...new Set(ids)].toSorted((a, b) => a - b);
  }

  /**
   * Writes `entries` at `path`: replaces what is there, or with `merge` updates only the given resources. If the client
   * refuses a content format with 4.15, the next one is tried. SenML is tried first for resources without a description:
   * its numbers are whole or not as the client needs them, and those of TLV are not.
   * @param party as in `CoapCall`
   * @throws {PosternError} as the class says
   */
  async write(
    client: LwM2mClient,
    path: Path,
    entries: readonly Entry[],
    {
      types,
      merge = false,
      signal,
      party,
    }: {
      types?: TypeOf;
      merge?: boolean;
      signal?: AbortSignal | undefined;
      party?: string | undefined;
    } = {},
  ): Promise<void> {
    const isOctets = entries[0]?.value instanceof Uint8Array;
    const plain = isOctets ? ContentFormat.OctetStream : ContentFormat.TextPlain;
    const more = merge || entries.length > 1 ? [] : [plain, ContentFormat.Cbor];
    await this.#send(client, path, this.#formats(client, entries, more), (contentFormat) => ({
      method: merge ? Code.POST : Code.PUT,
      contentFormat,
      payload: encodeContent(contentFormat, entries, path, types),
      signal,
      party,
    }));
  }

  /**
   * Creates an object instance with these resources, in one request. The client chooses the values of all others. Content formats
   * are tried as by `write`.
   * @param instance ID of the instance; without it the client chooses one, and the resources are in TLV, which alone can leave it out
   * @param entries resources, with paths as if an absent ID were 0
   * @param types as for `write`
   * @returns the ID that the client says in its Location-Path, else `instance`
   * @throws {PosternError} as the class says
   */
  async create(
    client: LwM2mClient,
    object: number,
    instance: number | undefined,
    entries: readonly Entry[],
    { types, signal }: { types?: TypeOf; signal?: AbortSignal | undefined } = {},
  ): Promise<number | undefined> {
    const payloadIn = (format: number) => {
      if (instance === undefined) return encodeContent(format, entries, [object, 0], types);
      return entries.length === 0 ? emptyInstance(instance) : encodeContent(format, entries, [object], types);
    };
    const isTlv = instance === undefined || entries.length === 0;
    const formats = isTlv ? [ContentFormat.LwM2mTlv] : this.#formats(client, entries);
    const { options } = await this.#send(client, [object], formats, (contentFormat) => ({
      method: Code.POST,
      contentFormat,
      payload: payloadIn(contentFormat),
      signal,
    }));
    const [said, id] = textOptions(options, Option.LocationPath).slice(client.root.length);
    const isSaid = said === String(object) && /^\d{1,5}$/.test(id ?? '') && Number(id) < 0xffff;
    return isSaid ? Number(id) : instance;
  }

  /** Content formats for resources, in the order in which they are tried; `more` come last. */
  #formats(client: LwM2mClient, entries: readonly Entry[], more: readonly number[] = []): readonly number[] {
    const last = this.#taken.get(client.deviceId);
    return [
      ...(isDescribed(client, entries) ? [] : selfDescribing.toSorted((a) => (a === last ? -1 : 0))),
      ...(last === undefined ? [] : [last]),
      ...client.formats.filter(isWritable),
      ...writable.filter(isWritable),
      ...more,
    ];
  }

  /** Sends a request in one content format after the other, until the client takes one. */
  async #send(
    client: LwM2mClient,
    path: Path,
    formats: readonly number[],
    requestIn: (format: number) => Lwm2mRequest,
  ): Promise<CoapAnswer> {
    let refused: unknown;
    for (const [at, format] of [...new Set(formats)].entries()) {
      const request = requestIn(format);
      if (at === 0) await this.#guard?.assure(client, request.signal);
      const answer = await this.exchange(client, path, request);
      try {
        checked(answer, client, path);
        if (isWritable(format)) this.#taken.set(client.deviceId, format);
        return answer;
      } catch (thrown) {
        refused = thrown;
        // Some clients say by another code than 4.15 that they do not know SenML.
        const isSenml = selfDescribing.includes(format) && unacceptable.has(answer.code);
        if (!isSenml && answer.code !== Code.UnsupportedContentFormat) break;
      }
    }
    throw refused;
  }

  /** @param argument arguments as in LwM2M core 1.1, section 6.3.6, such as `0='text'`; may be empty */
  async execute(
    client: LwM2mClient,
    path: Path,
    argument: string,
    signal?: AbortSignal,
    timeout?: number,
  ): Promise<void> {
    await this.#do(client, path, {
      method: Code.POST,
      timeout,
      ...(argument !== '' && {
        contentFormat: ContentFormat.TextPlain,
        payload: Buffer.from(argument),
      }),
      signal,
    });
  }

  /** Writes an opaque resource block by block, as octets of no further format. */
  async push(client: LwM2mClient, path: Path, payload: CallBody, signal: AbortSignal): Promise<void> {
    const contentFormat = ContentFormat.OctetStream;
    await this.#do(client, path, { method: Code.PUT, contentFormat, payload, signal });
  }

  /** Deletes an object instance or a resource instance. */
  async remove(client: LwM2mClient, path: Path, signal?: AbortSignal): Promise<void> {
    await this.#do(client, path, { method: Code.DELETE, signal });
  }

  async #do(client: LwM2mClient, path: Path, request: Lwm2mRequest): Promise<void> {
    await this.assure(client, request.signal);
    checked(await this.exchange(client, path, request), client, path);
  }

  /** Makes sure that requests reach this client, and no other. @throws {PosternError} as `LwM2mGuard.assure` */
  async assure(client: LwM2mClient, signal?: AbortSignal): Promise<void> {
    await this.#guard?.assure(client, signal);
  }

  /** Sends a request to a path of a client, and resolves with its answer, whatever the code. */
  async exchange(client: LwM2mClient, path: Path, request: Lwm2mRequest): Promise<CoapAnswer> {
    this.#guard?.check(client);
    const { address, port, heardOn, root } = client;
    const { timeout = usualTimeout, party = this.#partyOf(client), ...rest } = request;
    const isOwed = this.#guard === undefined;
    const call = { ...rest, path: [...root, ...path.map(String)], timeout, isOwed, party };
    return await this.#call(address, port, call, heardOn);
  }
}

/** A request to a client, without what the calls add. */
export type Lwm2mRequest = Omit<CoapCall, 'path' | 'timeout'> & { readonly timeout?: number | undefined };

const isWritable = (format: number): boolean =>
  format !== ContentFormat.TextPlain && nameable.includes(format);

/** Whether the numbers of TLV are those that a client needs for these resources. */
const isDescribed = ({ version }: LwM2mClient, entries: readonly Entry[]): boolean =>
  version === '1.0' || entries.every(({ path }) => isCommon(path));

/** Content formats to request, in order. Empty when whatever the client chooses can be decoded. */
export function preferred({ version, formats }: LwM2mClient, path: Path): readonly number[] {
  if (!isCommon(path)) return selfDescribing;
  // A client of LwM2M 1.2 might choose a format that only 1.2 has.
  const named = formats.filter((format) => nameable.includes(format));
  return version === '1.2' ? [...named, ...selfDescribing] : [];
}

/**
 * Returns the answer when it is a success.
 * @throws {PosternError} the error that corresponds to the CoAP code of the answer
 */
export function checked(answer: CoapAnswer, { deviceId }: LwM2mClient, path: Path): CoapAnswer {
  const { code, payload } = answer;
  if (isSuccess(code)) return answer;
  const why = Buffer.from(payload).toString().slice(0, 128);
  throw new PosternError(
    errorOfCoap(codeText(code)),
    `${deviceId} answered ${codeText(code)} for ${pathText(path)}${why === '' ? '' : `: ${why}`}`,
  );
}
