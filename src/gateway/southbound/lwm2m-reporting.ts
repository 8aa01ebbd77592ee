import { BoundedMap } from '../../base/bounded-map.ts';
import { asPosternError } from '../../base/errors.ts';
import type { CoapAnswer } from '../../wire/coap/blockwise-client.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import type { Observation } from '../../wire/coap/observation.ts';
import { Option, uint, uintOption } from '../../wire/coap/options.ts';
import { decodeContent, encodeContent, selfDescribing } from '../../wire/lwm2m/content.ts';
import type { Path } from '../../wire/lwm2m/path.ts';
import type { Entry, TypeOf } from '../../wire/lwm2m/resource.ts';
import { encodePaths } from '../../wire/lwm2m/senml.ts';
import type { Registration } from '../store/registrations.ts';
import { checked, type LwM2mCalls, type LwM2mClient, preferred, unacceptable } from './lwm2m-calls.ts';
import type { ObservationAttributes } from './observer.ts';

/** Answers of a client that knows no composite operation, or not this one. */
const noComposite: ReadonlySet<number> = new Set([
  Code.MethodNotAllowed,
  Code.NotImplemented,
  Code.RequestEntityTooLarge,
  ...unacceptable,
]);

const names = ['pmin', 'pmax', 'gt', 'lt', 'st'] as const;
const root: Path = [];
/** Bytes of a list of paths: one block. A longer one could not be repeated with each block of the answer. */
const mostPaths = 1024;

/** Maximum number of clients of which it is remembered that they know no Read-Composite. */
const remembered = 1024;

/**
 * The information reporting interface towards clients, and the composite operations (LwM2M core 1.1, sections 6.3.8, 6.3.9 and 6.4).
 * Operations throw as those of `LwM2mCalls`.
 */
export class LwM2mReporting {
  readonly #calls: LwM2mCalls;
  /** Clients that know no Read-Composite, with the registration in which they have shown it. */
  readonly #unable = new BoundedMap<string, string>(remembered);

  constructor(calls: LwM2mCalls) {
    this.#calls = calls;
  }

  /** As `LwM2mGuard.assure`. None of the other operations does it. */
  async assure(client: LwM2mClient, signal: AbortSignal): Promise<void> {
    await this.#calls.assure(client, signal);
  }

  /**
   * Write-Attributes (section 6.3.4): sets the conditions of notifications at a path.
   * @param before those that were set there before: what is not wished any more is taken away
   */
  async writeAttributes(
    client: LwM2mClient,
    path: Path,
    attributes: ObservationAttributes,
    before: ObservationAttributes,
    signal: AbortSignal,
  ): Promise<void> {
    const query = names.flatMap((name) => {
      const value = attributes[name];
      if (value !== undefined) return [`${name}=${value}`];
      return before[name] === undefined ? [] : [name];
    });
    if (query.length === 0) return;
    checked(await this.#calls.exchange(client, path, { method: Code.PUT, query, signal }), client, path);
  }

  /** Observe (section 6.4.1). The values go to the observation. The client may answer without observing. */
  async observe(
    client: LwM2mClient,
    path: Path,
    observation: Observation,
    signal: AbortSignal,
  ): Promise<CoapAnswer> {
    const [accept] = preferred(client, path);
    const request = { method: Code.GET, observation, signal };
    const answer = await this.#calls.exchange(client, path, {
      ...request,
      ...(accept !== undefined && { accept }),
    });
    const isRefused = accept !== undefined && unacceptable.has(answer.code);
    return checked(isRefused ? await this.#calls.exchange(client, path, request) : answer, client, path);
  }

  /** Observe-Composite (section 6.4.4). Undefined when the client does not know it, or cannot take so many paths. */
  async observeComposite(
    client: LwM2mClient,
    paths: readonly Path[],
    observation: Observation,
    signal: AbortSignal,
  ): Promise<CoapAnswer | undefined> {
    return await this.#fetch(client, paths, { observation, signal });
  }

  /** Cancel Observation or Cancel Observation-Composite (sections 6.4.3 and 6.4.5): the same request with Observe 1. */
  async cancel(
    client: LwM2mClient,
    paths: readonly Path[],
    { token }: Observation,
    isComposite: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const more = { options: [uint(Option.Observe, 1)], token, signal };
    if (isComposite) await this.#fetch(client, paths, more);
    else await this.#calls.exchange(client, paths[0] ?? root, { method: Code.GET, ...more });
  }

  /** Whether a client may know Read-Composite. */
  mayReadComposite({ version, deviceId, location }: Registration): boolean {
    return version !== '1.0' && this.#unable.get(deviceId) !== location;
  }

  /**
   * Read-Composite (section 6.3.8). A client leaves out what is not there, and may leave out or add whatever it likes. Undefined when
   * it does not know the operation, cannot take so many paths, or answers in another form: the paths may be read one by one then. It
   * is not asked again in this registration, except after 4.04: some clients say that when one path is missing.
   * @throws {PosternError} `timeout`, also for a client that leaves the operation without an answer because it does not know it
   */
  async readComposite(
    client: Registration,
    paths: readonly Path[],
    signal: AbortSignal,
  ): Promise<readonly Entry[] | undefined> {
    try {
      const answer = await this.#fetch(client, paths, { signal });
      const format = answer && uintOption(answer.options, Option.ContentFormat);
      if (answer && selfDescribing.includes(format ?? -1)) return decodeContent(format, answer.payload, root);
    } catch (thrown) {
      signal.throwIfAborted();
      const { code } = asPosternError(thrown);
      if (code === 'notFound') return undefined;
      if (code === 'timeout') {
        this.#unable.set(client.deviceId, client.location);
        throw thrown;
      }
    }
    this.#unable.set(client.deviceId, client.location);
    return undefined;
  }

  /**
   * Write-Composite (section 6.3.9), not for a client of LwM2M 1.0: it writes all values or none. Returns false when it does not know it; nothing is written
   * then.
   */
  async writeComposite(
    client: LwM2mClient,
    entries: readonly Entry[],
    types: TypeOf,
    signal: AbortSignal,
  ): Promise<boolean> {
    const answer = await this.#calls.exchange(client, root, {
      method: Code.iPATCH,
      contentFormat: ContentFormat.SenmlCbor,
      payload: encodeContent(ContentFormat.SenmlCbor, entries, root, types),
      signal,
    });
    // A client that takes the form of the request says of its values alone that they are bad.
    if (noComposite.has(answer.code) && answer.code !== Code.BadRequest) return false;
    // Another success is the answer of a client that has taken the request for another one.
    return checked(answer, client, root).code === Code.Changed;
  }

  async #fetch(
    client: LwM2mClient,
    paths: readonly Path[],
    more: Partial<Parameters<LwM2mCalls['exchange']>[2]>,
  ): Promise<CoapAnswer | undefined> {
    const payload = encodePaths(paths);
    if (client.version === '1.0' || payload.length > mostPaths) return undefined;
    const answer = await this.#calls.exchange(client, root, {
      method: Code.FETCH,
      contentFormat: ContentFormat.SenmlCbor,
      accept: ContentFormat.SenmlCbor,
      payload,
      ...more,
    });
    return noComposite.has(answer.code) ? undefined : checked(answer, client, root);
  }
}
