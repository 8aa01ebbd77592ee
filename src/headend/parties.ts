import type { Database } from '../base/database.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import type { Account, SaveNonces, Scheme } from '../dm/authentication.ts';
import type { HeadendConfig } from './config.ts';
import type { AccountSecrets } from './enrolment-records.ts';

/** A gateway or device that has an account for this server, from the configuration or by enrolment. */
export interface Party {
  /** ServerID of a gateway, DevId of a device. */
  readonly id: string;
  readonly kind: 'gateway' | 'device';
  /** Name in the proofs of the party; its ID when absent. */
  readonly clientName?: string | undefined;
  /** Name in the proofs of this server; its ServerID when absent. */
  readonly serverName?: string | undefined;
  /** The party proves itself to this server by it. */
  readonly clientSecret: string;
  /** This server proves itself to the party by it. */
  readonly serverSecret: string;
  /** Schemes that the party may use. The first is the one in the server's challenge. */
  readonly clientSchemes: readonly Scheme[];
  /** Schemes that this server uses. It begins with the first. */
  readonly serverSchemes: readonly Scheme[];
  /** Its accounts for gateways are for OSCORE in place of DTLS. */
  readonly isForOscore?: boolean;
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
}

/** Schemes of an account by enrolment, as those of a configuration that names none. */
const enrolledSchemes = { clientSchemes: ['md5'], serverSchemes: ['md5'] } as const;

/** Parties of the configuration and of enrolment, and the durable state of all parties: nonces, associations, alert numbers. */
export class Parties {
  readonly #parties = new Map<string, Party>();
  readonly #configured = new Map<string, Party>();
  /** Gateways that have their account by enrolment. */
  readonly #enrolled = new Map<string, Party>();
  readonly #states = new Map<string, PartyState>();
  readonly #database: Database;

  constructor(config: Pick<HeadendConfig, 'gateway' | 'device'>, database: Database) {
    this.#database = database;
    this.configure(config);
    for (const [id, state] of readRows(database, partyTable)) this.#states.set(id, state);
  }

  /** Takes the parties of a configuration in place of those known so far. Their durable state stays. */
  configure(config: Pick<HeadendConfig, 'gateway' | 'device'>): void {
    this.#parties.clear();
    this.#configured.clear();
    for (const kind of ['gateway', 'device'] as const)
      for (const entry of config[kind])
        this.#parties.set(entry.id, {
          id: entry.id,
          kind,
          clientSecret: entry['client-secret'],
          serverSecret: entry['server-secret'],
          clientSchemes: entry['client-auth'],
          serverSchemes: entry['server-auth'],
          ...('security' in entry && {
            clientName: entry['client-name'],
            serverName: entry['server-name'],
            isForOscore: entry.security === 'oscore',
          }),
        });
    for (const [id, party] of this.#parties) this.#configured.set(id, party);
    for (const [id, party] of this.#enrolled) if (!this.#parties.has(id)) this.#parties.set(id, party);
  }

  /** The secrets of a gateway that has its account by the configuration. Undefined for any other party. */
  configured(id: string): AccountSecrets | undefined {
    const party = this.#configured.get(id);
    if (party?.kind !== 'gateway') return undefined;
    const { clientSecret, serverSecret } = party;
    return { clientSecret, serverSecret };
  }

  /** Gives a gateway an account. One that the configuration has for it comes before. */
  enrol(id: string, { clientSecret, serverSecret }: AccountSecrets): void {
    const party = { id, kind: 'gateway', clientSecret, serverSecret, ...enrolledSchemes } as const;
    this.#enrolled.set(id, party);
    if (!this.#configured.has(id)) this.#parties.set(id, party);
  }

  /** Takes away the account that a gateway has by enrolment. */
  revoke(id: string): void {
    this.#enrolled.delete(id);
    if (!this.#configured.has(id)) this.#parties.delete(id);
  }

  /** Returns the party of this ID. Undefined when it has no account for this server. */
  get(id: string): Party | undefined {
    return this.#parties.get(id);
  }

  /** True when the ID is that of a gateway that has an account for this server. */
  isGateway(id: string): boolean {
    return this.#parties.get(id)?.kind === 'gateway';
  }

  /** Lists the parties of the configuration, in its order: gateways, then devices; then those by enrolment. */
  list(): Party[] {
    return [...this.#parties.values()];
  }

  /** Returns the account of a party as this server sees it: `own` is the server's side, `peer` the party's. */
  account(serverId: string, party: Party): Account {
    const { id, clientName = id, serverName = serverId, clientSchemes, serverSchemes } = party;
    const { clientSecret, serverSecret } = party;
    const { clientNonce, serverNonce } = this.#stateOf(id);
    return {
      own: { name: serverName, secret: serverSecret, nonce: serverNonce, schemes: serverSchemes },
      peer: { name: clientName, secret: clientSecret, nonce: clientNonce, schemes: clientSchemes },
    };
  }

  /** Returns the function by which a session stores the nonces of a party. */
  nonceKeeper(id: string): SaveNonces {
    return ({ own, peer }) => {
      if (own || peer)
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
    const before = this.#stateOf(id).gateway;
    if (before === gateway) return undefined;
    this.#update(id, { gateway });
    return before;
  }

  /** Ends the association of a device with this gateway. An association with another gateway stays. */
  dissociate(id: string, gateway: string): void {
    if (this.#stateOf(id).gateway === gateway) this.#update(id, { gateway: undefined });
  }

  /** Lists all associations. They include devices that have no account for this server. */
  associations(): { device: string; gateway: string }[] {
    return [...this.#states].flatMap(([device, { gateway }]) =>
      gateway === undefined ? [] : [{ device, gateway }],
    );
  }

  /**
   * Records the sequence number of an alert of a gateway that counts without epochs (version 0.1.0). False when this number
   * or a higher one is already recorded: the alert is then a repetition.
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
      }
    );
  }

  #update(id: string, change: Partial<PartyState>): void {
    const before = this.#states.get(id);
    const state = { ...this.#stateOf(id), ...change };
    this.#database.onRollback(() => {
      if (before) this.#states.set(id, before);
      else this.#states.delete(id);
    });
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO party (id, client_nonce, server_nonce, gateway, alert_sequence) VALUES (?, ?, ?, ?, ?)',
      )
      .run(id, state.clientNonce, state.serverNonce, state.gateway ?? null, state.alertSequence);
    this.#states.set(id, state);
  }
}

const partyTable: ReadableTable<readonly [string, PartyState]> = {
  table: 'party',
  key: ['id'],
  read: (row) => [
    row.text('id'),
    {
      clientNonce: row.octets('client_nonce'),
      serverNonce: row.octets('server_nonce'),
      gateway: row.optionalText('gateway').gateway,
      alertSequence: row.integer('alert_sequence'),
    },
  ],
};
