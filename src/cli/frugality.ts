import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Events } from '../base/events.ts';

/** The heap grows in small steps. The price is more garbage collections. */
const smallHeap = ['--semi-space-growth-factor=1', '--heap-growing-percent=20'] as const;
/**
 * V8's compilers in each phase of a gateway. The code of the optimizing compilers alone takes 3 MB when it is first used, and a
 * gateway that is idle needs no compiled code.
 * - While it starts, a function has to run ten times as often as usual until it is compiled. Only a gateway with thousands of
 *   devices has such functions.
 * - While it is idle, nothing is compiled. Otherwise the functions of Node's timers would be, within minutes. The number says
 *   when V8 looks at a function again, and therefore how soon the functions are compiled when the gateway becomes busy.
 * - When it is busy, V8's own numbers hold.
 */
const phases = {
  start: [
    '--invocation-count-for-maglev=4000',
    '--invocation-count-for-maglev-osr=4000',
    '--invocation-count-for-turbofan=30000',
    '--invocation-count-for-osr=20000',
    '--baseline-batch-compilation-threshold=1000000',
  ],
  idle: ['--no-maglev', '--no-turbofan', '--invocation-count-for-turbofan=1000'],
  busy: [
    '--maglev',
    '--turbofan',
    '--invocation-count-for-maglev=400',
    '--invocation-count-for-maglev-osr=100',
    '--invocation-count-for-turbofan=3000',
    '--invocation-count-for-osr=500',
    '--baseline-batch-compilation-threshold=4096',
  ],
} as const;
/**
 * What makes a gateway busy: a number of events, those of some ten devices that attach, or so many milliseconds of CPU time of
 * the main thread within a period. Work without events, as in the tunnel, shows as CPU time. An idle gateway takes a tenth of it.
 */
const busyAfter = { events: 100, cpu: 100, period: 5000 } as const;

let phase: keyof typeof phases = 'start';

/** A gateway that was busy once stays so. */
function enter(next: keyof typeof phases): void {
  if (phase === 'busy') return;
  phase = next;
  for (const flag of phases[next]) setFlagsFromString(flag);
}

/** Sets V8 up for a machine with little memory. To be called before anything else. */
export function beFrugal(): void {
  for (const flag of smallHeap) setFlagsFromString(flag);
  enter('start');
}

/** Events that let the compilers begin when the gateway is busy. The first period does not count: the gateway starts in it. */
export function watchedForWork(inner: Events): Events {
  let count = 0;
  let before: NodeJS.CpuUsage | undefined;
  const timer = setInterval(() => {
    const now = process.threadCpuUsage();
    const used = before && now.user + now.system - before.user - before.system;
    if (used !== undefined && used > busyAfter.cpu * 1000) enter('busy');
    if (phase === 'busy') clearInterval(timer);
    before = now;
  }, busyAfter.period).unref();
  return {
    emit: (name, fields) => {
      if (++count === busyAfter.events) enter('busy');
      inner.emit(name, fields);
    },
  };
}

/**
 * Ends the start: collects its garbage once, and stops the compilers unless there is much to do. Nothing else would collect for
 * hours in a gateway that is idle. Node gives no other way to ask for a collection without a flag on the command line.
 */
export function tidyUp(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as (options: object) => void)({ type: 'major', flavor: 'last-resort' });
  setFlagsFromString('--no-expose-gc');
  enter('idle');
}
