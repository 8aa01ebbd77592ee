import { failed, guarded } from './background.ts';
import type { Database } from './database.ts';
import { asPosternError } from './errors.ts';
import type { Events } from './events.ts';

/**
 * Does what a start has to write, such as what the configuration has changed. On a disk that takes no writes the program starts all
 * the same. The work is then done as soon as the disk takes writes.
 * @param work may be done twice
 */
export function writeAtStart(database: Database, events: Events, work: () => void): void {
  let isDone = false;
  const attempt = () => {
    try {
      work();
      isDone = true;
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'storage') throw thrown;
      failed(events, 'state', thrown);
    }
  };
  attempt();
  if (isDone) return;
  const again = guarded(events, 'state', attempt);
  database.onFault((fault) => {
    if (!fault && !isDone) again();
  });
}
