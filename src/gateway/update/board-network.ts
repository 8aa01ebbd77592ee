import { readFileSync } from 'node:fs';
import type { Events } from '../../base/events.ts';
import type { Reports } from '../northbound/reports.ts';

/** What the board says when it has the network that was configured. */
const asConfigured = 'configured';

/**
 * Tells upstream that the board has left the network of its configuration, because it had no way up by that. Root says in a file
 * which turn the board has taken (firmware-image, script `network`): `configured`, `dhcp`, or the name of an interface.
 */
export class BoardNetwork {
  readonly #file: string;
  readonly #reports: Pick<Reports, 'fault'>;
  readonly #events: Events;
  #told = asConfigured;

  constructor(file: string, reports: Pick<Reports, 'fault'>, events: Events) {
    this.#file = file;
    this.#reports = reports;
    this.#events = events;
  }

  /** To be called when there is a way up. Each turn is told once. */
  tell(): void {
    let uplink: string;
    try {
      uplink = readFileSync(this.#file, 'utf8').trim();
    } catch {
      // Without a table [network] there are no turns.
      return;
    }
    if (uplink === this.#told) return;
    this.#told = uplink;
    if (uplink === asConfigured) return;
    this.#events.emit('network.fell-back', { uplink });
    this.#reports.fault('network', {
      kind: 'network',
      reason: `no way up by the network that is configured; the board uses ${uplink}`,
    });
  }
}
