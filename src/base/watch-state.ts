import { failed, guarded } from './background.ts';
import type { Clock, Timer } from './clock.ts';
import type { Database } from './database.ts';
import type { Events } from './events.ts';
import { OutdatedState } from './read-only-state.ts';
import { onSetAside, type SetAside } from './rows.ts';

/** Milliseconds between two looks whether a read-only disk takes writes again. */
const lookAgain = 5000;

/**
 * Tells the operator of the state of a party: what was done when it was opened, which rows cannot be read, and when it
 * cannot be written. Starts its periodic copies: when the disk was read-only, as soon as it takes writes again.
 * @param setAside called for rows that cannot be read, after their event
 * @param outdated called when the disk was read-only, and has another state now that it takes writes again
 */
export function watchState(
  database: Database,
  file: string,
  clock: Clock,
  events: Events,
  setAside?: (found: SetAside) => void,
  outdated?: () => void,
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
  const startCopies = () => database.file?.copies?.start(clock, events);
  if (!database.isReadOnly) {
    startCopies();
    return;
  }
  let timer: Timer | undefined;
  const look = () => {
    database.reopen();
    if (!database.isReadOnly) startCopies();
    else if (database.fault?.cause instanceof OutdatedState) outdated?.();
    else arm();
  };
  const arm = () => {
    timer = clock.after(lookAgain, guarded(events, 'state', look));
  };
  database.onClose(() => timer?.cancel());
  arm();
}
