import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Watchdog, type WatchdogParts } from './watchdog.ts';

/** Milliseconds between two messages to systemd. `WatchdogSec` of the unit is longer. */
const every = 15_000;

/**
 * The watchdog of systemd, where it runs this process as a unit of `Type=notify` (sd_notify(3)). The first message says that the
 * gateway is ready too. Node has no datagrams of Unix sockets, so the program of systemd sends the message.
 */
export function systemdWatchdog(parts: Omit<WatchdogParts, 'device'>): Watchdog[] {
  if (process.env.NOTIFY_SOCKET === undefined) return [];
  let next = Number.NEGATIVE_INFINITY;
  const device = async () => {
    const now = parts.clock.now();
    if (now < next) return;
    await promisify(execFile)('systemd-notify', ['READY=1', 'WATCHDOG=1'], { timeout: every });
    next = now + every;
  };
  return [new Watchdog({ ...parts, device })];
}
