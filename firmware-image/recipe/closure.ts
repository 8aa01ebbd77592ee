import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import type { DebianPackage } from './debian.ts';
import { isElf, segmentsOf, segmentType } from './elf.ts';

/** A file for the image. */
export interface PickedFile {
  /** Path on this machine. */
  readonly from: string;
  /** Path in the image, without its first slash. */
  readonly to: string;
  /** Name of the package that it comes from. */
  readonly package: string;
}

const libraryFolders = ['lib/aarch64-linux-gnu', 'usr/lib/aarch64-linux-gnu', 'lib', 'usr/lib'];

/** Finds files in packages, as if all packages were installed in one root. */
export class PackageFiles {
  readonly #packages: readonly DebianPackage[];

  constructor(packages: readonly DebianPackage[]) {
    this.#packages = packages;
  }

  /**
   * Finds a file. Links are followed.
   * @param path path in the package, without its first slash
   * @throws {Error} when no package has it
   */
  find(path: string): PickedFile {
    for (const found of this.#packages) {
      const from = join(found.folder, path);
      if (!lstatSync(from, { throwIfNoEntry: false })) continue;
      return { from: this.#behindLinks(found.folder, from), to: path, package: found.name };
    }
    throw new Error(`no package has ${path}`);
  }

  /**
   * Programs with all shared libraries that they need, each once, sorted by path.
   * @param paths programs of packages
   * @param others further programs
   * @throws {Error} when no package has a program or library
   */
  programs(paths: readonly string[], others: readonly PickedFile[] = []): PickedFile[] {
    const picked = new Map<string, PickedFile>();
    const todo = [...paths.map((path) => this.find(path)), ...others];
    for (let file = todo.pop(); file; file = todo.pop()) {
      if (picked.has(file.to)) continue;
      picked.set(file.to, file);
      const { needed, interpreter } = readElf(readFileSync(file.from));
      if (interpreter !== undefined) todo.push(this.find(interpreter.slice(1)));
      for (const name of needed) todo.push(this.#library(name));
    }
    return [...picked.values()].toSorted((a, b) => (a.to < b.to ? -1 : 1));
  }

  #library(name: string): PickedFile {
    const folder = libraryFolders.find((one) =>
      this.#packages.some((found) => lstatSync(join(found.folder, one, name), { throwIfNoEntry: false })),
    );
    if (folder === undefined) throw new Error(`no package has the library ${name}`);
    return { ...this.find(join(folder, name)), to: join('usr/lib/aarch64-linux-gnu', name) };
  }

  /** Follows links. An absolute link of a package would otherwise lead to a file of the build machine. */
  #behindLinks(folder: string, path: string): string {
    let at = path;
    for (let hop = 0; hop < 8 && lstatSync(at).isSymbolicLink(); hop++) {
      const target = readlinkSync(at);
      at = target.startsWith('/') ? this.find(target.slice(1)).from : join(dirname(at), target);
      if (!existsSync(at) && at.startsWith(folder)) at = this.find(relative(folder, at)).from;
    }
    return realpathSync(at);
  }
}

/**
 * Reads from a program or library (ELF64, little-endian) the names of the libraries that it needs, and the path of its
 * loader. Returns neither for any other file.
 */
export function readElf(bytes: Buffer): { needed: string[]; interpreter: string | undefined } {
  if (!isElf(bytes)) return { needed: [], interpreter: undefined };
  const segments = segmentsOf(bytes);
  const textAt = (offset: number) => bytes.subarray(offset, bytes.indexOf(0, offset)).toString('latin1');
  const interpreter = segments.find(({ type }) => type === segmentType.interpreter);
  const dynamic = segments.find(({ type }) => type === segmentType.dynamic);
  const entries: (readonly [tag: number, value: number])[] = [];
  for (let at = dynamic?.offset ?? 0; dynamic && at < dynamic.offset + dynamic.fileSize; at += 16)
    entries.push([Number(bytes.readBigUInt64LE(at)), Number(bytes.readBigUInt64LE(at + 8))]);
  const strings = entries.find(([tag]) => tag === 5)?.[1] ?? 0;
  const loaded = segments.find(
    ({ type, address, fileSize }) =>
      type === segmentType.load && strings >= address && strings < address + fileSize,
  );
  const table = loaded ? strings - loaded.address + loaded.offset : 0;
  return {
    needed: entries.filter(([tag]) => tag === 1).map(([, value]) => textAt(table + value)),
    interpreter: interpreter && textAt(interpreter.offset),
  };
}

/** A kernel module to be loaded. */
export interface KernelModule {
  readonly file: string;
  /** Arguments of insmod: name of the file, and parameters. */
  readonly line: string;
}

/**
 * Kernel modules and the modules that they depend on, in an order in which they can be loaded. Modules that are built into
 * the kernel are left out.
 * @param folder folder of the kernel's modules
 * @param wanted names, each followed by its parameters
 * @throws {Error} when the kernel does not have a module
 */
export function moduleClosure(folder: string, wanted: readonly string[]): KernelModule[] {
  const files = new Map(
    readdirSync(folder, { recursive: true })
      .map(String)
      .filter((path) => path.endsWith('.ko'))
      .map((path) => [moduleName(basename(path, '.ko')), join(folder, path)]),
  );
  const builtIn = new Set(
    readFileSync(join(folder, 'modules.builtin'), 'utf8')
      .split('\n')
      .map((path) => moduleName(basename(path, '.ko'))),
  );
  const ordered: KernelModule[] = [];
  const add = (text: string): void => {
    const [name = '', ...options] = text.split(' ');
    const file = files.get(moduleName(name));
    // A built-in module with parameters is an error: its parameters would have to be on the kernel's command line.
    if (builtIn.has(moduleName(name)) && options.length === 0) return;
    if (file === undefined) throw new Error(`the kernel has no module ${name}`);
    if (ordered.some((one) => one.file === file)) return;
    const facts = readFileSync(file).toString('latin1');
    const depends = /\0depends=([^\0]*)\0/.exec(facts)?.[1] ?? '';
    for (const other of depends.split(',').filter((one) => one !== '')) add(other);
    ordered.push({ file, line: [basename(file), ...options].join(' ') });
  };
  for (const name of wanted) add(name);
  return ordered;
}

/** In names of modules the kernel treats dashes and underscores as equal. */
const moduleName = (name: string): string => name.replaceAll('-', '_');
