import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { backoff } from '../../base/retry.ts';
import { type BootStateCopies, mostStarts, otherSlot, type SlotName } from './boot-state.ts';
import { bootStateOf, programOf, restartExitCode, slotVariable } from './directory-slots.ts';

export interface LauncherParts {
  /** Folder of the slots. */
  readonly directory: string;
  /** Path of the program that is copied to slot A when no slot has a program. */
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
 * Decides as the boot loader does which slot to start (firmware-image/u-boot/boot.cmd). A slot that is tried loses one of its
 * remaining starts. When it has none left, it is recorded as failed, and the good slot starts. A good slot that was started
 * often and not found healthy is recorded as failed, and the spare slot is good.
 */
export function chooseSlot(boot: BootStateCopies): { slot: SlotName; isTried: boolean } {
  let state = boot.read();
  const { trying, left } = state;
  if (trying && left > 0) {
    boot.change({ left: left - 1 });
    return { slot: trying, isTried: true };
  }
  if (trying) state = { ...state, trying: undefined, failed: trying };
  const { good, spare, starts } = state;
  if (spare && starts >= mostStarts) state = { ...state, good: spare, spare: good, failed: good, starts: 0 };
  boot.change({ ...state, starts: Math.min(state.starts + 1, 9) });
  return { slot: state.good, isTried: false };
}

/**
 * Starts the program of a slot again and again, as U-Boot starts a slot of the firmware image. Returns when the program
 * ends with exit code 0, or when the signal is aborted. A slot that is tried and ends badly is started again at once
 * while it has starts left. A good slot that ends badly is started again after a delay.
 * @throws {PosternError} `configuration` when no slot has a program
 */
export async function launch(parts: LauncherParts, signal: AbortSignal): Promise<void> {
  const { directory, ownProgram, clock, entropy, events } = parts;
  const first = programOf(directory, 'A');
  const boot = bootStateOf(directory);
  if (!existsSync(first) && !existsSync(programOf(directory, 'B'))) {
    makeFolder(dirname(first), { mode: 0o700 });
    copyFileSync(ownProgram, first);
  }
  let delays = backoff(retry, entropy);
  while (!signal.aborted) {
    const { slot, isTried } = chooseSlot(boot);
    const chosen = [slot, otherSlot(slot)].find((one) => existsSync(programOf(directory, one)));
    if (!chosen) throw new PosternError('configuration', `no slot in ${directory} has a program`);
    events.emit('slot.starting', { slot: chosen, tried: isTried });
    const begun = clock.now();
    const code = await runProgram(programOf(directory, chosen), chosen, parts, signal);
    if (code === 0 || signal.aborted) return;
    if (code === restartExitCode) continue;
    events.emit('slot.ended', { slot: chosen, code });
    if (isTried) continue;
    if (clock.now() - begun > retry.cap) delays = backoff(retry, entropy);
    await pause(clock, delays.next().value, signal).catch(() => {});
  }
}

/** Runs a program until it ends. Returns its exit code; 1 when a signal ended it. */
async function runProgram(
  program: string,
  slot: SlotName,
  { args, onReload }: LauncherParts,
  signal: AbortSignal,
): Promise<number> {
  // Neither a signal nor the environment opens Node's debugger, which can run any code.
  const { NODE_OPTIONS: _, ...environment } = process.env;
  const child = spawn(process.execPath, ['--disable-sigusr1', program, ...args], {
    stdio: 'inherit',
    env: { ...environment, [slotVariable]: slot },
  });
  const stop = () => child.kill('SIGTERM');
  signal.addEventListener('abort', stop, { once: true });
  // A second signal ends this process at once. It must end the program too, for which it is the second signal as well.
  process.on('exit', stop);
  onReload(() => child.kill('SIGHUP'));
  const [code] = (await once(child, 'exit')) as [number | null];
  signal.removeEventListener('abort', stop);
  process.off('exit', stop);
  return code ?? 1;
}
