import { BoundedMap } from '../../base/bounded-map.ts';
import { errorOfCoap, PosternError } from '../../base/errors.ts';
import type { CoapAnswer, CoapCall } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { parseLinks } from '../../wire/coap/link-format.ts';
import { Option, uintOption } from '../../wire/coap/options.ts';
import { decodeContent, encodeContent, selfDescribing, writable } from '../../wire/lwm2m/content.ts';
import { describeResource, objects } from '../../wire/lwm2m/objects.ts';
import { type Path, parsePath, pathText } from '../../wire/lwm2m/path.ts';
import type { Entry, TypeOf } from '../../wire/lwm2m/resource.ts';
import { emptyInstance } from '../../wire/lwm2m/tlv.ts';
import type { Registration } from '../store/registrations.ts';
import type { DeviceLocator } from './device-locator.ts';

/** What is needed of a client to speak to it. */
export type LwM2mClient = Pick<
  Registration,
  'deviceId' | 'address' | 'port' | 'version' | 'root' | 'formats'
>;

/** Milliseconds for each exchange. */
const timeout = 20_000;
/** Clients of which it is remembered what they take. */
const remembered = 1024;

/** What clients answer that do not know a format which they are asked for: 4.06, and what others have in its place. */
const unacceptable: ReadonlySet<number> = new Set([
  Code.NotAcceptable,
  Code.BadOption,
  Code.BadRequest,
  Code.UnsupportedContentFormat,
  Code.InternalServerError,
]);

/**
 * The gateway as LwM2M server: operations of device management on a client (LwM2M core 1.1, section 6.3). Each throws
 * `timeout` when the client does not answer, and what its answer stands for when it refuses.
 */
export class LwM2mCalls {
  readonly #call: DeviceLocator['call'];
  /** The format in which a client took the last write. */
  readonly #taken = new BoundedMap<string, number>(remembered);

  constructor(call: DeviceLocator['call']) {
    this.#call = call;
  }

  /** @throws {PosternError} */
  async read(client: LwM2mClient, path: Path, signal?: AbortSignal): Promise<readonly Entry[]> {
    for (const accept of [...preferred(client, path), undefined]) {
      const answer = await this.#exchange(client, path, {
        method: Code.GET,
        ...(accept !== undefined && { accept }),
        signal,
      });
      if (accept !== undefined && unacceptable.has(answer.code)) continue;
      const { options, payload } = checked(answer, client, path);
      return decodeContent(uintOption(options, Option.ContentFormat), payload, path);
    }
    return [];
  }

  /**
   * IDs of what is directly below an object or an instance, what can only be executed as well (Discover).
   * @throws {PosternError}
   */
  async discover(client: LwM2mClient, path: Path, signal?: AbortSignal): Promise<readonly number[]> {
    const { payload } = checked(
      await this.#exchange(client, path, {
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
   * Writes one resource, or with `merge` what is given of an instance, its other resources untouched.
   * @throws {PosternError}
   */
  async write(
    client: LwM2mClient,
    path: Path,
    entries: readonly Entry[],
    {
      types,
      merge = false,
      signal,
    }: { types?: TypeOf; merge?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const last = this.#taken.get(client.deviceId);
    const isOctets = entries[0]?.value instanceof Uint8Array;
    const plain = isOctets ? ContentFormat.OctetStream : ContentFormat.TextPlain;
    const isWritable = (format: number) => format !== plain && writable.includes(format);
    const formats = [
      ...(last === undefined ? [] : [last]),
      ...client.formats.filter(isWritable),
      ...writable.filter(isWritable),
      ...(merge || entries.length > 1 ? [] : [plain]),
    ];
    let refused: unknown;
    for (const format of new Set(formats)) {
      const answer = await this.#exchange(client, path, {
        method: merge ? Code.POST : Code.PUT,
        contentFormat: format,
        payload: encodeContent(format, entries, path, types),
        signal,
      });
      try {
        checked(answer, client, path);
        if (format !== plain) this.#taken.set(client.deviceId, format);
        return;
      } catch (thrown) {
        refused = thrown;
        if (answer.code !== Code.UnsupportedContentFormat) break;
      }
    }
    throw refused;
  }

  /** Makes an instance, whose resources have the values that the client gives them. */
  async create(client: LwM2mClient, object: number, instance: number, signal?: AbortSignal): Promise<void> {
    await this.#do(client, [object], {
      method: Code.POST,
      contentFormat: ContentFormat.LwM2mTlv,
      payload: emptyInstance(instance),
      signal,
    });
  }

  /** @param argument as LwM2M core 1.1, section 6.3.6 has it, such as `0='text'` */
  async execute(client: LwM2mClient, path: Path, argument: string, signal?: AbortSignal): Promise<void> {
    await this.#do(client, path, {
      method: Code.POST,
      ...(argument !== '' && {
        contentFormat: ContentFormat.TextPlain,
        payload: Buffer.from(argument),
      }),
      signal,
    });
  }

  async remove(client: LwM2mClient, path: Path, signal?: AbortSignal): Promise<void> {
    await this.#do(client, path, { method: Code.DELETE, signal });
  }

  async #do(client: LwM2mClient, path: Path, request: Omit<CoapCall, 'path' | 'timeout'>): Promise<void> {
    checked(await this.#exchange(client, path, request), client, path);
  }

  async #exchange(
    { address, port, root }: LwM2mClient,
    path: Path,
    request: Omit<CoapCall, 'path' | 'timeout'>,
  ): Promise<CoapAnswer> {
    return await this.#call(address, port, { ...request, path: [...root, ...path.map(String)], timeout });
  }
}

/** Forms to ask for: none where the client's own choice can be read. */
function preferred({ version, formats }: LwM2mClient, path: Path): readonly number[] {
  const [object = -1] = path;
  const isKnown = path.length > 2 ? describeResource(path) !== undefined : objects[object] !== undefined;
  if (!isKnown) return selfDescribing;
  // A client of 1.2 may choose a form of its own version's.
  const named = formats.filter((format) => writable.includes(format));
  return version === '1.2' ? [...named, ...selfDescribing] : [];
}

/** @throws {PosternError} */
function checked(answer: CoapAnswer, { deviceId }: LwM2mClient, path: Path): CoapAnswer {
  const { code, payload } = answer;
  if (isSuccess(code)) return answer;
  const why = Buffer.from(payload).toString().slice(0, 128);
  throw new PosternError(
    errorOfCoap(codeText(code)),
    `${deviceId} answered ${codeText(code)} for ${pathText(path)}${why === '' ? '' : `: ${why}`}`,
  );
}
