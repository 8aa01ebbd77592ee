import type { Database } from '../base/database.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { nodeAt, type Vocabulary } from '../mo/vocabulary.ts';
import type { Notifier } from './notifier.ts';
import type { Parties } from './parties.ts';
import type { Reachability } from './reachability.ts';

export interface PendingDetachesParts {
  readonly database: Database;
  readonly parties: Parties;
  readonly reachability: Reachability;
  readonly notifier: Notifier;
  readonly vocabulary: Vocabulary;
  readonly events: Events;
}

/** Devices that one session with a gateway detaches at most. Further devices wait for the gateway's next session. */
const detachesPerSession = 64;

/**
 * Detaches devices from their old gateways after the devices have moved to another one (GwMO section 8.4.1, figure
 * 10). The list is durable: an old gateway that is offline is told when it is online again.
 */
export class PendingDetaches {
  readonly #parts: PendingDetachesParts;

  constructor(parts: PendingDetachesParts) {
    this.#parts = parts;
  }

  /**
   * Records that a gateway must detach a device. Joins the caller's transaction. When it is stored, asks the gateway for
   * a session if it is online.
   */
  add(gateway: string, device: string): void {
    const { database, reachability, events } = this.#parts;
    database
      .prepare('INSERT OR IGNORE INTO pending_detach (gateway, device) VALUES (?, ?)')
      .run(gateway, device);
    database.afterCommit(() => {
      events.emit('device.moved', { device, from: gateway });
      if (reachability.isOnline(this.#brokerGatewayFor(gateway))) this.#requestSession(gateway);
    });
  }

  /** Removes an entry: the gateway has detached the device, or the device is attached to this gateway again. */
  drop(gateway: string, device: string): void {
    this.#parts.database
      .prepare('DELETE FROM pending_detach WHERE gateway = ? AND device = ?')
      .run(gateway, device);
  }

  /** Asks a gateway that has come online for a session if it has devices to detach. */
  gatewayOnline(gateway: string): void {
    if (this.#parts.parties.get(gateway) && this.#devicesOf(gateway).length > 0)
      this.#requestSession(gateway);
  }

  /** In a session with a gateway: deletes the inventory records of devices that the gateway must detach. */
  async *work(gateway: string): Work {
    const { vocabulary, events } = this.#parts;
    const devices = this.#devicesOf(gateway);
    if (devices.length === 0) return;
    const outcomes = yield devices.map((device) => ({
      name: 'Delete' as const,
      uri: `${nodeAt(vocabulary, 'GwDeviceInventory', 'Records')}/${hashedName(device)}`,
    }));
    for (const [at, device] of devices.entries()) {
      const status = outcomes[at]?.status ?? 0;
      // A 404 means that the gateway has already detached the device.
      if (!isOk(status) && status !== DmStatus.NotFound) continue;
      this.drop(gateway, device);
      events.emit('device.let-go', { device, gateway, status });
    }
  }

  #devicesOf(gateway: string): string[] {
    return this.#parts.database
      .prepare('SELECT device FROM pending_detach WHERE gateway = ? ORDER BY device LIMIT ?')
      .all(gateway, detachesPerSession)
      .map(({ device }) => String(device));
  }

  /** Does not wait. If it fails, the entries stay until the gateway opens a session for another reason. */
  #requestSession(gateway: string): void {
    this.#parts.notifier.ask(gateway, this.#brokerGatewayFor(gateway));
  }

  #brokerGatewayFor(gateway: string): string {
    return this.#parts.reachability.wayTo(gateway) ?? gateway;
  }
}
