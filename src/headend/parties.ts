import type { DatabaseSync } from 'node:sqlite';
import type { Account, SaveNonces, Scheme } from '../dm/authentication.ts';
import type { HeadendConfig } from './config.ts';

/** A gateway or device that has an account for this server, from the configuration. */
export interface Party {
  /** ServerID of a gateway, DevId of a device. */
  readonly id: string;
  readonly kind: 'gateway' | 'device';
  /** The party proves itself to this server by it. */
  readonly clientSecret: string;
  /** This server proves itself to the party by it. */
  readonly serverSecret: string;
  /** Schemes that the party may use. The first is the one in the server's challenge. */
  readonly clientSchemes: readonly Scheme[];
  /** Schemes that this server uses. It begins with the first. */
  readonly serverSchemes: readonly Scheme[];
}

/**
 * Durable state of a party. Gateways also report devices that have no account here; these have state without a
 * `Party`.
 */
interface PartyState {
  clientNonce: Uint8Array;
  serverNonce: Uint8Array;
  gateway: string | undefined;
  alertSequence: number;
  /** Why the device cannot be reached, by the latest alert of its gateway. Undefined when it can. */
  unreachable: string | undefined;
  /** When an unreachable device was last heard, by its gateway's clock: milliseconds since 1970. */
  lastHeard: number | undefined;
}

/** What the head-end knows of a device that cannot be reached. */
export interface Unreachable {
  readonly reason: string;
  /** By its gateway's clock: milliseconds since 1970. Unknown when the cause is a gateway above the device. */
  readonly lastHeard?: number;
}

/** Maximum number of gateways above a device that are looked at. */
const gatewaysAbove = 8;

/** Parties of the configuration, and the durable state of all parties: nonces, associations, alert numbers. */
export class Parties {
  readonly #parties = new Map<string, Party>();
  readonly #states = new Map<string, PartyState>();
  readonly #database: DatabaseSync;

  constructor(config: Pick<HeadendConfig, 'gateway' | 'device'>, database: DatabaseSync) {
    this.#database = database;
    for (const kind of ['gateway', 'device'] as const)
      for (const entry of config[kind])
        this.#parties.set(entry.id, {
          id: entry.id,
          kind,
          clientSecret: entry['client-secret'],
          serverSecret: entry['server-secret'],
          clientSchemes: entry['client-auth'],
          serverSchemes: entry['server-auth'],
        });
    for (const row of database.prepare('SELECT * FROM party').iterate())
      this.#states.set(String(row.id), {
        clientNonce: row.client_nonce as Uint8Array,
        serverNonce: row.server_nonce as Uint8Array,
        gateway: row.gateway === null ? undefined : String(row.gateway),
        alertSequence: Number(row.alert_sequence),
        unreachable: row.unreachable === null ? undefined : String(row.unreachable),
        lastHeard: row.last_heard === null ? undefined : Number(row.last_heard),
      });
  }

  /** Returns the party of this ID. Undefined when it has no account for this server. */
  get(id: string): Party | undefined {
    return this.#parties.get(id);
  }

  /** True when the ID is that of a gateway in the configuration. */
  isGateway(id: string): boolean {
    return this.#parties.get(id)?.kind === 'gateway';
  }

  /** Lists all parties of the configuration, in its order: gateways, then devices. */
  list(): Party[] {
    return [...this.#parties.values()];
  }

  /** Returns the account of a party as this server sees it: `own` is the server's side, `peer` the party's. */
  account(serverId: string, party: Party): Account {
    const { id, clientSecret, serverSecret, clientSchemes, serverSchemes } = party;
    const { clientNonce, serverNonce } = this.#stateOf(id);
    return {
      own: { name: serverId, secret: serverSecret, nonce: serverNonce, schemes: serverSchemes },
      peer: { name: id, secret: clientSecret, nonce: clientNonce, schemes: clientSchemes },
    };
  }

  /** Returns the function by which a session stores the nonces of a party. */
  nonceKeeper(id: string): SaveNonces {
    return ({ own, peer }) => {
      this.#update(id, { ...(own && { serverNonce: own }), ...(peer && { clientNonce: peer }) });
    };
  }

  /** Returns the gateway that a device is associated with, by the latest alert about the device. */
  gatewayOf(id: string): string | undefined {
    return this.#stateOf(id).gateway;
  }

  /**
   * Associates a device with a gateway. Returns the gateway that it was associated with before. Undefined when there
   * was none or it is the same gateway.
   */
  associate(id: string, gateway: string): string | undefined {
    const { gateway: before, unreachable } = this.#stateOf(id);
    // A device that attaches was heard by its gateway just now.
    if (before !== gateway || unreachable !== undefined)
      this.#update(id, { gateway, unreachable: undefined, lastHeard: undefined });
    return before === gateway ? undefined : before;
  }

  /** Ends the association of a device with this gateway. An association with another gateway stays. */
  dissociate(id: string, gateway: string): void {
    if (this.#stateOf(id).gateway === gateway)
      this.#update(id, { gateway: undefined, unreachable: undefined, lastHeard: undefined });
  }

  /**
   * Records whether a device can be reached by its gateway. An alert of a gateway that the device is not associated with
   * changes nothing. `now` undefined: it can be reached.
   */
  setUnreachable(id: string, gateway: string, now: Unreachable | undefined): void {
    if (this.#stateOf(id).gateway === gateway)
      this.#update(id, { unreachable: now?.reason, lastHeard: now?.lastHeard });
  }

  /** Why a device cannot be reached: its gateway says so, or says so of a gateway above it. Undefined when it can. */
  unreachable(id: string): Unreachable | undefined {
    const { unreachable: reason, lastHeard, gateway } = this.#stateOf(id);
    if (reason !== undefined) return { reason, ...(lastHeard !== undefined && { lastHeard }) };
    let above = gateway;
    for (let level = 0; above !== undefined && level < gatewaysAbove; level++) {
      const state: PartyState = this.#stateOf(above);
      if (state.unreachable !== undefined)
        return { reason: `its gateway ${above} is unreachable: ${state.unreachable}` };
      above = state.gateway;
    }
    return undefined;
  }

  /** Lists all associations. They include devices that have no account for this server. */
  associations(): { device: string; gateway: string }[] {
    return [...this.#states].flatMap(([device, { gateway }]) =>
      gateway === undefined ? [] : [{ device, gateway }],
    );
  }

  /**
   * Records the sequence number of an alert of a gateway. False when this number or a higher one is already recorded:
   * the alert is then a repetition.
   */
  recordAlertSequence(gateway: string, sequence: number): boolean {
    if (sequence <= this.#stateOf(gateway).alertSequence) return false;
    this.#update(gateway, { alertSequence: sequence });
    return true;
  }

  #stateOf(id: string): PartyState {
    return (
      this.#states.get(id) ?? {
        clientNonce: new Uint8Array(),
        serverNonce: new Uint8Array(),
        gateway: undefined,
        alertSequence: 0,
        unreachable: undefined,
        lastHeard: undefined,
      }
    );
  }

  #update(id: string, change: Partial<PartyState>): void {
    const state = { ...this.#stateOf(id), ...change };
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO party (id, client_nonce, server_nonce, gateway, alert_sequence, unreachable, last_heard)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        id,
        state.clientNonce,
        state.serverNonce,
        state.gateway ?? null,
        state.alertSequence,
        state.unreachable ?? null,
        state.lastHeard ?? null,
      );
    this.#states.set(id, state);
  }
}
