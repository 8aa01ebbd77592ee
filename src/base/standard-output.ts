import { write, writeSync } from 'node:fs';

const standardOutput = 1;
/** Characters that wait while standard output takes none. Further text is dropped. */
const waitingCharacters = 256 * 1024;
/** Milliseconds until a pipe that was full is tried again. */
const retryAfter = 100;
/**
 * Least milliseconds between two writes, and characters that are written before. Each write takes a thread and wakes it up. That
 * costs more than the lines themselves, when each device that attaches writes five of them.
 */
export const outputBatch = { pause: 50, characters: 16 * 1024 } as const;

/**
 * Writes text to standard output and never throws. Text that follows other text closely is written together. At the exit of
 * the process, whatever its reason, what waits is written at once, perhaps before what a thread is writing. A process that is
 * killed loses what came in the last `pause`. Text that cannot be written is dropped: standard output may be a
 * file on a full disk, or a terminal or pipe that has gone. Does not block while standard output is slow.
 */
export class StandardOutput {
  readonly #failed: (error: Error) => void;
  #waiting = '';
  #writing = false;
  #written = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  /** @param failed called when text was dropped */
  constructor(failed: (error: Error) => void) {
    this.#failed = failed;
    process.on('exit', () => this.#flush());
  }

  /** @param isUrgent written at once, with all text before it */
  write(text: string, isUrgent = false): void {
    if (this.#waiting.length + text.length <= waitingCharacters) this.#waiting += text;
    else this.#failed(new Error('standard output is too slow'));
    const wait = this.#written + outputBatch.pause - performance.now();
    if (isUrgent || wait <= 0 || this.#waiting.length >= outputBatch.characters) this.#next();
    // The exit of the process writes what waits, so the timer does not keep it alive.
    else this.#timer ??= setTimeout(() => this.#next(), wait).unref();
  }

  #next(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing || this.#waiting === '') return;
    this.#written = performance.now();
    const octets = Buffer.from(this.#waiting);
    this.#waiting = '';
    this.#writing = true;
    this.#write(octets);
  }

  #write(octets: Buffer): void {
    write(standardOutput, octets, (error, written) => {
      if (error?.code === 'EAGAIN') {
        setTimeout(() => this.#write(octets), retryAfter);
        return;
      }
      if (!error && written < octets.length) return this.#write(octets.subarray(written));
      this.#writing = false;
      if (error) this.#failed(error);
      this.#next();
    });
  }

  /** The process ends: what still waits is written at once, or not at all. */
  #flush(): void {
    try {
      writeSync(standardOutput, this.#waiting);
    } catch {
      // There is nobody left to be told.
    }
  }
}
