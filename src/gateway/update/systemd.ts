import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Watchdog, type WatchdogParts } from './watchdog.ts';

/** Feedings, of five seconds each, to a message to systemd. `WatchdogSec` of the unit is longer. */
const turns = 3;

/**
 * The watchdog of systemd, where it runs this process as a unit of `Type=notify` (sd_notify(3)). The first message says that the
 * gateway is ready too. Node has no datagrams of Unix sockets, so the program of systemd sends the message.
 */
export function systemdWatchdog(parts: Omit<WatchdogParts, 'device'>): Watchdog[] {
  if (process.env.NOTIFY_SOCKET === undefined) return [];
  let turn = 0;
  const device = async () => {
    if (turn++ % turns === 0)
      await promisify(execFile)('systemd-notify', ['READY=1', 'WATCHDOG=1'], { timeout: 15_000 });
  };
  return [new Watchdog({ ...parts, device })];
}
