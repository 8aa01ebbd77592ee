import { PosternError } from '../../base/errors.ts';
import { parseLinks } from '../coap/link-format.ts';
import { isBelow, type Path, parsePath } from './path.ts';

/** What a client says of itself when it registers (LwM2M core 1.1, section 6.2.1, and its CoAP binding, section 6.4.3). */
export interface RegistrationRequest {
  readonly endpoint: string;
  /** `1.0`, `1.1` or `1.2`. */
  readonly version: string;
  /** Seconds. */
  readonly lifetime: number;
  /** It sleeps, and is reached for a while after it was heard (section 6.5, Queue Mode). */
  readonly queueMode: boolean;
  readonly objects: RegisteredObjects;
}

export interface RegisteredObjects {
  /** Segments before the path of each object. */
  readonly root: readonly string[];
  /** Objects and instances. */
  readonly paths: readonly Path[];
  /** Content formats that the client names. */
  readonly formats: readonly number[];
}

/** Seconds when a client names none, and the least and most that it may name: a year. */
export const lifetimes = { usual: 86_400, least: 1, most: 31_536_000 } as const;
const largestList = 512;
const versions = new Set(['1.0', '1.1', '1.2']);

/** The values of a query, by their names; one without a value is empty. */
export const queryOf = (query: readonly string[]): ReadonlyMap<string, string> =>
  new Map(
    query.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );

/** @throws {PosternError} `malformed`, `unsupportedVersion`, `tooLarge` */
export function readRegistration(query: readonly string[], payload: Uint8Array): RegistrationRequest {
  const given = queryOf(query);
  const endpoint = given.get('ep');
  if (!endpoint) throw new PosternError('malformed', 'say who you are: ?ep=<endpoint name>');
  const version = given.get('lwm2m');
  if (version === undefined) throw new PosternError('malformed', 'say which LwM2M: ?lwm2m=1.1');
  if (!versions.has(version))
    throw new PosternError('unsupportedVersion', `LwM2M ${version} is not known here`);
  return {
    endpoint,
    version,
    lifetime: readLifetime(given.get('lt')) ?? lifetimes.usual,
    // 1.0 says it in the binding; later versions have a parameter of its own.
    queueMode: given.has('Q') || (given.get('b') ?? '').includes('Q'),
    objects: readObjects(payload),
  };
}

/** @throws {PosternError} `malformed` */
export function readLifetime(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (!Number.isInteger(seconds) || seconds < lifetimes.least || seconds > lifetimes.most)
    throw new PosternError('malformed', `a lifetime of ${lifetimes.least} to ${lifetimes.most} seconds`);
  return seconds;
}

/**
 * Reads the objects that a client lists, as links (LwM2M core 1.1, section 6.2.1); links to other things are passed over.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function readObjects(payload: Uint8Array): RegisteredObjects {
  const links = parseLinks(Buffer.from(payload).toString());
  if (links.length > largestList) throw new PosternError('tooLarge', `more than ${largestList} links`);
  const isRoot = ({ rt }: Readonly<Record<string, string | true>>) => rt === 'oma.lwm2m';
  const rootLink = links.find(({ attributes }) => isRoot(attributes));
  const root = (rootLink?.target ?? '').split('/').filter((segment) => segment !== '');
  const { ct } = rootLink?.attributes ?? {};
  const paths = links.flatMap(({ target, attributes }): Path[] => {
    const segments = target.split('/').filter((segment) => segment !== '');
    if (isRoot(attributes) || !root.every((segment, at) => segments[at] === segment)) return [];
    const inside = segments.slice(root.length);
    return inside.length > 0 && inside.length <= 2 && inside.every((id) => /^\d+$/.test(id))
      ? [parsePath(inside.join('/'))]
      : [];
  });
  const formats = typeof ct === 'string' ? ct.split(' ').map(Number).filter(Number.isInteger) : [];
  return { root, paths, formats };
}

/** IDs of the objects, or of the instances of one. */
export function idsBelow({ paths }: RegisteredObjects, base: Path): number[] {
  const ids = paths
    .filter((path) => path.length > base.length && isBelow(path, base))
    .map((path) => path[base.length]!);
  return [...new Set(ids)].toSorted((a, b) => a - b);
}
