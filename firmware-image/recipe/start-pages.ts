/**
 * Lays a program out for a fast start from compressed flash. The pages that a start touches come first in the file, the
 * others follow. Their addresses in memory do not change.
 *
 * Node has 85 MB, of which a start of the gateway touches 19 MB in scattered pages. Without this layout nearly all of it is
 * read, unpacked and checked, and on a board with 128 MB it is evicted again while the rest is read.
 *
 * Each run of pages needs a segment. These are more than the kernel accepts (one page of program headers), so the program
 * is started by its loader, `ld-linux-aarch64.so.1 PROGRAM`, which accepts any number.
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
/** Two runs with at most this many pages between them are joined: a few more pages, but fewer segments. */
const gap = 2;

/** A run of pages in memory, by page numbers. `to` is exclusive. */
export interface PageRun {
  readonly from: number;
  readonly to: number;
}

/** File in which `npm run image:pages` keeps the touched pages, with the version of Node for which they were measured. */
export const startPagesFile = join(root, 'firmware-image/recipe/start-pages.txt');

/** The pages that a start of the gateway touches. Empty if they were measured for another version of Node. */
export function startPages(nodeVersion: string, text = readFileSync(startPagesFile, 'utf8')): PageRun[] {
  if (!text.startsWith(`node ${nodeVersion}\n`)) return [];
  return [...text.matchAll(/([0-9a-f]+)-([0-9a-f]+)/g)].map(([, from = '', to = '']) => ({
    from: Number.parseInt(from, 16),
    to: Number.parseInt(to, 16),
  }));
}

/** The content of `startPagesFile` for these pages. */
export const describePages = (nodeVersion: string, runs: readonly PageRun[]): string => {
  const words = runs.map(({ from, to }) => `${from.toString(16)}-${to.toString(16)}`);
  const lines = Array.from({ length: Math.ceil(words.length / 10) }, (_, index) =>
    words.slice(10 * index, 10 * index + 10).join(' '),
  );
  return `node ${nodeVersion}\n${lines.join('\n')}\n`;
};

/** A part of a loaded segment: adjacent pages that are either all touched by a start or all not touched. */
interface Piece extends PageRun {
  readonly segment: Segment;
  readonly isTouched: boolean;
}

/**
 * Lays a program out with its touched pages first.
 * @param touched in the order of their addresses
 * @returns the new program, without section headers
 * @throws {Error} for a file that is not ELF64, or without room for program headers below its first address
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

/** Numbers of all pages in the runs, and of those in the short gaps between them. */
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
  // Two kinds of pages always count as touched. A segment with zeros at its end is writable and small, and stays in one
  // piece. The first page has the header of the file, which must stay at the front.
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

/** The segment that loads a piece. Its `offset` is still that of the whole segment. */
function partOf({ segment, from, to }: Piece): Segment {
  const address = Math.max(segment.address, from * pageBytes);
  const isLast = to === pagesOf(segment).to;
  const end = isLast ? segment.address + segment.fileSize : to * pageBytes;
  const memoryEnd = isLast ? segment.address + segment.memorySize : end;
  const sizes = { fileSize: end - address, memorySize: memoryEnd - address };
  return { ...segment, ...sizes, address, alignment: pageBytes };
}

/** Pages for the program headers, below all loaded segments. */
function tableBelow(first: Segment, pages: number): PageRun {
  const { from } = pagesOf(first);
  if (from <= pages) throw new Error('there is no room for program headers below the program');
  return { from: from - pages, to: from };
}
