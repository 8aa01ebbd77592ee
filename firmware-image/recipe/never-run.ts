/**
 * Overwrites with zeros the parts of Node that no gateway ever reaches, so that they take no room in an update bundle. Addresses stay
 * as they are.
 *
 * - The tables for unwinding the stack. Only C++ exceptions and traces of a crash in native code read them. Node and V8 are built
 *   without exceptions: an error in them ends the process with these tables and without them.
 * - LIEF, a library that writes executable files, with the libraries that only LIEF uses. `node --build-sea` uses it.
 * - The WebAssembly of amaro, which removes types from TypeScript.
 *
 * Where such a part is reached nevertheless, the process ends (an undefined instruction), or JavaScript gets an error.
 */
import { headerField, type Section, sectionsOf, segmentBytes, segmentsOf } from './elf.ts';
import type { PageRun } from './start-pages.ts';

const pageBytes = 4096;
const unwinding = ['.eh_frame_hdr', '.eh_frame', '.gcc_except_table'];
/** Type of the program header that names `.eh_frame_hdr`, and the type of one that is ignored. */
const [unwindingHeader, ignored] = [0x6474e550, 0];
/** Mangled names of functions in namespaces that belong to LIEF, and functions in C of a library that only LIEF uses. */
const ofLief = /^_ZN?K?(St[0-9a-zA-Z_]*)?N?K?(4LIEF|6spdlog)|^mbedtls_/;
/** `\0asm` in base64, as a literal of JavaScript begins. */
const wasm = 'AGFzbQ';
/** The WebAssembly of other packages is much shorter than amaro's. */
const longWasm = 1_000_000;

/** How many bytes were overwritten, by part. */
export interface NeverRun {
  readonly unwinding: number;
  readonly lief: number;
  readonly amaro: number;
}

/**
 * Overwrites these parts of a program, in place.
 * @param program stripped, with its section headers
 * @param whole the program before it was stripped, for the names of its functions
 * @param touched pages that a start touches. Functions on them stay: constructors run at each start
 * @throws {Error} when a part is not there: another version of Node may have it elsewhere
 */
export function leaveOutNeverRun(program: Buffer, whole: Buffer, touched: readonly PageRun[]): NeverRun {
  const done = {
    unwinding: leaveOutUnwinding(program),
    lief: leaveOutLief(program, whole, touched),
    amaro: leaveOutAmaro(program),
  };
  for (const [part, bytes] of Object.entries(done))
    if (bytes === 0) throw new Error(`the program has no ${part}; see firmware-image/recipe/never-run.ts`);
  return done;
}

function leaveOutUnwinding(program: Buffer): number {
  const found = sectionsOf(program).filter(({ name }) => unwinding.includes(name));
  for (const { offset, size } of found) program.fill(0, offset, offset + size);
  const table = Number(program.readBigUInt64LE(headerField.segments));
  for (const [index, { type }] of segmentsOf(program).entries())
    if (type === unwindingHeader) program.writeUInt32LE(ignored, table + index * segmentBytes);
  return found.reduce((sum, { size }) => sum + size, 0);
}

function leaveOutLief(program: Buffer, whole: Buffer, touched: readonly PageRun[]): number {
  const text = sectionsOf(program).find(({ name }) => name === '.text');
  if (!text) return 0;
  const isTouched = (from: number, to: number) =>
    touched.some((run) => run.from * pageBytes < to && run.to * pageBytes > from);
  let bytes = 0;
  for (const { name, address, size } of functionsIn(whole)) {
    const offset = address - text.address + text.offset;
    const isInside = offset >= text.offset && offset + size <= text.offset + text.size;
    if (!isInside || !ofLief.test(name) || isTouched(address, address + size)) continue;
    program.fill(0, offset, offset + size);
    bytes += size;
  }
  return bytes;
}

/** The functions in the symbol table of a program (ELF64). Only those whose names match are worth a string. */
function* functionsIn(program: Buffer): Generator<{ name: string; address: number; size: number }> {
  const sections = sectionsOf(program);
  const symbols = sections.find(({ name }) => name === '.symtab');
  const names: Section | undefined = symbols && sections[symbols.link];
  if (!symbols || !names) return;
  const isFunction = 2;
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += 24) {
    if ((program[at + 4]! & 15) !== isFunction) continue;
    const start = names.offset + program.readUInt32LE(at);
    yield {
      name: program.toString('latin1', start, program.indexOf(0, start)),
      address: Number(program.readBigUInt64LE(at + 8)),
      size: Number(program.readBigUInt64LE(at + 16)),
    };
  }
}

function leaveOutAmaro(program: Buffer): number {
  let bytes = 0;
  for (let at = program.indexOf(wasm); at >= 0; at = program.indexOf(wasm, at + 1)) {
    const ends = ['"', "'", '`'].map((quote) => program.indexOf(quote, at)).filter((end) => end > 0);
    const end = Math.min(...ends);
    if (end - at < longWasm) continue;
    program.fill(0, at, end);
    bytes += end - at;
  }
  return bytes;
}
