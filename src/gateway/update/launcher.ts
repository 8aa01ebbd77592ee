import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { backoff } from '../../base/retry.ts';
import { type BootStateCopies, otherSlot, type SlotName } from './boot-state.ts';
import { bootStateOf, programOf, restartExitCode, slotVariable } from './directory-slots.ts';

export interface LauncherParts {
  readonly directory: string;
  /** The program that fills slot A when no slot has one. */
  readonly ownProgram: string;
  /** Arguments for the program of a slot. */
  readonly args: readonly string[];
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

const retry = { first: 1000, cap: 30_000, jitter: 0.25 } as const;

/** What a boot loader decides: the slot to start, and whether it is being tried. Counts its starts down. */
export function chooseSlot(boot: BootStateCopies): { slot: SlotName; isTried: boolean } {
  const { good, trying, left } = boot.read();
  if (trying === undefined) return { slot: good, isTried: false };
  if (left > 0) {
    boot.change({ left: left - 1 });
    return { slot: trying, isTried: true };
  }
  boot.change({ trying: undefined, failed: trying });
  return { slot: good, isTried: false };
}

/**
 * Starts the program of a slot, as U-Boot starts a slot of the firmware image, until the program ends well or the signal is
 * aborted. A slot that is tried and ends badly has one start less; a good one is started again, after a while.
 * @throws {PosternError} `configuration` when no slot has a program
 */
export async function launch(parts: LauncherParts, signal: AbortSignal): Promise<void> {
  const { directory, ownProgram, args, clock, entropy, events } = parts;
  const first = programOf(directory, 'A');
  const boot = bootStateOf(directory);
  if (!existsSync(first) && !existsSync(programOf(directory, 'B'))) {
    mkdirSync(dirname(first), { recursive: true, mode: 0o700 });
    copyFileSync(ownProgram, first);
  }
  let delays = backoff(retry, entropy);
  while (!signal.aborted) {
    const { slot, isTried } = chooseSlot(boot);
    const chosen = [slot, otherSlot(slot)].find((one) => existsSync(programOf(directory, one)));
    if (!chosen) throw new PosternError('configuration', `no slot in ${directory} has a program`);
    events.emit('slot.starting', { slot: chosen, tried: isTried });
    const begun = clock.now();
    const code = await runProgram(programOf(directory, chosen), chosen, args, signal);
    if (code === 0 || signal.aborted) return;
    if (code === restartExitCode) continue;
    events.emit('slot.ended', { slot: chosen, code });
    if (isTried) continue;
    if (clock.now() - begun > retry.cap) delays = backoff(retry, entropy);
    await pause(clock, delays.next().value, signal).catch(() => {});
  }
}

async function runProgram(
  program: string,
  slot: SlotName,
  args: readonly string[],
  signal: AbortSignal,
): Promise<number> {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [slotVariable]: slot },
  });
  const stop = () => child.kill('SIGTERM');
  signal.addEventListener('abort', stop, { once: true });
  const [code] = (await once(child, 'exit')) as [number | null];
  signal.removeEventListener('abort', stop);
  return code ?? 1;
}
