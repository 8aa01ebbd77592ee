import { failed, guarded } from './background.ts';
import type { Clock } from './clock.ts';
import type { Database } from './database.ts';
import type { Events } from './events.ts';
import { onSetAside, type SetAside } from './rows.ts';

/**
 * Tells the operator of the state of a party: what was done when it was opened, which rows cannot be read, and when it
 * cannot be written. Starts its periodic copies.
 * @param setAside called for rows that cannot be read, after their event
 */
export function watchState(
  database: Database,
  file: string,
  clock: Clock,
  events: Events,
  setAside?: (found: SetAside) => void,
): void {
  database.onStepFailed((thrown) => failed(events, 'state', thrown));
  onSetAside(
    database,
    guarded(events, 'state', (found: SetAside) => {
      events.emit('state.row-set-aside', found);
      setAside?.(found);
    }),
  );
  const recovery = database.file?.recovery;
  if (recovery) {
    const { reason, aside = 'nothing', used = 'a new, empty state', since = 'the first start' } = recovery;
    events.emit('state.corrupt', { file, reason, aside, used, since });
  }
  let failingSince = clock.now();
  database.onFault((fault) => {
    const now = clock.now();
    if (fault) events.emit('state.failing', { reason: fault.message });
    else events.emit('state.writable', { seconds: Math.round((now - failingSince) / 1000) });
    failingSince = now;
  });
  database.file?.copies?.start(clock, events);
}
