import { write, writeSync } from 'node:fs';

const standardOutput = 1;
/** Characters that wait while standard output takes none. Further text is dropped. */
const waitingCharacters = 256 * 1024;
/** Milliseconds until a pipe that was full is tried again. */
const retryAfter = 100;

/**
 * Writes text to standard output and never throws. Text that cannot be written is dropped: standard output may be a
 * file on a full disk, or a terminal or pipe that has gone. Does not block while standard output is slow.
 */
export class StandardOutput {
  readonly #failed: (error: Error) => void;
  #waiting = '';
  #writing = false;

  /** @param failed called when text was dropped */
  constructor(failed: (error: Error) => void) {
    this.#failed = failed;
    process.on('exit', () => this.#flush());
  }

  write(text: string): void {
    if (this.#waiting.length + text.length <= waitingCharacters) this.#waiting += text;
    else this.#failed(new Error('standard output is too slow'));
    this.#next();
  }

  #next(): void {
    if (this.#writing || this.#waiting === '') return;
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
