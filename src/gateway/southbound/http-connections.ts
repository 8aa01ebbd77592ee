import type { Socket } from 'node:net';
import { prefixOf } from '../../base/address-prefix.ts';
import type { Admission } from '../../base/admission.ts';

/** Most open connections. */
export interface ConnectionBounds {
  /** Of all addresses. */
  readonly total: number;
  /** Of all addresses where no device proved itself lately. The rest is for the others. */
  readonly strangers: number;
  /** Of one prefix of such addresses. */
  readonly perPrefix: number;
  /** Of one such address; four times as many of an address where a device proved itself lately. */
  readonly perAddress: number;
}

export const connectionDefaults: ConnectionBounds = {
  total: 512,
  strangers: 256,
  perPrefix: 128,
  perAddress: 32,
};

/** How many more connections an address may have where a device proved itself lately. */
const knownFactor = 4;

/** Address of the other side of a connection, with its zone; an IPv4 address in its own form. */
export const addressOf = ({ remoteAddress = '' }: Socket): string => remoteAddress.replace(/^::ffff:/, '');

/** The open connections of the HTTP binding. One beyond a bound is closed at once, before anything is read from it. */
export class HttpConnections {
  readonly #admission: Admission;
  readonly #bounds: ConnectionBounds;
  /** By address, by prefix of strangers, of strangers, and of all. */
  readonly #counts = new Map<string, number>();

  constructor(admission: Admission, bounds: ConnectionBounds) {
    this.#admission = admission;
    this.#bounds = bounds;
  }

  /** Takes a connection. Returns whether it stays open. */
  opened(socket: Socket): boolean {
    const { total, strangers, perPrefix, perAddress } = this.#bounds;
    const address = addressOf(socket);
    const isKnown = this.#admission.isKnown(address);
    const bounds: [string, number][] = [
      ['', total],
      [address, isKnown ? knownFactor * perAddress : perAddress],
    ];
    if (!isKnown) bounds.push(['stranger', strangers], [`/${prefixOf(address)}`, perPrefix]);
    if (bounds.some(([name, most]) => (this.#counts.get(name) ?? 0) >= most)) {
      this.#admission.refusedConnection(address);
      socket.destroy();
      return false;
    }
    for (const [name] of bounds) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    socket.once('close', () => {
      for (const [name] of bounds) {
        const left = (this.#counts.get(name) ?? 1) - 1;
        if (left > 0) this.#counts.set(name, left);
        else this.#counts.delete(name);
      }
    });
    return true;
  }
}
