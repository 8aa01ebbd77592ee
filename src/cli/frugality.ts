import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Events } from '../base/events.ts';

/** The heap grows in small steps. The price is more garbage collections. */
const smallHeap = ['--semi-space-growth-factor=1', '--heap-growing-percent=20'] as const;
/**
 * How often a function runs before an optimizing compiler takes it, and how much code the baseline compiler takes at once: in a gateway that is idle, and V8's own numbers. An idle
 * gateway needs no optimized code, and the code of the compilers alone takes 6 MB when it is first used.
 */
const tiers = {
  'invocation-count-for-maglev': { idle: 4000, busy: 400 },
  'invocation-count-for-maglev-osr': { idle: 4000, busy: 100 },
  'invocation-count-for-turbofan': { idle: 30_000, busy: 3000 },
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

/** Events that let the compilers begin as usual when the gateway is busy. */
export function watchedForWork(inner: Events): Events {
  let count = 0;
  return {
    emit: (name, fields) => {
      if (++count === busyAfter) compile('busy');
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
