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
/**
 * The young generation of a busy gateway, in bytes: both halves. With the one of an idle gateway, an eighth of the CPU goes
 * into collections, since the objects of a session that waits are not young any more when it ends.
 */
const busyYoungBytes = 8 * 1024 * 1024;
/** Events between two looks at the size of the young generation: while it is small, and when it is large enough. */
const looks = { small: 50, large: 1000 } as const;
/**
 * How often a function runs before an optimizing compiler takes it, and how much code the baseline compiler takes at once:
 * in a gateway that is idle, and in one that is busy. An idle gateway needs no optimized code, and the code of the compilers
 * alone takes 6 MB when it is first used. With V8's own numbers, 400 and 3000, the compilers take a tenth of the CPU of a
 * storm of 1,500 devices more than their code saves.
 */
const tiers = {
  'invocation-count-for-maglev': { idle: 4000, busy: 1000 },
  'invocation-count-for-maglev-osr': { idle: 4000, busy: 100 },
  'invocation-count-for-turbofan': { idle: 30_000, busy: 10_000 },
  'invocation-count-for-osr': { idle: 20_000, busy: 500 },
  'baseline-batch-compilation-threshold': { idle: 1_000_000, busy: 4096 },
} as const;
/** Number of events after which a gateway counts as busy: those of some ten devices that attach. */
const busyAfter = 100;

const compile = (when: 'idle' | 'busy'): void => {
  for (const [flag, count] of Object.entries(tiers)) setFlagsFromString(`--${flag}=${count[when]}`);
};

/** Sets V8 up for a machine with little memory. To be called before anything else. */
export function beFrugal(): void {
  for (const flag of smallHeap) setFlagsFromString(flag);
  compile('idle');
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

/** Events that let the compilers begin as usual, and the young generation grow, when the gateway is busy. */
export function watchedForWork(inner: Events): Events {
  let count = 0;
  let nextLook: number = busyAfter;
  return {
    emit: (name, fields) => {
      if (++count === busyAfter) compile('busy');
      if (count >= nextLook) nextLook = count + growYoung();
      inner.emit(name, fields);
    },
  };
}

/**
 * Collects the garbage of the start once. Nothing else would for hours in a gateway that is idle. Node gives no other way to
 * ask for a collection without a flag on the command line.
 */
export function tidyUp(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as (options: object) => void)({ type: 'major', flavor: 'last-resort' });
  setFlagsFromString('--no-expose-gc');
}
