import { existsSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { background } from './background.ts';
import type { Clock, Timer } from './clock.ts';
import { asPosternError, PosternError } from './errors.ts';
import type { Events } from './events.ts';
import { goodCopy, partial } from './recover-state.ts';

/** Milliseconds from the start to the first copy, and between two copies: flash memory wears. */
export const copyTimes = { first: 600_000, every: 8 * 3_600_000 } as const;
/** Bytes that stay free on the disk when a periodic copy is made. */
const roomKept = 1024 * 1024;

/**
 * Makes a copy in a thread of its own, since it waits for the disk. The file is checked first, so only a sound state is
 * copied. The copy is on the disk before it gets its name. It forgets its start: see `forgetEpoch`.
 */
const program = `
  const fs = require('node:fs');
  const { dirname } = require('node:path');
  const { workerData: { file, part, renames } } = require('node:worker_threads');
  const { DatabaseSync } = require('node:sqlite');
  const sync = (path) => { const open = fs.openSync(path, 'r'); try { fs.fsyncSync(open); } finally { fs.closeSync(open); } };
  fs.rmSync(part, { force: true });
  try {
    fs.writeFileSync(part, '', { mode: 0o600 });
    const state = new DatabaseSync(file, { timeout: 1000 });
    try {
      const [found] = Object.values(state.prepare('PRAGMA quick_check(1)').get());
      if (found !== 'ok') throw new Error('the state is damaged: ' + found);
      state.prepare('VACUUM INTO ?').run(part);
    } finally { state.close(); }
    const copy = new DatabaseSync(part);
    try {
      if (copy.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'epoch'").get()) copy.exec('UPDATE epoch SET starts = -1');
    } finally { copy.close(); }
    sync(part);
    for (const [from, to] of renames) if (fs.existsSync(from)) fs.renameSync(from, to);
    sync(dirname(part));
  } catch (error) { fs.rmSync(part, { force: true }); throw error; }`;

async function runCopy(file: string, part: string, renames: readonly [string, string][]): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const worker = new Worker(program, { eval: true, workerData: { file, part, renames } });
  worker.once('error', reject);
  worker.once('exit', () => resolve());
  await promise;
}

/**
 * Writes a consistent copy of a state file, also while another process works with it.
 * @throws {PosternError} `conflict` when the target exists, `notFound` without a state, `storage`
 */
export async function backUp(file: string, target: string): Promise<void> {
  if (existsSync(target))
    throw new PosternError('conflict', `${target} exists already; take another name, or remove it`);
  if (!existsSync(file)) throw new PosternError('notFound', `there is no state file ${file}`);
  const part = target + partial;
  try {
    await runCopy(file, part, [[part, target]]);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('storage', `the copy ${target} cannot be made: ${why}`, { cause });
  }
}

/** The periodic copies of a state file, and copies that somebody asks for. One copy is made at a time. */
export class StateCopies {
  readonly #file: string;
  readonly #commits: () => number;
  #copied: number | undefined;
  #timer: Timer | undefined;
  #underWay: Promise<void> | undefined;
  #isStopped = false;

  /** @param commits number of transactions so far: without a new one no periodic copy is made */
  constructor(file: string, commits: () => number) {
    this.#file = file;
    this.#commits = commits;
  }

  /** The copy that is being made. Never rejects. Undefined when none is. */
  get underWay(): Promise<unknown> | undefined {
    return this.#underWay?.catch(() => {});
  }

  /** Begins to make periodic copies. A copy that fails is an event, and is tried again after the usual time. */
  start(clock: Clock, events: Events): void {
    const arm = (delay: number) => {
      this.#timer = clock.after(delay, () => {
        arm(copyTimes.every);
        void background(events, 'state', () => this.#keepIfDue(clock.wall(), events));
      });
    };
    arm(copyTimes.first);
  }

  /** As `backUp`; also `conflict` while another copy is made. */
  async backUp(target: string): Promise<void> {
    await this.#alone(() => backUp(this.#file, target));
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  /** A gateway that starts again and again makes no copy at each start. A clock that was wrong delays a copy only. */
  #isDue(wall: number): boolean {
    const latest = goodCopy(this.#file, 1);
    if (!existsSync(latest)) return true;
    if (this.#copied !== undefined) return this.#copied !== this.#commits();
    return Math.abs(wall - statSync(latest).mtimeMs) >= copyTimes.every - copyTimes.first;
  }

  async #keepIfDue(wall: number, events: Events): Promise<void> {
    try {
      if (this.#isDue(wall)) await this.#keep();
    } catch (thrown) {
      events.emit('state.copy-failed', { reason: asPosternError(thrown).message });
    }
  }

  async #keep(): Promise<void> {
    const { bavail, bsize } = statfsSync(dirname(this.#file));
    const log = `${this.#file}-wal`;
    const size = statSync(this.#file).size + (existsSync(log) ? statSync(log).size : 0);
    if (bavail * bsize < size + roomKept)
      throw new PosternError('storage', 'the disk has no room for a copy');
    const commits = this.#commits();
    const [latest, before] = [goodCopy(this.#file, 1), goodCopy(this.#file, 2)];
    const part = latest + partial;
    await this.#alone(() =>
      runCopy(this.#file, part, [
        [latest, before],
        [part, latest],
      ]),
    );
    this.#copied = commits;
  }

  async #alone(copy: () => Promise<void>): Promise<void> {
    if (this.#isStopped) throw new PosternError('unavailable', 'the program stops');
    if (this.#underWay) throw new PosternError('conflict', 'another copy is being made');
    this.#underWay = copy().finally(() => {
      this.#underWay = undefined;
    });
    await this.#underWay;
  }
}
