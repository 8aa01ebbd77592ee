import { closeSync, constants, openSync, readFileSync, watch, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { BootStateCopies, type SlotName } from './boot-state.ts';
import type { BundleFacts, SlotDriver } from './slots.ts';

export interface RaucSlotsParts {
  /** Folder in which the image's agent is asked and answers. */
  readonly agent: string;
  /** Partitions of the boot state. */
  readonly state: readonly [string, string];
  readonly bundleFile: string;
  /** What this image is: lines `name=value`. */
  readonly release: string;
  readonly kernelArguments: string;
  readonly clock: Clock;
}

/** Milliseconds that RAUC may take for a bundle. */
const patience = 600_000;

/** What RAUC says of a bundle that it does not take, and what FUMO calls it. */
const refusals: readonly (readonly [RegExp, number])[] = [
  [/signature|certificate|verif|CMS|trust/i, FumoResult.NotValidated],
  [/compatible/i, FumoResult.Mismatch],
  [/space|too (large|big)|exceed/i, FumoResult.NoRoom],
  [/format|manifest|size|magic|squashfs|bundle/i, FumoResult.Corrupt],
];

/** Slots of the firmware image: RAUC checks bundles and writes slots, behind an agent that may what the gateway may not. */
export class RaucSlots implements SlotDriver {
  readonly current: SlotName;
  readonly version: string;
  readonly compatible: string;
  readonly boot: BootStateCopies;
  readonly bundleFile: string;
  readonly #parts: RaucSlotsParts;
  #asked = 0;

  /** @throws {PosternError} `configuration` when this is no image with slots */
  constructor(parts: RaucSlotsParts) {
    this.#parts = parts;
    this.boot = new BootStateCopies(parts.state);
    this.bundleFile = parts.bundleFile;
    const { version, board } = readRelease(parts.release);
    const slot = /\bpostern\.slot=([AB])\b/.exec(readText(parts.kernelArguments))?.[1];
    if (version === undefined || board === undefined || slot === undefined)
      throw new PosternError('configuration', 'update.slots: "rauc" is for the firmware image only');
    this.version = version;
    this.compatible = `postern-${board}`;
    this.current = slot as SlotName;
  }

  async inspect(): Promise<BundleFacts> {
    const answer = await this.#ask('inspect');
    let facts: { compatible?: string; version?: string; description?: string };
    try {
      facts = JSON.parse(answer) as typeof facts;
    } catch (cause) {
      throw new FumoRefusal(FumoResult.Corrupt, 'RAUC does not say what the bundle is', { cause });
    }
    const floor = /\bfloor=(\d+\.\d+\.\d+)/.exec(facts.description ?? '')?.[1];
    return {
      compatible: facts.compatible ?? '',
      version: facts.version ?? '',
      ...(floor !== undefined && { floor }),
    };
  }

  async install(onProgress?: (percent: number) => void): Promise<void> {
    await this.#ask('install', onProgress);
  }

  restart(): void {
    this.#send('reboot', '0');
  }

  /** Asks the agent, and answers with what it said; one at a time. How far it is, it says on the way in a file of its own. */
  async #ask(verb: string, onProgress?: (percent: number) => void): Promise<string> {
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
    this.#send(verb, `${process.pid}-${number}`);
    const watcher = watch(folder, look);
    const timer = clock.after(patience, () =>
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

  #send(verb: string, number: string): void {
    try {
      const pipe = openSync(join(this.#parts.agent, 'ask'), constants.O_WRONLY | constants.O_NONBLOCK);
      try {
        writeSync(pipe, `${verb} ${number}\n`);
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
