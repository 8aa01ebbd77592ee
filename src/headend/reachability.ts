import { BoundedMap } from '../base/bounded-map.ts';
import type { GatewayState } from '../wire/tunnel/gateway-state.ts';
import type { Parties } from './parties.ts';
import type { Unreachable, UnreachableDevices } from './unreachable-devices.ts';

/** A gateway as the HTTP API shows it. */
export interface GatewayView {
  readonly id: string;
  /** Whether it has an account for this server. */
  readonly known: boolean;
  /** Undefined until the gateway has published its state. */
  readonly online: boolean | undefined;
  /** Version of the gateway's software, as the gateway reports it. */
  readonly software: string | undefined;
  /** What the gateway says is wrong with its uplink or its state file. Undefined when it reports nothing. */
  readonly problem: string | undefined;
  /** When two boards were last seen under this name, ISO 8601. Present for an hour. */
  readonly cloned?: string;
  /** Messages of it that were not looked at, because it sends too many. Absent when there were none. */
  readonly refused?: number;
}

/** A device as the HTTP API shows it. */
export interface DeviceView {
  /** DevId. */
  readonly id: string;
  /** True when the device has an account for this server, so that this server can manage it directly. */
  readonly known: boolean;
  /**
   * The gateway that the device is attached to. For a device that is not attached: the gateway through which it has last
   * proved itself.
   */
  readonly gateway: string | undefined;
  readonly attached: boolean;
  /** Why the gateway cannot reach the device, for a person. Present only while it cannot. */
  readonly unreachable?: string;
  /** When an unreachable device was last heard, by its gateway's clock, ISO 8601. */
  readonly lastHeard?: string;
}

/**
 * Parties whose broker gateway is remembered, and gateways whose state is remembered: the oldest entry is dropped. Gateways
 * above one another, as in the header of the tunnel (docs/bindings.md).
 */
const limits = { parties: 65_536, gateways: 65_536, depth: 5 } as const;

/**
 * Knows through which gateway each party is reached, and which gateways are online.
 *
 * A broker gateway is a gateway with its own connection to the MQTT broker. A device can be behind a child gateway
 * that has no connection of its own; Package #0 for both then goes to the broker gateway above the child gateway.
 * This state is not durable: after a restart it follows from the associations of the devices, until packages and alerts
 * correct it.
 */
export class Reachability {
  readonly #parties: Parties;
  readonly #unreachable: UnreachableDevices;
  /** Ways by which parties have proved themselves here: at most as many as have an account. */
  readonly #proved = new BoundedMap<string, string>(limits.parties);
  /** Ways by which devices without an account have proved themselves to a gateway, which may have invented them. */
  readonly #reported = new BoundedMap<string, string>(limits.parties);
  /** Ways that gateways above a party have told. */
  readonly #told = new BoundedMap<string, string>(limits.parties);
  readonly #states = new BoundedMap<string, Omit<GatewayView, 'known'>>(limits.gateways);

  constructor(parties: Parties, unreachable: UnreachableDevices) {
    this.#parties = parties;
    this.#unreachable = unreachable;
  }

  /** Records that a party has proved itself through a broker gateway. */
  prove(party: string, brokerGateway: string): void {
    this.#proved.set(party, brokerGateway);
  }

  /** Records that a device without an account has proved itself to a gateway, as that gateway says. */
  report(device: string, brokerGateway: string): void {
    this.#reported.set(device, brokerGateway);
  }

  /**
   * Records that a gateway has told that a party is reached through a broker gateway. This moves no party that has proved
   * itself elsewhere, and no gateway that is connected to the broker itself.
   */
  learn(party: string, brokerGateway: string): void {
    if (!this.isOnline(party)) this.#told.set(party, brokerGateway);
  }

  /** As `learn`, for a party of which no way is known. */
  learnFirst(party: string, brokerGateway: string): void {
    if (party !== brokerGateway && this.#wayOf(party) === undefined) this.learn(party, brokerGateway);
  }

  /** Whether a party with an account here has proved itself last through this broker gateway, in a session of its own. */
  isProvedThrough(party: string, brokerGateway: string): boolean {
    return this.#proved.get(party) === brokerGateway;
  }

  /** Whether a party has proved itself last through this broker gateway, to this server or to its gateway. */
  hasProved(party: string, brokerGateway: string): boolean {
    return this.#provedWay(party) === brokerGateway;
  }

  /**
   * Whether a party with an account proved itself last through this broker gateway, or is associated with a gateway behind it, as
   * after a restart of this server.
   */
  isProvenThrough(party: string, brokerGateway: string): boolean {
    return (this.#proved.get(party) ?? this.#associatedWay(party)) === brokerGateway;
  }

  /**
   * Whether a party is known to be reached otherwise than through this broker gateway: it has a connection to the broker
   * itself, it has proved itself elsewhere, or it is associated with a gateway elsewhere. What a broker gateway says of it
   * then counts for nothing.
   */
  isElsewhere(party: string, brokerGateway: string): boolean {
    if (party === brokerGateway) return false;
    if (this.hasOwnConnection(party)) return true;
    const way = this.#provedWay(party) ?? this.#associatedWay(party);
    return way !== undefined && way !== brokerGateway;
  }

  /** Whether a gateway is connected to the broker itself, or was. Only the gateway itself can publish its state. */
  hasOwnConnection(gateway: string): boolean {
    const state = this.#states.get(gateway);
    return state?.online === true || state?.software !== undefined;
  }

  #provedWay(party: string): string | undefined {
    return this.#proved.get(party) ?? this.#reported.get(party);
  }

  #associatedWay(party: string): string | undefined {
    const gateway = this.#parties.gatewayOf(party);
    return gateway === undefined ? undefined : this.brokerGatewayOf(gateway);
  }

  #wayOf(party: string): string | undefined {
    return this.#provedWay(party) ?? this.#told.get(party);
  }

  /**
   * Returns the broker gateway through which a gateway is reached: the one of `wayTo`, or else the one of
   * its parent, as the durable associations tell after a restart. Without other knowledge this is the gateway itself.
   */
  brokerGatewayOf(gateway: string): string {
    let at = gateway;
    for (let depth = 0; depth < limits.depth; depth++) {
      const way = this.#wayOf(at);
      if (way !== undefined) return way;
      const parent = this.#states.has(at) ? undefined : this.#parties.gatewayOf(at);
      if (parent === undefined) return at;
      at = parent;
    }
    return at;
  }

  /**
   * Returns the broker gateway through which a party is reached: the one through which it has last proved itself, or else
   * the one of the gateway that the party is associated with. Undefined when neither is known.
   */
  wayTo(party: string): string | undefined {
    const heard = this.#wayOf(party);
    return heard ?? this.#associatedWay(party);
  }

  /** Records the state that a gateway has published. `state` is undefined when the gateway has cleared it. */
  setState(gateway: string, state: GatewayState | undefined): void {
    // The Last Will carries no problem, and does not mean that the problem is over.
    const lasting = state?.online === false ? this.problemOf(gateway) : undefined;
    // A gateway with a connection of its own is behind no other one, whatever that one has told.
    if (state) this.#told.delete(gateway);
    this.#states.set(gateway, {
      id: gateway,
      online: state?.online ?? false,
      software: state?.software,
      problem: state?.problem ?? lasting,
    });
  }

  /** What a gateway has last reported as wrong. */
  problemOf(gateway: string): string | undefined {
    return this.#states.get(gateway)?.problem;
  }

  /** True when the broker gateway has last reported that it is online. */
  isOnline(brokerGateway: string): boolean {
    return this.#states.get(brokerGateway)?.online ?? false;
  }

  /**
   * Lists the gateways of the configuration first, in its order, then other gateways that have published a state, then further
   * ones.
   * @param others names of gateways that were heard otherwise
   */
  gateways(others: readonly string[] = []): GatewayView[] {
    const configured = this.#parties.list().flatMap(({ id, kind }) => (kind === 'gateway' ? [id] : []));
    const ids = new Set([...configured, ...this.#states.keys(), ...others]);
    const unheard = { online: undefined, software: undefined, problem: undefined };
    return [...ids].map((id) => ({
      ...(this.#states.get(id) ?? { id, ...unheard }),
      known: this.#parties.isGateway(id),
    }));
  }

  /** Lists the devices of the configuration and all attached devices, sorted by DevId. */
  devices(): DeviceView[] {
    const attached = new Map(this.#parties.associations().map(({ device, gateway }) => [device, gateway]));
    const known = this.#parties.list().filter(({ kind }) => kind === 'device');
    const told = this.#unreachable.reasons();
    const reasonOf = (id: string) => told(id) ?? (attached.has(id) ? this.#offlineAbove(id) : undefined);
    const ids = new Set([...known.map(({ id }) => id), ...attached.keys()]);
    return [...ids].toSorted().map((id) => ({
      id,
      known: this.#parties.get(id) !== undefined,
      gateway: attached.get(id) ?? this.#wayOf(id),
      attached: attached.has(id),
      ...unreachableView(reasonOf(id)),
    }));
  }

  /** The reason why a device cannot be reached whose broker gateway has gone offline. A gateway without a state says nothing. */
  #offlineAbove(device: string): Unreachable | undefined {
    const gateway = this.wayTo(device);
    const isOffline = gateway !== undefined && this.#states.get(gateway)?.online === false;
    return isOffline ? { reason: `its gateway ${gateway} is offline` } : undefined;
  }
}

const unreachableView = (found: Unreachable | undefined) =>
  found && {
    unreachable: found.reason,
    ...(found.lastHeard !== undefined && { lastHeard: new Date(found.lastHeard).toISOString() }),
  };
