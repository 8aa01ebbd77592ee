import type { DatabaseSync } from 'node:sqlite';
import type { Account, SaveNonces, Scheme } from '../dm/authentication.ts';
import type { HeadendConfig } from './config.ts';

/** A gateway or device that this server shares secrets with. */
export interface Party {
  readonly id: string;
  readonly kind: 'gateway' | 'device';
  readonly clientSecret: string;
  readonly serverSecret: string;
  readonly clientSchemes: readonly Scheme[];
  readonly serverSchemes: readonly Scheme[];
}

interface Kept {
  clientNonce: Uint8Array;
  serverNonce: Uint8Array;
  gateway: string | undefined;
  alertSequence: number;
}

/** Devices that a gateway is told to let go in one session. */
const detachesPerSession = 64;

/** Whom this server knows, from its configuration, with what it must not forget of them. */
export class Parties {
  readonly #known = new Map<string, Party>();
  readonly #kept = new Map<string, Kept>();
  readonly #database: DatabaseSync;

  constructor(config: Pick<HeadendConfig, 'gateway' | 'device'>, database: DatabaseSync) {
    this.#database = database;
    for (const kind of ['gateway', 'device'] as const)
      for (const entry of config[kind])
        this.#known.set(entry.id, {
          id: entry.id,
          kind,
          clientSecret: entry['client-secret'],
          serverSecret: entry['server-secret'],
          clientSchemes: entry['client-auth'],
          serverSchemes: entry['server-auth'],
        });
    for (const row of database.prepare('SELECT * FROM party').iterate())
      this.#kept.set(String(row.id), {
        clientNonce: row.client_nonce as Uint8Array,
        serverNonce: row.server_nonce as Uint8Array,
        gateway: row.gateway === null ? undefined : String(row.gateway),
        alertSequence: Number(row.alert_sequence),
      });
  }

  get(id: string): Party | undefined {
    return this.#known.get(id);
  }

  list(): Party[] {
    return [...this.#known.values()];
  }

  account(serverId: string, party: Party): Account {
    const { id, clientSecret, serverSecret, clientSchemes, serverSchemes } = party;
    const { clientNonce, serverNonce } = this.#of(id);
    return {
      own: { name: serverId, secret: serverSecret, nonce: serverNonce, schemes: serverSchemes },
      peer: { name: id, secret: clientSecret, nonce: clientNonce, schemes: clientSchemes },
    };
  }

  nonceKeeper(id: string): SaveNonces {
    return ({ own, peer }) => {
      this.#keep(id, { ...(own && { serverNonce: own }), ...(peer && { clientNonce: peer }) });
    };
  }

  /** The gateway that a device is behind, as far as this server was told. */
  gatewayOf(id: string): string | undefined {
    return this.#of(id).gateway;
  }

  /** Answers with the gateway that the device was behind before, if that was another. */
  associate(id: string, gateway: string): string | undefined {
    const before = this.#of(id).gateway;
    if (before === gateway) return undefined;
    this.#keep(id, { gateway });
    return before;
  }

  /** The device is behind this gateway no more; what another gateway said later counts. */
  dissociate(id: string, gateway: string): void {
    if (this.#of(id).gateway === gateway) this.#keep(id, { gateway: undefined });
  }

  /** Devices that a gateway has still to let go. */
  pendingDetaches(gateway: string): string[] {
    return this.#database
      .prepare('SELECT device FROM pending_detach WHERE gateway = ? ORDER BY device LIMIT ?')
      .all(gateway, detachesPerSession)
      .map(({ device }) => String(device));
  }

  addPendingDetach(gateway: string, device: string): void {
    this.#database
      .prepare('INSERT OR IGNORE INTO pending_detach (gateway, device) VALUES (?, ?)')
      .run(gateway, device);
  }

  /** It is done, or the device came back. */
  dropPendingDetach(gateway: string, device: string): void {
    this.#database
      .prepare('DELETE FROM pending_detach WHERE gateway = ? AND device = ?')
      .run(gateway, device);
  }

  /** Devices that are associated with some gateway, those included that only a gateway knows. */
  associations(): { device: string; gateway: string }[] {
    return [...this.#kept].flatMap(([device, { gateway }]) =>
      gateway === undefined ? [] : [{ device, gateway }],
    );
  }

  /** True when the alert of this number is new; an earlier or equal one was taken before. */
  takesAlert(gateway: string, sequence: number): boolean {
    if (sequence <= this.#of(gateway).alertSequence) return false;
    this.#keep(gateway, { alertSequence: sequence });
    return true;
  }

  #of(id: string): Kept {
    return (
      this.#kept.get(id) ?? {
        clientNonce: new Uint8Array(),
        serverNonce: new Uint8Array(),
        gateway: undefined,
        alertSequence: 0,
      }
    );
  }

  #keep(id: string, change: Partial<Kept>): void {
    const kept = { ...this.#of(id), ...change };
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO party (id, client_nonce, server_nonce, gateway, alert_sequence) VALUES (?, ?, ?, ?, ?)',
      )
      .run(id, kept.clientNonce, kept.serverNonce, kept.gateway ?? null, kept.alertSequence);
    this.#kept.set(id, kept);
  }
}
