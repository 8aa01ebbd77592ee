import { PosternError } from '../../base/errors.ts';
import { ownText } from '../../base/own-bytes.ts';
import { parseLinks } from '../coap/link-format.ts';
import { deviceIdRule, isDeviceId } from '../resources.ts';
import { isBelow, isId, type Path } from './path.ts';

/** The parameters of a registration (LwM2M core 1.1, section 6.2.1, and its CoAP binding, section 6.4.3). */
export interface RegistrationRequest {
  /** Endpoint client name. */
  readonly endpoint: string;
  /** `1.0`, `1.1` or `1.2`. */
  readonly version: string;
  /** Seconds. 0: the registration has no end. */
  readonly lifetime: number;
  /** Transports of the client, such as `U`; its first 8 characters. */
  readonly binding: string;
  /** The client sleeps. It can be reached only for a while after it was heard (section 6.5, Queue Mode). */
  readonly queueMode: boolean;
  readonly objects: RegisteredObjects;
}

/** The list of objects in a registration. */
export interface RegisteredObjects {
  /** Uri-Path segments that precede the path of each object. Empty unless the client has an alternate root path. */
  readonly root: readonly string[];
  /** Paths of objects and object instances. */
  readonly paths: readonly Path[];
  /** Content-Format numbers that the client says it supports. */
  readonly formats: readonly number[];
}

/** Lifetime in seconds without the parameter `lt`, and the longest one. 0 means for ever. */
const lifetimes = { usual: 86_400, most: 0xffffffff } as const;
/** Characters of the parameter `b` that are kept. */
export const bindingLength = 8;
/** Most bytes of the links in one registration: some 1,500 object instances. */
const largestList = 16 * 1024;

/** The parts of a query as a map from name to value. The value of a part without `=` is empty. */
export const queryOf = (query: readonly string[]): ReadonlyMap<string, string> =>
  new Map(
    query.map((part) => {
      const at = part.indexOf('=');
      return at < 0 ? [part, ''] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );

/**
 * Reads a registration from its Uri-Query parts and its payload.
 * @throws {PosternError} `malformed`, `unsupportedVersion`, `tooLarge`
 */
export function readRegistration(query: readonly string[], payload: Uint8Array): RegistrationRequest {
  const given = queryOf(query);
  const endpoint = given.get('ep');
  if (!isDeviceId(endpoint)) throw new PosternError('malformed', `?ep=<endpoint name>: ${deviceIdRule}`);
  return {
    endpoint,
    version: readVersion(given.get('lwm2m')),
    lifetime: readLifetime(given.get('lt')) ?? lifetimes.usual,
    binding: (given.get('b') ?? 'U').slice(0, bindingLength),
    // LwM2M 1.0 announces Queue Mode in the binding, later versions by the parameter Q.
    queueMode: given.has('Q') || (given.get('b') ?? '').includes('Q'),
    objects: readObjects(payload),
  };
}

/**
 * Reads the parameter `lwm2m`. Clients older than the final LwM2M 1.0 leave it out. Some write it in quotes, as the examples of 1.0
 * do, or with the number of a patch, which means nothing here.
 * @throws {PosternError} `unsupportedVersion`
 */
function readVersion(text = '1.0'): string {
  const [, version] = /^"?(1\.[012])(?:\.\d{1,3})?"?$/.exec(text) ?? [];
  if (version === undefined)
    throw new PosternError('unsupportedVersion', `LwM2M ${text.slice(0, 32)} is not supported`);
  return version;
}

/**
 * Reads the parameter `lt`, in seconds. Returns `undefined` when it is absent.
 * @throws {PosternError} `malformed` when it is not a whole number of 32 bits
 */
export function readLifetime(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const seconds = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds <= lifetimes.most))
    throw new PosternError('malformed', `the lifetime must be 0 to ${lifetimes.most} seconds`);
  return seconds;
}

/**
 * Reads the object list of a registration, which is in CoRE link format (LwM2M core 1.1, section 6.2.1). Links to
 * anything but objects and object instances are ignored.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function readObjects(payload: Uint8Array): RegisteredObjects {
  if (payload.length > largestList)
    throw new PosternError('tooLarge', `more than ${largestList} bytes of links`);
  const links = parseLinks(Buffer.from(payload).toString());
  const isRoot = ({ rt }: Readonly<Record<string, string | true>>) =>
    String(rt).split(' ').includes('oma.lwm2m');
  const rootLink = links.find(({ attributes }) => isRoot(attributes));
  const root = ownText(rootLink?.target ?? '')
    .split('/')
    .filter((segment) => segment !== '');
  const { ct } = rootLink?.attributes ?? {};
  const paths = links.flatMap(({ target, attributes }): Path[] => {
    const segments = target.split('/').filter((segment) => segment !== '');
    if (isRoot(attributes) || !root.every((segment, at) => segments[at] === segment)) return [];
    const inside = segments.slice(root.length);
    return inside.length > 0 && inside.length <= 2 && inside.every(isId) ? [inside.map(Number)] : [];
  });
  const formats = typeof ct === 'string' ? ct.split(' ').map(Number).filter(Number.isInteger) : [];
  return { root, paths, formats };
}

/**
 * IDs one level below `base`, ascending and without duplicates: the object IDs for an empty path, the instance IDs for
 * the path of an object.
 */
export function idsBelow({ paths }: RegisteredObjects, base: Path): number[] {
  const ids = paths
    .filter((path) => path.length > base.length && isBelow(path, base))
    .map((path) => path[base.length]!);
  return [...new Set(ids)].toSorted((a, b) => a - b);
}
