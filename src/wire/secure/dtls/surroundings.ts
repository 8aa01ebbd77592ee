import type { Clock } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import type { Place } from './association.ts';
import type { TimerWheel } from './timer-wheel.ts';

/** What all handshakes of an endpoint share. */
export interface Surroundings {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly wheel: TimerWheel;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, place: Place) => void;
  /** Gets the master secret in the format of NSS, for analysers of captures. */
  readonly keyLog: ((line: string) => void) | undefined;
}
