/**
 * Lays a program out for a slow start from packed flash: the pages that a start touches come first in its file, the others
 * behind them. At which address they lie in memory stays as it was.
 *
 * Node has 85 MB, of which a start of the gateway touches 19, a page here and a page there: without this, nearly all of it is
 * read, unpacked and checked, and on a board with 128 MB thrown out again while the rest is read.
 *
 * It costs a segment for each run of pages, more than the kernel loads by itself (one page of program headers), so the program
 * is started by its loader: `ld-linux-aarch64.so.1 PROGRAM`, which takes any number.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  headerField,
  isElf,
  type Segment,
  segmentBytes,
  segmentsOf,
  segmentType,
  writeSegment,
} from './elf.ts';
import { root } from './tools.ts';

const pageBytes = 4096;
/** Pages between two runs that are taken for touched as well: fewer segments, for a few more pages. */
const gap = 2;

/** Pages in memory, from one number to another, which is not among them. */
export interface PageRun {
  readonly from: number;
  readonly to: number;
}

/** Where `npm run image:pages` writes what a start touches, and the version of Node that this holds for. */
export const startPagesFile = join(root, 'firmware-image/recipe/start-pages.txt');

/** Pages that a start of the gateway touches, in hexadecimal; nothing for a version of Node that was not looked at. */
export function startPages(nodeVersion: string, text = readFileSync(startPagesFile, 'utf8')): PageRun[] {
  if (!text.startsWith(`node ${nodeVersion}\n`)) return [];
  return [...text.matchAll(/([0-9a-f]+)-([0-9a-f]+)/g)].map(([, from = '', to = '']) => ({
    from: Number.parseInt(from, 16),
    to: Number.parseInt(to, 16),
  }));
}

export const describePages = (nodeVersion: string, runs: readonly PageRun[]): string => {
  const words = runs.map(({ from, to }) => `${from.toString(16)}-${to.toString(16)}`);
  const lines = Array.from({ length: Math.ceil(words.length / 10) }, (_, index) =>
    words.slice(10 * index, 10 * index + 10).join(' '),
  );
  return `node ${nodeVersion}\n${lines.join('\n')}\n`;
};

/** A piece of a loaded segment: pages in a row that a start touches all, or none of them. */
interface Piece extends PageRun {
  readonly segment: Segment;
  readonly isTouched: boolean;
}

/**
 * @param touched in the order of their addresses
 * @returns the program with these pages first; it has no sections any more
 * @throws {Error} for what is no program
 */
export function startPagesFirst(program: Buffer, touched: readonly PageRun[]): Buffer {
  if (!isElf(program)) throw new Error('only an ELF program can be laid out');
  const segments = segmentsOf(program);
  const loaded = segments.filter(({ type }) => type === segmentType.load);
  const pages = pagesIn(touched);
  const pieces = loaded.flatMap((segment, index) => piecesOf(segment, pages, index === 0));
  const count = segments.length + pieces.length + 1 - loaded.length;
  const headers: PageRun = tableBelow(loaded[0]!, Math.ceil((count * segmentBytes) / pageBytes));

  const places = new Map<PageRun, number>();
  let end = 0;
  const place = (run: PageRun) => {
    places.set(run, end);
    end += run.to - run.from;
  };
  for (const piece of pieces) if (piece.isTouched) place(piece);
  place(headers);
  for (const piece of pieces) if (!piece.isTouched) place(piece);

  const laidOut = Buffer.alloc(end * pageBytes);
  for (const piece of pieces) {
    const { segment, from, to } = piece;
    const start = offsetOf(segment, from);
    program.copy(laidOut, places.get(piece)! * pageBytes, start, start + (to - from) * pageBytes);
  }
  const offsetIn = (piece: Piece, address: number): number =>
    (places.get(piece)! - piece.from) * pageBytes + address;
  const offsetAt = (address: number): number => {
    const page = Math.floor(address / pageBytes);
    return offsetIn(pieces.find(({ from, to }) => page >= from && page < to)!, address);
  };
  const table = {
    offset: places.get(headers)! * pageBytes,
    address: headers.from * pageBytes,
    fileSize: count * segmentBytes,
    memorySize: count * segmentBytes,
    flags: 4,
    alignment: pageBytes,
  };
  const all = segments.flatMap((segment): Segment[] => {
    if (segment.type === segmentType.headers) return [{ ...segment, ...table }];
    if (segment.type !== segmentType.load)
      return [segment.fileSize === 0 ? segment : { ...segment, offset: offsetAt(segment.address) }];
    if (segment !== loaded[0]) return [];
    return [
      { ...table, type: segmentType.load },
      ...pieces.map((piece) => {
        const part = partOf(piece);
        return { ...part, offset: offsetIn(piece, part.address) };
      }),
    ];
  });
  for (const [index, segment] of all.entries())
    writeSegment(laidOut, table.offset + index * segmentBytes, segment);
  laidOut.writeBigUInt64LE(BigInt(table.offset), headerField.segments);
  laidOut.writeUInt16LE(all.length, headerField.segmentCount);
  laidOut.writeBigUInt64LE(0n, headerField.sections);
  laidOut.writeUInt16LE(0, headerField.sectionCount);
  laidOut.writeUInt16LE(0, headerField.sectionNames);
  return laidOut;
}

function pagesIn(runs: readonly PageRun[]): ReadonlySet<number> {
  const pages = new Set<number>();
  let last = Number.NEGATIVE_INFINITY;
  for (const { from, to } of runs) {
    for (let page = from - last <= gap ? last : from; page < to; page++) pages.add(page);
    last = to;
  }
  return pages;
}

function piecesOf(segment: Segment, touched: ReadonlySet<number>, isFirst: boolean): Piece[] {
  const { from, to } = pagesOf(segment);
  // What is written to is small, and its zeros follow on the last page; the file's own header must stay in front.
  const isTouched = (page: number) =>
    segment.memorySize > segment.fileSize || (isFirst && page === from) || touched.has(page);
  const pieces: Piece[] = [];
  for (let start = from; start < to; ) {
    let end = start + 1;
    while (end < to && isTouched(end) === isTouched(start)) end++;
    pieces.push({ segment, from: start, to: end, isTouched: isTouched(start) });
    start = end;
  }
  return pieces;
}

const pagesOf = ({ address, fileSize }: Segment): PageRun => ({
  from: Math.floor(address / pageBytes),
  to: Math.ceil((address + fileSize) / pageBytes),
});

const offsetOf = ({ offset, address }: Segment, page: number): number => page * pageBytes - address + offset;

/** The segment that loads a piece; its place in the file is not known yet. */
function partOf({ segment, from, to }: Piece): Segment {
  const address = Math.max(segment.address, from * pageBytes);
  const isLast = to === pagesOf(segment).to;
  const end = isLast ? segment.address + segment.fileSize : to * pageBytes;
  const memoryEnd = isLast ? segment.address + segment.memorySize : end;
  const sizes = { fileSize: end - address, memorySize: memoryEnd - address };
  return { ...segment, ...sizes, address, alignment: pageBytes };
}

/** Pages for the program headers, in front of all that is loaded. */
function tableBelow(first: Segment, pages: number): PageRun {
  const { from } = pagesOf(first);
  if (from <= pages) throw new Error('there is no room for program headers below the program');
  return { from: from - pages, to: from };
}
