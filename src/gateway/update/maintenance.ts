import type { Wall } from '../../base/clock.ts';

const minute = 60_000;
const day = 24 * 60 * minute;

/** A window of each day: `02:00-04:00`, in UTC. It may pass midnight. */
export const windowForm = /^([01]\d|2[0-3]):([0-5]\d)-(?!\1:\2)([01]\d|2[0-3]):([0-5]\d)$/;

/**
 * Milliseconds until a maintenance window opens; 0 while it is open.
 * @param window as `windowForm` has it
 */
export function untilOpen(window: string, wall: Wall): number {
  const [, ...numbers] = windowForm.exec(window) ?? [];
  const [hour = 0, min = 0, endHour = 0, endMin = 0] = numbers.map(Number);
  const opens = (hour * 60 + min) * minute;
  const after = (time: number) => (((time - opens) % day) + day) % day;
  const since = after(wall);
  return since < after((endHour * 60 + endMin) * minute) ? 0 : day - since;
}
