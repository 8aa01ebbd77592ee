import { PosternError } from '../base/errors.ts';
import type { Link } from '../wire/coap/link-format.ts';
import { describeResource, FirmwareResource, ObjectId } from '../wire/lwm2m/objects.ts';
import { isBelow, type Path, pathText } from '../wire/lwm2m/path.ts';
import type { Entry, Value } from '../wire/lwm2m/resource.ts';

/** Called when a server executes a resource. `argument` is the text that the server sent with it. */
export type Execute = (argument: string) => void;

const key = (path: Path): string => path.join('/');
const notThere = (path: Path) => new PosternError('notFound', `${pathText(path)} does not exist`);
const notAllowed = (path: Path) => new PosternError('notAllowed', `not allowed for ${pathText(path)}`);
/** Objects that no LwM2M server may see. */
const hidden: ReadonlySet<number> = new Set([ObjectId.Security, ObjectId.Oscore]);
/** Resources of this device's objects that a server may not write, by object ID (LwM2M core 1.1, appendix E; IPSO). */
const readOnly: Readonly<Record<number, readonly number[]>> = {
  1: [0],
  3: [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22],
  5: [3, 5, 6, 7, 8, 9],
  3303: [5601, 5602, 5603, 5604, 5700, 5701],
};
const isReadOnly = (path: Path): boolean =>
  describeResource(path)?.type === 'none' || (readOnly[path[0] ?? -1]?.includes(path[2] ?? -1) ?? false);
/** The only resource of this device that a server may not read: Package of the object Firmware Update. */
const isWriteOnly = ([object, , resource]: Path): boolean =>
  object === ObjectId.Firmware && resource === FirmwareResource.Package;
/** Most resource values, so that a server cannot fill the memory of the device. */
const bound = 1024;

/**
 * The objects of an LwM2M client: values by path, with the rules of LwM2M core 1.1, section 6.3, for the operations of a
 * server.
 */
export class LwM2mObjects {
  readonly #values = new Map<string, Entry>();
  readonly #executables = new Map<string, { path: Path; execute: Execute }>();
  readonly #instances = new Map<string, Path>();
  readonly #open: ReadonlySet<number>;
  /** Called when the value of a resource has changed. */
  onChange: (path: Path) => void = () => {};

  /** @param open IDs of the objects of which a server may create and delete instances */
  constructor(open: readonly number[]) {
    this.#open = new Set(open);
  }

  /**
   * Sets values of an object instance, by resource ID, and makes the instance if there is none. No rights are checked.
   * @throws {PosternError} `full`
   */
  put(instance: Path, values: Readonly<Record<number, Value>>): void {
    this.#instances.set(key(instance), instance);
    for (const [id, value] of Object.entries(values)) this.#set([...instance, Number(id)], value);
  }

  /** Makes the resource at `path` executable. */
  onExecute(path: Path, execute: Execute): void {
    this.#executables.set(key(path), { path, execute });
  }

  /** Value of the resource at this path, without any check of rights. */
  value(...path: Path): Value | undefined {
    return this.#values.get(key(path))?.value;
  }

  /** Object instances that are listed in a registration: all but those of the objects Security and OSCORE. */
  get registered(): readonly Path[] {
    return [...this.#instances.values()].filter(([object = -1]) => !hidden.has(object));
  }

  /** Paths of the instances of an object. */
  instances(object: number): readonly Path[] {
    return [...this.#instances.values()].filter((path) => path[0] === object);
  }

  /**
   * Reads all readable resources at a path and below.
   * @throws {PosternError} `notFound`; `notAllowed` for the root, the objects Security and OSCORE, and resources that cannot be read
   */
  read(path: Path): readonly Entry[] {
    if (path[0] === undefined || hidden.has(path[0])) throw notAllowed(path);
    if (this.#executables.has(key(path))) throw notAllowed(path);
    const found = [...this.#values.values()].filter((entry) => isBelow(entry.path, path));
    const readable = found.filter((entry) => !isWriteOnly(entry.path));
    if (found.length > 0 && readable.length === 0) throw notAllowed(path);
    if (found.length === 0 && !this.#isInstance(path)) throw notThere(path);
    return readable;
  }

  /**
   * Links to the instances and resources at a path and below.
   * @throws {PosternError} `notFound`
   */
  discover(path: Path): readonly Link[] {
    const paths = [
      ...[...this.#values.values()].map((entry) => entry.path.slice(0, 3)),
      ...[...this.#executables.values()].map((each) => each.path),
      ...this.#instances.values(),
    ].filter((each) => isBelow(each, path));
    if (paths.length === 0) throw notThere(path);
    return [...new Set(paths.map(pathText))].map((target) => ({ target, attributes: {} }));
  }

  /**
   * Writes existing resources. The rights for all entries are checked before the first is written.
   * @param path an object instance or a resource, below which all entries are
   * @throws {PosternError} `malformed`, `notFound`, `notAllowed`, `full`
   */
  write(path: Path, entries: readonly Entry[]): void {
    if (path.length < 2) throw notAllowed(path);
    if (entries.some(({ path: at }) => !isBelow(at, path)))
      throw new PosternError('malformed', 'a value outside the path of the request');
    this.writeAll(entries);
  }

  /**
   * Writes existing resources, all or none.
   * @throws {PosternError} `notFound`, `notAllowed`, `full`
   */
  writeAll(entries: readonly Entry[]): void {
    for (const { path: at } of entries) {
      if (!this.#instances.has(key(at.slice(0, 2)))) throw notThere(at);
      if (isReadOnly(at)) throw notAllowed(at);
      if (this.#executables.has(key(at))) throw notAllowed(at);
      const isKnown = [...this.#values.values()].some((entry) => isBelow(entry.path, at.slice(0, 3)));
      if (!isKnown) throw notThere(at);
    }
    for (const { path: at, value } of entries) this.#set(at, value);
  }

  /**
   * Creates an object instance.
   * @throws {PosternError} `notAllowed`, `exists`, `full`
   */
  create(object: number, instance: number, entries: readonly Entry[]): void {
    const path = [object, instance];
    if (!this.#open.has(object)) throw notAllowed(path);
    if (this.#instances.has(key(path))) throw new PosternError('exists', `${pathText(path)} exists already`);
    this.put(path, {});
    for (const entry of entries) this.#set(entry.path, entry.value);
  }

  /**
   * Deletes an object instance on behalf of a server.
   * @throws {PosternError} `notFound`, `notAllowed`
   */
  delete(path: Path): void {
    const [object = -1] = path;
    if (path.length !== 2 || !this.#open.has(object)) throw notAllowed(path);
    if (!this.#instances.has(key(path))) throw notThere(path);
    this.forget(path);
  }

  /** Removes all values and instances at a path and below. No rights are checked. */
  forget(path: Path): void {
    for (const [at, { path: each }] of this.#values) if (isBelow(each, path)) this.#values.delete(at);
    for (const [at, each] of this.#instances) if (isBelow(each, path)) this.#instances.delete(at);
  }

  /** Returns a function that makes these objects what they are now. */
  saved(objects: readonly number[]): () => void {
    const isOf = ([object = -1]: Path) => objects.includes(object);
    const values = [...this.#values].filter(([, { path }]) => isOf(path));
    const instances = [...this.#instances].filter(([, path]) => isOf(path));
    return () => {
      for (const object of objects) this.forget([object]);
      for (const [at, entry] of values) this.#values.set(at, entry);
      for (const [at, path] of instances) this.#instances.set(at, path);
    };
  }

  /**
   * Executes a resource.
   * @throws {PosternError} `notFound`, `notAllowed`, and what the resource's function throws
   */
  execute(path: Path, argument: string): void {
    const found = this.#executables.get(key(path));
    if (found) found.execute(argument);
    else throw this.#values.has(key(path)) ? notAllowed(path) : notThere(path);
  }

  #isInstance(path: Path): boolean {
    return path.length <= 2 && [...this.#instances.values()].some((each) => isBelow(each, path));
  }

  #set(path: Path, value: Value): void {
    if (!this.#values.has(key(path)) && this.#values.size >= bound)
      throw new PosternError('full', `no room for more than ${bound} resources`);
    const before = this.value(...path);
    this.#values.set(key(path), { path, value });
    if (before !== value) this.onChange(path);
  }
}
