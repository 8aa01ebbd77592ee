import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { ContentFormat } from '../wire/coap/content-formats.ts';
import { decodeContent, encodeContent } from '../wire/lwm2m/content.ts';
import { type Path, parsePath } from '../wire/lwm2m/path.ts';
import { queryOf } from '../wire/lwm2m/registration.ts';
import type { Entry } from '../wire/lwm2m/resource.ts';
import { decodePaths } from '../wire/lwm2m/senml.ts';
import type { StackAnswer, StackIncoming } from './coap-messages.ts';
import type { LwM2mObjects } from './lwm2m-objects.ts';
import { LwM2mRelations } from './lwm2m-relations.ts';

export interface LwM2mReportsParts {
  readonly objects: LwM2mObjects;
  /** Called when a server has written values by a Write-Composite. */
  readonly written: (entries: readonly Entry[]) => void;
  readonly clock: Clock;
}

const conditionNames: ReadonlySet<string> = new Set(['pmin', 'pmax', 'gt', 'lt', 'st']);
const root: Path = [];

/**
 * The information reporting interface of an LwM2M client, and the composite operations (LwM2M core 1.1, sections 6.3.4, 6.3.8, 6.3.9 and
 * 6.4).
 */
export class LwM2mReports {
  readonly #parts: LwM2mReportsParts;
  readonly #relations: LwM2mRelations;

  constructor(parts: LwM2mReportsParts) {
    const { objects, clock } = parts;
    this.#parts = parts;
    this.#relations = new LwM2mRelations({ valuesAt: (path) => readable(objects, [path]), clock });
    objects.onChange = (path) => this.#relations.changed(path);
  }

  /** Number of observations. */
  get observations(): number {
    return this.#relations.size;
  }

  /** Forgets all observations. */
  clear(): void {
    this.#relations.clear();
  }

  /**
   * Answers a request that is for this interface. Undefined for any other one.
   * @throws {PosternError} `malformed`, `unsupportedFormat`, `notFound`, `notAllowed`
   */
  answer(request: StackIncoming): StackAnswer | undefined {
    const { method, url, payload, contentFormat, observer, isCancelled, peer } = request;
    const [pathname = '', query = ''] = url.split('?');
    const path = parsePath(pathname);
    if (isCancelled) this.#relations.end(peer);
    if (method === 'PUT' && payload.length === 0 && query !== '') return this.#setConditions(path, query);
    if (method === 'GET' && observer) return this.#observe(request, [path]);
    if (method === 'FETCH') {
      const paths = decodePaths(contentFormat, payload);
      return observer
        ? this.#observe(request, paths, true)
        : this.#read(paths, ContentFormat.SenmlCbor, true);
    }
    if (method !== 'iPATCH') return undefined;
    const entries = decodeContent(contentFormat, payload, root);
    this.#parts.objects.writeAll(entries);
    this.#parts.written(entries);
    return { code: '2.04' };
  }

  #setConditions(path: Path, query: string): StackAnswer {
    const given = [...queryOf(query.split('&'))];
    const values = given.map(([name, text]) => [name, text === '' ? undefined : Number(text)] as const);
    const isWrong = values.some(([name, value]) => !conditionNames.has(name) || Number.isNaN(value));
    if (isWrong) throw new PosternError('malformed', 'not conditions of notifications');
    // It tells whether the path is there.
    this.#parts.objects.read(path);
    if (!this.#relations.setConditions(path, Object.fromEntries(values)))
      throw new PosternError('full', 'no room for further conditions');
    return { code: '2.04' };
  }

  #observe({ observer, accept }: StackIncoming, paths: readonly Path[], isComposite = false): StackAnswer {
    const read = () => this.#read(paths, accept ?? ContentFormat.SenmlCbor, isComposite);
    const first = read();
    const send = () => {
      try {
        observer!.notify(read());
      } catch (thrown) {
        // The instance may be deleted (RFC 7641 section 4.2).
        observer!.notify({ code: asPosternError(thrown).coapCode });
        this.#relations.end(observer!.key);
      }
    };
    return this.#relations.add({ paths, observer: observer!, send }) ? first : { code: '5.03' };
  }

  /** A composite leaves out what is not there (section 6.3.8). */
  #read(paths: readonly Path[], format: number, isComposite: boolean): StackAnswer {
    const { objects } = this.#parts;
    const [only = root] = paths;
    const entries = isComposite ? readable(objects, paths) : objects.read(only);
    const payload = encodeContent(format, entries, isComposite ? root : only);
    return { code: '2.05', payload, contentFormat: format };
  }
}

/** The values at these paths, as far as they are there and can be read. */
function readable(objects: LwM2mObjects, paths: readonly Path[]): readonly Entry[] {
  return paths.flatMap((path) => {
    try {
      return objects.read(path);
    } catch {
      return [];
    }
  });
}
