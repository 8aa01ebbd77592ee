import { closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { PosternError } from './errors.ts';

/** Bytes of a file that a configuration or a command names. */
const fileLimit = 16 * 1024 * 1024;
/** Milliseconds in which a pipe must have ended; between two looks at it. */
const pipeTimes = { within: 3000, look: 10 } as const;

export interface NamedFileOptions {
  /**
   * A pipe is read as well, such as /dev/stdin or `<(…)` of a shell. Only for what is read once: a pipe is empty afterwards.
   */
  readonly takesPipe?: boolean;
  /** Milliseconds in which a pipe must end; 3000 by default. */
  readonly within?: number;
}

/**
 * Reads a file that a person has named. Folders, devices and sockets are refused, and so are pipes, which could keep the
 * reader waiting for ever. Waits three seconds at most, for a pipe.
 * @throws {PosternError} `configuration`: what stands at this path in place of the file, and what to do, without the path
 */
export function readNamedFile(
  path: string,
  { takesPipe = false, within = pipeTimes.within }: NamedFileOptions = {},
): Buffer {
  let file: number;
  try {
    // Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
    file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw unreadable(cause);
  }
  try {
    const facts = fstatSync(file);
    if (facts.isFIFO() && takesPipe) return readPipe(file, within);
    const reason = demandOf(facts, takesPipe);
    if (reason !== undefined) throw new PosternError('configuration', reason);
    if (facts.size > fileLimit) throw tooLarge();
    return readFileSync(file);
  } catch (thrown) {
    throw thrown instanceof PosternError ? thrown : unreadable(thrown);
  } finally {
    closeSync(file);
  }
}

/** What `fstat` tells about a path. */
interface Facts {
  isFile(): boolean;
  isDirectory(): boolean;
  isFIFO(): boolean;
}

/** Why a path is no file that can be read or written, and what to do. Undefined when it is one. */
export function demandOf(facts: Facts, takesPipe = false): string | undefined {
  if (facts.isFile()) return undefined;
  if (facts.isDirectory()) return 'is a folder, not a file; name a file in it';
  if (facts.isFIFO()) return 'is a pipe, not a file; write its content to a file, and name that';
  return `is a device or a socket, not a file; name a file${takesPipe ? ' or a pipe' : ''}`;
}

const tooLarge = () =>
  new PosternError('configuration', `has more than ${fileLimit / 1024 / 1024} MiB; is it the right file?`);

/** What the system says, in words; always with its code. */
function unreadable(cause: unknown): PosternError {
  const { code } = cause as NodeJS.ErrnoException;
  // A socket, and a device without a driver.
  if (code === 'ENXIO')
    return new PosternError('configuration', 'is a device or a socket, not a file; name a file', { cause });
  return new PosternError('configuration', `cannot be read (${code})`, { cause });
}

/** Reads a pipe to its end. It has ended when nobody writes to it any more, and something was written. */
function readPipe(file: number, within: number): Buffer {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const end = performance.now() + within;
  const never = new Int32Array(new SharedArrayBuffer(4));
  while (performance.now() < end) {
    const piece = Buffer.alloc(64 * 1024);
    const read = readSome(file, piece);
    if (read === 0 && bytes > 0) return Buffer.concat(pieces);
    if (read) {
      pieces.push(piece.subarray(0, read));
      bytes += read;
      if (bytes > fileLimit) throw tooLarge();
    } else Atomics.wait(never, 0, 0, pipeTimes.look);
  }
  const seconds = within / 1000;
  throw new PosternError(
    'configuration',
    bytes === 0
      ? `is a pipe, and nobody has written to it in ${seconds} s; write to it, or name a file`
      : `is a pipe that has not ended in ${seconds} s; close its other end, or name a file`,
  );
}

/** Bytes that were read; undefined while there are none, and somebody has the other end open. */
function readSome(file: number, into: Buffer): number | undefined {
  try {
    return readSync(file, into);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EAGAIN') return undefined;
    throw thrown;
  }
}
