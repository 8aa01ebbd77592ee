import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import type { Operation, Work } from '../dm/server-session.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import { expectationOf } from './assisted-bootstrap.ts';
import type { Notifier } from './notifier.ts';
import { type ReleaseParts, releaseDevices } from './released-devices.ts';

export interface HandoversParts extends ReleaseParts {
  readonly database: Database;
  readonly entropy: Entropy;
  readonly vocabulary: Vocabulary;
  readonly notifier: Notifier;
  readonly events: Events;
  /** Whether this server bootstraps devices to gateways. */
  readonly bootstraps: () => boolean;
}

/** Devices that one session with a gateway hands over at most. Further devices wait for its next session. */
const devicesPerSession = 64;

/**
 * Hands the devices of a board that was replaced to the new board: those with an account for this server become expected
 * devices there. The new board then knows them, so it serves them in the tunnel, and the session of each of them gives it
 * its account for the new board. Devices of the new board's own list of factory secrets need nothing: they bootstrap anew.
 * The list is durable, and has at most the devices that were attached to the old board.
 */
export class Handovers {
  readonly #parts: HandoversParts;

  constructor(parts: HandoversParts) {
    this.#parts = parts;
  }

  /** Another board has the name of this gateway now: no device is attached to it yet. Joins the caller's transaction. */
  replaced(gateway: string): void {
    const { database, parties, events } = this.#parts;
    const devices = releaseDevices(gateway, this.#parts);
    for (const device of devices)
      if (parties.get(device)?.kind === 'device')
        database
          .prepare('INSERT OR IGNORE INTO handover (gateway, device) VALUES (?, ?)')
          .run(gateway, device);
    database.afterCommit(() => events.emit('gateway.replaced', { gateway, devices: devices.length }));
  }

  /** Asks a gateway that has come online for a session if it has devices to be told. */
  gatewayOnline(gateway: string): void {
    if (this.#devicesOf(gateway).length > 0) this.#parts.notifier.ask(gateway, gateway);
  }

  /** In a session with a gateway: tells it which devices to expect. A device that it refuses is bootstrapped in its own session. */
  async *work(gateway: string): Work {
    const { parties, bootstraps, events } = this.#parts;
    const devices = this.#devicesOf(gateway);
    if (devices.length === 0) return;
    const wanted = devices.filter((device) => bootstraps() && parties.gatewayOf(device) === undefined);
    if (wanted.length > 0) yield wanted.map((device): Operation => expectationOf(this.#parts, device).add);
    for (const device of devices)
      this.#parts.database
        .prepare('DELETE FROM handover WHERE gateway = ? AND device = ?')
        .run(gateway, device);
    events.emit('gateway.handed-over', { gateway, devices: wanted.length });
  }

  #devicesOf(gateway: string): string[] {
    return this.#parts.database
      .prepare('SELECT device FROM handover WHERE gateway = ? ORDER BY device LIMIT ?')
      .all(gateway, devicesPerSession)
      .map(({ device }) => String(device));
  }
}
