import { closeSync, constants, openSync, readFileSync, watch, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { type BootState, BootStateCopies, type SlotName } from './boot-state.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

export interface RaucSlotsParts {
  /** As `SlotDriver.diagnosis`. */
  readonly diagnosis: string;
  /** Folder of the image's agent: the pipe `ask` and the folder `answers`. */
  readonly agent: string;
  /**
   * Folder of the partitions: `state-1` and `state-2` with the copies of the boot state, and the images of the slots in `root-a`,
   * `boot-a`, `root-b` and `boot-b`. Only the agent writes them. The gateway can read the images of the running slot.
   */
  readonly partitions: string;
  /** Path where a bundle is put before it is installed. A revocation list is put beside it. */
  readonly bundleFile: string;
  /** File in which the agent shows the revocation lists that are in force. */
  readonly lists: string;
  /** File that describes the image, with lines `name=value`: `version` and `board`. */
  readonly release: string;
  /** File with the kernel's arguments, which name the running slot. */
  readonly kernelArguments: string;
  readonly clock: Clock;
}

/** Milliseconds within which the agent must answer. */
const answerTimeout = 600_000;

/** FUMO result codes for RAUC's error messages. The first pattern that fits counts. */
const refusals: readonly (readonly [RegExp, number])[] = [
  [/older than/, FumoResult.NotAcceptable],
  [/signature|certificate|verif|CMS|trust/i, FumoResult.NotValidated],
  [/compatible/i, FumoResult.Mismatch],
  [/space|too (large|big)|exceed/i, FumoResult.NoRoom],
  [/format|manifest|size|magic|squashfs|bundle/i, FumoResult.Corrupt],
];

/**
 * Slots of the firmware image. RAUC verifies bundles and writes slots. The gateway has no rights for that, so it sends
 * requests to an agent of the image, which runs RAUC.
 */
export class RaucSlots implements SlotDriver {
  readonly current: SlotName;
  readonly version: string;
  readonly compatible: string;
  readonly bundleFile: string;
  readonly sources: readonly string[];
  readonly diagnosis: string;
  readonly #parts: RaucSlotsParts;
  /** Number of requests so far. */
  #asked = 0;
  /** The request under way. The agent has one answer at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  /** @throws {PosternError} `configuration` when this is not a firmware image with slots */
  constructor(parts: RaucSlotsParts) {
    this.#parts = parts;
    this.bundleFile = parts.bundleFile;
    this.diagnosis = parts.diagnosis;
    const { version, board } = readRelease(parts.release);
    const slot = /\bpostern\.slot=([AB])\b/.exec(readText(parts.kernelArguments))?.[1];
    if (version === undefined || board === undefined || slot === undefined)
      throw new PosternError('configuration', 'update.slots: "rauc" is for the firmware image only');
    this.version = version;
    this.compatible = `postern-${board}`;
    this.current = slot as SlotName;
    this.sources = ['root', 'boot'].map((part) => this.#partition(`${part}-${slot.toLowerCase()}`));
  }

  state(): BootState {
    return new BootStateCopies([this.#partition('state-1'), this.#partition('state-2')]).read();
  }

  #partition(name: string): string {
    return join(this.#parts.partitions, name);
  }

  async inspect(): Promise<BundleFacts> {
    const answer = await this.#ask('inspect');
    let facts: { compatible?: string; version?: string };
    try {
      facts = JSON.parse(answer) as typeof facts;
    } catch (cause) {
      throw new FumoRefusal(FumoResult.Corrupt, 'RAUC gave no readable description of the bundle', { cause });
    }
    return { compatible: facts.compatible ?? '', version: facts.version ?? '' };
  }

  async install(onProgress?: (percent: number) => void): Promise<void> {
    await this.#ask('install', onProgress);
  }

  async try(attempts: number): Promise<void> {
    await this.#ask('try', undefined, attempts);
  }

  async keep(): Promise<void> {
    await this.#ask('keep');
  }

  lists(): string {
    return readText(this.#parts.lists);
  }

  async revoke(list: string): Promise<void> {
    writeFileSync(join(dirname(this.bundleFile), 'revoked.pem'), list);
    try {
      await this.#ask('revoke');
    } catch (cause) {
      throw new PosternError('conflict', asPosternError(cause).message, { cause });
    }
  }

  restart(): void {
    this.#send('reboot', '0');
  }

  /** As `#request`, one after the other. */
  #ask(verb: string, onProgress?: (percent: number) => void, argument?: number): Promise<string> {
    const turn = this.#turn.then(() => this.#request(verb, onProgress, argument));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /**
   * Sends a request to the agent and returns the text of its answer. While it works, the agent writes its progress in percent to
   * the file `progress`.
   * @throws {FumoRefusal} when the agent reports a failure, or does not run, or does not answer in time (410)
   */
  async #request(verb: string, onProgress?: (percent: number) => void, argument?: number): Promise<string> {
    const { agent, clock } = this.#parts;
    const number = ++this.#asked;
    const folder = join(agent, 'answers');
    const file = join(folder, `${process.pid}-${number}`);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    let percent: number | undefined;
    const look = () => {
      const text = readText(file);
      if (text !== '') return resolve(text);
      const told = readText(join(folder, 'progress')).trim();
      if (!/^\d{1,3}$/.test(told) || Number(told) === percent) return;
      percent = Number(told);
      onProgress?.(percent);
    };
    this.#send(verb, `${process.pid}-${number}`, argument);
    const watcher = watch(folder, () => {
      try {
        look();
      } catch (thrown) {
        reject(thrown);
      }
    });
    watcher.on('error', reject);
    const timer = clock.after(answerTimeout, () =>
      reject(new FumoRefusal(FumoResult.Failed, `the agent did not answer ${verb}`)),
    );
    try {
      look();
      const [, outcome, said = ''] = /^(\w+) ?(.*)$/s.exec(await promise) ?? [];
      if (outcome === 'done') return said.trim();
      const result = refusals.find(([pattern]) => pattern.test(said))?.[1] ?? FumoResult.Failed;
      throw new FumoRefusal(result, said.trim().slice(0, 300));
    } finally {
      timer.cancel();
      watcher.close();
    }
  }

  /** @throws {FumoRefusal} 410 when the agent does not run */
  #send(verb: string, number: string, argument: number | string = ''): void {
    try {
      const pipe = openSync(join(this.#parts.agent, 'ask'), constants.O_WRONLY | constants.O_NONBLOCK);
      try {
        writeSync(pipe, `${verb} ${number} ${argument}\n`);
      } finally {
        closeSync(pipe);
      }
    } catch (cause) {
      throw new FumoRefusal(FumoResult.Failed, 'the agent of the image does not run', { cause });
    }
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

const readRelease = (file: string): Readonly<Record<string, string | undefined>> =>
  Object.fromEntries([...readText(file).matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]));
