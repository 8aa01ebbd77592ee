import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Events } from '../base/events.ts';

/**
 * The heap grows in small steps. The price is more garbage collections. One thread collects the young objects: a young
 * generation is so small here that the threads take longer to wake up than to work.
 */
const smallHeap = [
  '--semi-space-growth-factor=1',
  '--heap-growing-percent=20',
  '--no-parallel-scavenge',
] as const;
/** The old objects of a busy head-end are 20 MB: each collection comes after some 8 MB. */
const serverHeap = ['--semi-space-growth-factor=1', '--heap-growing-percent=40'] as const;
/**
 * V8's compilers in each phase of a gateway. The code of the optimizing compilers alone takes 3 MB when it is first used, and a
 * gateway that is idle needs no compiled code. While it starts, a function has to run ten times as often as usual until it is
 * compiled: only a gateway with thousands of devices has such functions. When it is idle, nothing is compiled: the functions
 * of Node's own timers would be, within minutes. Without Maglev, V8 takes the number for Turbofan to decide when it looks at a
 * function again, so this number is the one that Maglev has later: otherwise a gateway that becomes busy is compiled late, which
 * costs a tenth of its CPU. When it is busy, functions are compiled later than with V8's own numbers, 400
 * and 3000: with those the compilers take a tenth of the CPU of a storm of 1,500 devices more than their code saves.
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
    '--invocation-count-for-maglev=1000',
    '--invocation-count-for-maglev-osr=100',
    '--invocation-count-for-turbofan=10000',
    '--invocation-count-for-osr=500',
    '--baseline-batch-compilation-threshold=4096',
  ],
} as const;
/**
 * What makes a gateway busy: a number of events, those of some ten devices that attach, or so many milliseconds of CPU time of
 * the main thread within a period. Work without events, as in the tunnel, shows as CPU time. An idle gateway takes a tenth of it.
 */
const busyAfter = { events: 100, cpu: 100, period: 5000 } as const;
/**
 * The young generation of a busy gateway, in bytes: both halves. With the one of an idle gateway, an eighth of the CPU goes
 * into collections, since the objects of a session that waits are not young any more when it ends.
 */
const busyYoungBytes = 8 * 1024 * 1024;
/**
 * When the start has ended: the main thread used at most so many milliseconds of CPU time within a period, in milliseconds. The
 * collection stops the loop for 30 to 120 ms here, and everything that came in the meantime waits for it.
 */
const quiet = { cpu: 50, period: 1000 } as const;
/** Milliseconds between two looks at the size of the young generation of a server. */
const youngLook = 250;
/** Events between two looks at the size of the young generation: while it is small, and when it is large enough. */
const looks = { small: 50, large: 1000 } as const;

/** Milliseconds of CPU time that the main thread has used. */
function cpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

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

/**
 * Lets the young generation grow while it is small. V8 makes it grow after a collection that many objects survived, and
 * makes it small again by itself when the gateway is idle. Returns the number of events until the next look.
 */
function growYoung(): number {
  const young = getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space');
  const isSmall = young !== undefined && young.space_size < busyYoungBytes;
  setFlagsFromString(`--semi-space-growth-factor=${isSmall ? 2 : 1}`);
  return isSmall ? looks.small : looks.large;
}

/**
 * Bounds the garbage of a party that has the memory of a server. Under load V8 lets the young generation grow to 64 MB. Some of the
 * messages of a flood outlive it, and V8 collects old objects for the first time when they take more than another 64 MB. After one
 * collection the heap grows by the percentage from what is in use.
 */
export function boundGarbage(): void {
  for (const flag of serverHeap) setFlagsFromString(flag);
  collect();
  setInterval(growYoung, youngLook).unref();
}

/**
 * Events that let the compilers begin, and the young generation grow, when the gateway is busy. The first period of CPU time
 * does not count: the gateway starts in it.
 */
export function watchedForWork(inner: Events): Events {
  let count = 0;
  let nextLook: number = busyAfter.events;
  let before: number | undefined;
  setInterval(() => {
    const now = cpuTime();
    const used = before === undefined ? 0 : now - before;
    before = now;
    if (used <= busyAfter.cpu) return;
    enter('busy');
    growYoung();
  }, busyAfter.period).unref();
  return {
    emit: (name, fields) => {
      if (++count === busyAfter.events) enter('busy');
      if (count >= nextLook) nextLook = count + growYoung();
      inner.emit(name, fields);
    },
  };
}

/**
 * Ends the start: collects its garbage once, and stops the compilers unless there is much to do. Nothing else would collect for
 * hours in a gateway that is idle. Node gives no other way to ask for a collection without a flag on the command line.
 */
export function tidyUp(): void {
  collect();
  enter('idle');
}

function collect(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as (options: object) => void)({ type: 'major', flavor: 'last-resort' });
  setFlagsFromString('--no-expose-gc');
}

/**
 * Does `tidyUp` once, as soon as the gateway has nothing to do. A gateway that became busy before, as by all devices of a site
 * that start with it, needs none: it collects by itself.
 */
export function tidyUpWhenQuiet(): void {
  let before = cpuTime();
  const timer = setInterval(() => {
    const now = cpuTime();
    const used = now - before;
    before = now;
    if (phase !== 'busy' && used > quiet.cpu) return;
    clearInterval(timer);
    if (phase !== 'busy') tidyUp();
  }, quiet.period).unref();
}
