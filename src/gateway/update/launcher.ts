import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { type Clock, pause } from '../../base/clock.ts';
import { writeDurably } from '../../base/durable.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { backoff } from '../../base/retry.ts';
import { softwareVersion } from '../../base/version.ts';
import {
  type BootState,
  type BootStateCopies,
  mostStarts,
  otherSlot,
  type SlotName,
  versionNumber,
} from './boot-state.ts';
import { digestOf, type Manifest } from './bundle.ts';
import {
  bootStateOf,
  configurationExitCode,
  diagnosisOf,
  directoryCompatible,
  feedVariable,
  manifestOf,
  programOf,
  restartExitCode,
  slotVariable,
} from './directory-slots.ts';

export interface LauncherParts {
  /** Folder of the slots. */
  readonly directory: string;
  /** Path of the program that is copied to slot A when no slot has one that can be started. */
  readonly ownProgram: string;
  /** Arguments for the program in a slot. */
  readonly args: readonly string[];
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Takes what passes an order to reload on to the program that runs now. */
  readonly onReload: (reload: () => void) => void;
}

/** Milliseconds between starts of a good slot that ends badly. */
const retry = { first: 1000, cap: 30_000, jitter: 0.25 } as const;

/**
 * Milliseconds within which a slot must feed the launcher: a tried slot for the first time, and any slot again. It does so every
 * five seconds while it answers CoAP.
 */
const silence = { first: 300_000, next: 60_000 } as const;
/** Most reasons that are said once. */
const mostTold = 16;

/**
 * Decides as the boot loader does which slot to start (firmware-image/u-boot/boot.cmd). A slot that is tried loses one of its
 * remaining starts. When it has none left, it is recorded as failed, and the good slot starts. A good slot that was started
 * often and not found healthy is recorded as failed, and the spare slot is good. `isLast`: there is no spare slot, or it was
 * started as often. A board starts its recovery system then, and both slots have all their starts again.
 */
export function chooseSlot(boot: BootStateCopies): { slot: SlotName; isTried: boolean; isLast: boolean } {
  let state = boot.read();
  const { trying, left } = state;
  const write = (changes: Partial<BootState>): boolean => {
    try {
      boot.change(changes);
      return true;
    } catch {
      return false;
    }
  };
  // A start that cannot be counted is no trial.
  if (trying && left > 0 && write({ left: left - 1 })) return { slot: trying, isTried: true, isLast: false };
  if (trying && left === 0) state = { ...state, trying: undefined, failed: trying };
  const { good, spare, failed, starts } = state;
  const isLast = starts >= mostStarts && (!spare || failed === spare);
  if (isLast) state = { ...state, failed: undefined };
  else if (spare && starts >= mostStarts)
    state = { ...state, good: spare, spare: good, failed: good, starts: 0 };
  write({ ...state, starts: isLast ? 0 : state.starts + 1 });
  return { slot: state.good, isTried: false, isLast };
}

/** Why the program of a slot cannot be started; undefined when it can. */
function faultOf(directory: string, slot: SlotName, floor: number): string | undefined {
  const manifest = manifestOf(directory, slot);
  if (!manifest) return 'there is no manifest of its program';
  if ((versionNumber(manifest.version) ?? 0) < floor) return `${manifest.version} is below the floor`;
  try {
    const program = readFileSync(programOf(directory, slot));
    return digestOf(program) === manifest.sha256 ? undefined : 'its program was changed';
  } catch (thrown) {
    return asPosternError(thrown).message;
  }
}

/**
 * Starts the program of a slot again and again, as U-Boot starts a slot of the firmware image, and supervises it. Returns when
 * the signal is aborted. A program that was changed or is below the floor is not started; when no slot has another one, slot A
 * gets the launcher's own. A slot that is tried and ends, or does not feed the launcher in time, is started again at once
 * while it has starts left. A good slot is started again after a delay.
 * @throws {PosternError} `configuration` when the launcher's own program is below the floor too
 */
export async function launch(parts: LauncherParts, signal: AbortSignal): Promise<void> {
  const { directory, ownProgram, clock, entropy, events } = parts;
  const boot = bootStateOf(directory);
  const told = new Set<string>();
  /** Whether the slot can be started. Why not is said once. */
  const isStartable = (slot: SlotName): boolean => {
    const reason = faultOf(directory, slot, boot.read().floor);
    if (reason === undefined) return true;
    if (existsSync(programOf(directory, slot)) && told.size < mostTold && !told.has(slot + reason)) {
      told.add(slot + reason);
      events.emit('slot.unusable', { slot, reason });
    }
    return false;
  };
  let delays = backoff(retry, entropy);
  while (!signal.aborted) {
    const { slot, isTried } = chooseSlot(boot);
    let chosen = [slot, otherSlot(slot)].find(isStartable);
    if (!chosen) {
      writeSlot(directory, ownProgram);
      if (!isStartable('A'))
        throw new PosternError('configuration', `no slot in ${directory} can be started`);
      chosen = 'A';
    }
    const isTrial = isTried && chosen === slot;
    if (isTried && !isTrial) boot.change({ trying: undefined, left: 0, failed: slot });
    events.emit('slot.starting', { slot: chosen, tried: isTrial });
    const begun = clock.now();
    const code = await runProgram(chosen, isTrial, parts, signal);
    if (signal.aborted) return;
    tellCause(directory, code === restartExitCode ? 'ordered' : `slot ${chosen} ended with ${code}`);
    if (code === restartExitCode) continue;
    events.emit('slot.ended', { slot: chosen, code });
    if (isTrial) continue;
    // No version can start with this configuration, so this was no start of the slot.
    if (code === configurationExitCode) boot.change({ starts: 0 });
    if (clock.now() - begun > retry.cap) delays = backoff(retry, entropy);
    await pause(clock, delays.next().value, signal).catch(() => {});
  }
}

/** Tells the next program why the last one ended (`readDiagnosis`). */
function tellCause(directory: string, cause: string): void {
  try {
    const folder = diagnosisOf(directory);
    makeFolder(folder, { mode: 0o700 });
    writeFileSync(join(folder, 'ResetCause'), cause);
  } catch {
    // A disk that takes no writes keeps no version from its start.
  }
}

/** Writes the launcher's own program to slot A. */
function writeSlot(directory: string, ownProgram: string): void {
  const program = programOf(directory, 'A');
  const bytes = readFileSync(ownProgram);
  makeFolder(dirname(program), { mode: 0o700 });
  writeDurably(program, bytes);
  const facts = { compatible: directoryCompatible, version: softwareVersion };
  const manifest: Manifest = { ...facts, size: bytes.length, sha256: digestOf(bytes) };
  writeDurably(join(program, '../manifest.json'), JSON.stringify(manifest));
}

/** Runs the program of a slot until it ends, or is silent for too long. Returns its exit code; 1 when a signal ended it. */
async function runProgram(
  slot: SlotName,
  isTried: boolean,
  { directory, args, clock, events, onReload }: LauncherParts,
  signal: AbortSignal,
): Promise<number> {
  // Neither a signal nor the environment opens Node's debugger, which can run any code.
  const { NODE_OPTIONS: _, ...environment } = process.env;
  const child = spawn(process.execPath, ['--disable-sigusr1', programOf(directory, slot), ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...environment, [slotVariable]: slot, [feedVariable]: '3' },
  });
  const giveUp = () => {
    events.emit('slot.silent', { slot });
    child.kill('SIGKILL');
  };
  // A good slot may wait for its enrolment before it serves anybody.
  let timer = isTried ? clock.after(silence.first, giveUp) : undefined;
  const fed = child.stdio[3] as Readable;
  fed.on('data', () => {
    timer?.cancel();
    timer = clock.after(silence.next, giveUp);
  });
  fed.on('error', () => {});
  const stop = () => {
    child.kill('SIGTERM');
    timer ??= clock.after(silence.next, giveUp);
  };
  signal.addEventListener('abort', stop, { once: true });
  // A second signal ends this process at once. It must end the program too, for which it is the second signal as well.
  process.on('exit', stop);
  onReload(() => child.kill('SIGHUP'));
  const [code] = (await once(child, 'exit')) as [number | null];
  timer?.cancel();
  signal.removeEventListener('abort', stop);
  process.off('exit', stop);
  return code ?? 1;
}
