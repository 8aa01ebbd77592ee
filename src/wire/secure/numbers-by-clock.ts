import type { Clock } from '../../base/clock.ts';

/** Numbers for each second since 2026. */
const numbersPerSecond = 256;
const firstSecond = Date.UTC(2026, 0, 1) / 1000;
/** Half of the numbers of OSCORE. A clock that is decades ahead leaves the other half. */
const mostByClock = 2 ** 39;

/**
 * The least sequence number at which a sender begins in a new run of the process, whatever its state says: a state that was taken back
 * says too little, and nothing in it tells. No number is used twice as long as the clock is right and fewer than 256 a second are used.
 */
export const numbersByClock = (clock: Pick<Clock, 'wall'>): number =>
  Math.min(mostByClock, Math.max(0, Math.floor((clock.wall() / 1000 - firstSecond) * numbersPerSecond)));
