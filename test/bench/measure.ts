import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

/** The machine as figures name it: cores and clock, and nothing else. */
export function machine(): string {
  const megahertz = /cpu MHz\s*:\s*([\d.]+)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  const clock = megahertz === undefined ? '' : `, ${(Number(megahertz) / 1000).toFixed(1)} GHz`;
  return `${cpus().length} cores${clock}`;
}

interface Process {
  readonly pid?: number | undefined;
}

/** Clock ticks per second of /proc/PID/stat. */
const ticks = 100;

/** CPU time of a process so far, in seconds: user and system. */
export function cpuSeconds({ pid }: Process): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

/** Resident memory of a process in MB (2^20 bytes): now (`VmRSS`), or at its highest (`VmHWM`). */
export const residentMegabytes = ({ pid }: Process, what: 'VmRSS' | 'VmHWM' = 'VmRSS'): number =>
  Number(new RegExp(`${what}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

/** Ratios of two contenders, round by round. Both were measured in the same rounds. */
export const ratios = (ones: readonly number[], others: readonly number[]): number[] =>
  ones.map((one, round) => one / others[round]!);

/**
 * Waits for work. What goes on after the time is up is not stopped.
 * @throws {Error} when it takes longer than so many seconds
 */
export async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`no end after ${seconds} s`)), seconds * 1000);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}
