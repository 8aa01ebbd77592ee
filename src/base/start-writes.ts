import { failed, guarded } from './background.ts';
import type { Clock, Timer } from './clock.ts';
import type { Database } from './database.ts';
import { asPosternError } from './errors.ts';
import type { Events } from './events.ts';

/** Milliseconds until the work is tried again. Each pause is twice as long as the one before, up to `most`. */
const pauses = { first: 5000, most: 300_000 } as const;

export interface StartWrites {
  readonly database: Database;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Does what a start has to write, such as what the configuration has changed. On a disk that takes no writes the program starts all
 * the same. The work is then done as soon as the disk takes writes. It is also tried again by the clock: in a party that writes nothing
 * else, nobody would notice that the disk takes writes again.
 * @param work may be done twice
 */
export function writeAtStart({ database, clock, events }: StartWrites, work: () => void): void {
  let isDone = false;
  let timer: Timer | undefined;
  let pause: number = pauses.first;
  const attempt = () => {
    timer?.cancel();
    if (isDone) return;
    try {
      work();
      isDone = true;
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      failed(events, 'state', thrown);
      timer = clock.after(pause, again);
      pause = Math.min(2 * pause, pauses.most);
    }
  };
  const again = guarded(events, 'state', attempt);
  attempt();
  if (isDone) return;
  database.onClose(() => timer?.cancel());
  database.onFault((fault) => {
    if (!fault) again();
  });
}
