import { prefixOf, senderOf } from '../../base/address-prefix.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import { matchesDevice } from '../../base/device-pattern.ts';
import type { Events } from '../../base/events.ts';
import { FairBudget } from '../../base/fair-budget.ts';
import { type Rate, TokenBuckets } from '../../base/token-buckets.ts';
import { ToldCauses } from '../../base/told-causes.ts';

/** Which devices that the gateway does not know may use the tunnel. */
export interface TunnelDevices {
  /** DevIds, or beginnings of DevIds followed by `*`. */
  readonly patterns: readonly string[];
  /** Packages per minute of all these devices together. */
  readonly rate: number;
}

export interface TunnelPolicyParts {
  /** Whether the gateway knows a device: it has an account, a secret or a record of it, or expects it. */
  readonly isKnown: (deviceId: string) => boolean;
  /** How many devices the gateway knows. */
  readonly knownDevices: () => number;
  readonly devices: () => TunnelDevices;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Packages of devices that the gateway knows, from where they have not proved themselves: of one name and address; of one
 * address; of all. After a power cut all devices come at once, and each needs two packages until it is accepted, so the burst
 * of all grows with their number (`burstOf`).
 */
const known = {
  one: { rate: 0.5, burst: 16 },
  own: { rate: 1, burst: 16 },
  all: { rate: 20, burst: 256 },
} as const;
/** Packages of all known devices at once: two for each, in powers of two, so that the budget is seldom begun anew. */
const burstOf = (devices: number): number =>
  Math.max(known.all.burst, 2 ** Math.ceil(Math.log2(Math.max(1, 2 * devices))));
/** Parts of the rate of unknown devices, and of its burst, that one address has, before it shares a tenth with others. */
const addressShare = { rate: 1 / 20, burst: 1 / 10 } as const;
/** Largest package of a device from where it has not proved itself, in bytes. */
export const unprovenPackageBytes = 16 * 1024;
/** Names with their addresses, addresses, networks, and devices with where they were accepted, that are remembered. */
const limits = { names: 4096, addresses: 4096, networks: 1024, accepted: 16_384 } as const;
/** Reports of refusals, each by its reason. */
const reports = { period: 600_000, causes: 8 } as const;
/** Seconds after which a device may try again. */
const retryAfter = 30;

const unknownDevice =
  'this gateway does not know the device: list it in bootstrap.device or http.device, or let its DevId match tunnel.devices';
const tooMany = 'too many packages of devices that have not proved themselves';
/** What helps, for the event. The answer says the same for all devices, so that it tells nobody which ones the gateway knows. */
const tooManyKnown = `${tooMany}, in the names of devices that this gateway knows; they get through later`;
const tooManyUnknown = `${tooMany}: list the device in bootstrap.device or http.device, or raise tunnel.device-rate`;

/** Why a package is not forwarded. `status` is a DM status; `retryAfter` is in seconds. */
export interface TunnelRefusal {
  readonly status: number;
  readonly reason: string;
  readonly retryAfter?: number;
}

/**
 * Which packages go through the tunnel. A device from where the DM server has accepted it, or where it has proved itself to
 * the gateway, is free. Anyone may send packages in the name of a device from elsewhere, so these have a rate, and so do all
 * devices together that the gateway does not know. An address that sends many gets its share of a tenth of these rates.
 */
export class TunnelPolicy {
  readonly #parts: TunnelPolicyParts;
  /** Where the DM server has accepted a device last. */
  readonly #accepted = new BoundedMap<string, string>(limits.accepted);
  readonly #names = new TokenBuckets(known.one, limits.names);
  #known: { readonly burst: number; readonly total: FairBudget } | undefined;
  #strangers:
    | { readonly rate: Rate; readonly total: FairBudget; readonly networks: TokenBuckets }
    | undefined;
  readonly #reports: ToldCauses;

  constructor(parts: TunnelPolicyParts) {
    this.#parts = parts;
    this.#reports = new ToldCauses(reports, parts.clock);
  }

  /** Notes that the DM server has accepted a device at a place: address and port, over HTTP the address. */
  accept(device: string, place: string): void {
    this.#accepted.set(device, place);
  }

  /** Whether the DM server has accepted the device at this place. */
  hasAccepted(device: string, place: string): boolean {
    return this.#accepted.get(device) === place;
  }

  /** Whether a device may use the tunnel: the gateway knows it, or it is one of `tunnel.devices`. */
  admits(device: string): boolean {
    return (
      this.#parts.isKnown(device) ||
      this.#parts.devices().patterns.some((pattern) => matchesDevice(pattern, device))
    );
  }

  /** Why a package of a device that has not proved itself where the package comes from is refused; undefined when it is not. */
  refusalOf(device: string, address: string, bytes: number): TunnelRefusal | undefined {
    if (bytes > unprovenPackageBytes)
      return { status: 413, reason: `more than ${unprovenPackageBytes} bytes before the device is accepted` };
    if (!this.admits(device)) {
      this.#report(unknownDevice, device, address);
      return { status: 403, reason: unknownDevice };
    }
    const isKnown = this.#parts.isKnown(device);
    if (isKnown ? this.#takeKnown(device, address) : this.#takeStranger(address)) return undefined;
    this.#report(isKnown ? tooManyKnown : tooManyUnknown, device, address);
    return { status: 503, reason: tooMany, retryAfter };
  }

  #takeKnown(device: string, address: string): boolean {
    const now = this.#parts.clock.now();
    const burst = burstOf(this.#parts.knownDevices());
    if (this.#known?.burst !== burst) {
      const rates = { own: known.own, all: { ...known.all, burst } };
      this.#known = { burst, total: new FairBudget(rates, limits.addresses, now) };
    }
    return (
      this.#names.of(`${address} ${device}`, now).take(known.one, now) &&
      this.#known.total.take(senderOf(address), now)
    );
  }

  #takeStranger(address: string): boolean {
    const { rate: perMinute } = this.#parts.devices();
    const now = this.#parts.clock.now();
    const rate = { rate: perMinute / 60, burst: Math.max(1, perMinute) };
    if (this.#strangers?.rate.burst !== rate.burst) {
      const share = { rate: rate.rate / 2, burst: Math.ceil(rate.burst / 2) };
      const networks = new TokenBuckets(share, limits.networks);
      const own = {
        rate: rate.rate * addressShare.rate,
        burst: Math.ceil(rate.burst * addressShare.burst),
      };
      this.#strangers = { rate, total: new FairBudget({ own, all: rate }, limits.addresses, now), networks };
    }
    const { total, networks } = this.#strangers;
    return (
      total.has(senderOf(address), now) &&
      networks.of(prefixOf(address), now).take(networks.rate, now) &&
      total.take(senderOf(address), now)
    );
  }

  #report(reason: string, device: string, peer: string): void {
    const refused = this.#reports.count(reason);
    if (refused !== undefined)
      this.#parts.events.emit('tunnel.device-refused', { device, peer, reason, refused });
  }
}
