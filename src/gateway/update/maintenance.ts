import type { Wall } from '../../base/clock.ts';

const day = 86_400_000;

/** A window of each day: `02:00-04:00`, in UTC. It may pass midnight. */
export const windowForm = /^([01]\d|2[0-3]):([0-5]\d)-(?!\1:\2)([01]\d|2[0-3]):([0-5]\d)$/;

/**
 * Milliseconds until a maintenance window opens; 0 while it is open.
 * @param window as `windowForm` has it
 */
export function untilOpen(window: string, wall: Wall): number {
  const [opens = 0, closes = 0] = window.split('-').map((time) => Date.parse(`1970-01-01T${time}Z`));
  const since = (wall + day - opens) % day;
  return since < (closes + day - opens) % day ? 0 : day - since;
}
