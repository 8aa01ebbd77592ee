import type { Recovery } from '../../base/recover-state.ts';
import type { AlertNumber } from '../../mo/alert-number.ts';
import type { FirmwareOperation } from '../../mo/firmware-branch.ts';
import type { GatewayFault } from '../../mo/gateway-alerts.ts';
import type { GatewayAlert } from '../../mo/vocabulary.ts';
import type { Outbox, OutboxKind } from '../store/outbox.ts';

/** Body of an outbox entry that reports the result of an Exec. The entry's subject is the name of what was executed. */
export interface ResultBody {
  /** URI of the node whose child was executed. */
  readonly uri: string;
  readonly correlator?: string;
  readonly result: string;
}

/** Body of an outbox entry that reports the result of an update of the gateway itself. */
export interface FirmwareUpdateBody {
  readonly operation: FirmwareOperation;
  readonly correlator?: string;
  /** Result code of FUMO. */
  readonly result: number;
}

/** Kinds of outbox entries with a `ResultBody`, and the GwMO alert that each becomes. */
export const resultAlerts = {
  'command-fanout': 'CommandFanout',
  'device-trigger': 'DeviceTrigger',
  'image-operation': 'ImageOperation',
} as const satisfies Partial<Record<OutboxKind, GatewayAlert>>;
export type ResultKind = keyof typeof resultAlerts;

/** An operation that a DM server started by Exec. It ended after the Exec was answered. */
export interface EndedOperation {
  readonly name: string;
  readonly server: string;
  readonly correlator: string | undefined;
}

/** Puts reports for DM servers into the outbox, and wakes the DM client, which delivers them. */
export class Reports {
  readonly #outbox: Outbox;
  readonly #ownServer: string;
  readonly #isServer: (serverId: string) => boolean;
  #client: { wake(): void } | undefined;

  /**
   * @param ownServer ServerID of the gateway's own DM server, which gets the alerts about devices
   * @param isServer whether a server has an account here; others hear nothing
   */
  constructor(outbox: Outbox, ownServer: string, isServer: (serverId: string) => boolean) {
    this.#outbox = outbox;
    this.#ownServer = ownServer;
    this.#isServer = isServer;
  }

  /** Sets the client that delivers the entries of the outbox. */
  deliverBy(client: { wake(): void }): void {
    this.#client = client;
  }

  /** To be called after an entry was added to the outbox directly. */
  wake(): void {
    this.#client?.wake();
  }

  /** Reports the result of an Exec to the DM server that sent the Exec. `uri`: see `ResultBody`. */
  result(kind: ResultKind, uri: string, ended: EndedOperation, result: string): void {
    const { name, server, correlator } = ended;
    if (!this.#isServer(server)) return;
    const body: ResultBody = { uri, result, ...(correlator !== undefined && { correlator }) };
    this.#outbox.add(kind, name, JSON.stringify(body), this.#recipient(server));
    this.wake();
  }

  /** Reports the result of an update of the gateway itself to the DM server that ordered it. */
  firmwareUpdate(server: string, body: FirmwareUpdateBody): void {
    if (!this.#isServer(server)) return;
    this.#outbox.add('firmware-update', body.operation, JSON.stringify(body), this.#recipient(server));
    this.wake();
  }

  /**
   * Reports a fault of this gateway or of a child to the gateway's own DM server.
   * @param subject what is at fault, such as the name of a table; only the latest fault of a subject is kept
   * @throws {PosternError} `full` when too many alerts of the child wait
   */
  fault(subject: string, fault: Omit<GatewayFault, keyof AlertNumber>): void {
    const { via } = fault;
    const child = via?.split('/')[0];
    const from = child === undefined ? undefined : { child, mayRefuse: true };
    const name = `${via ?? ''} ${subject}`.trim();
    this.#outbox.add('gateway-fault', name, JSON.stringify(fault), undefined, from);
    this.wake();
  }

  /** Reports that the state was damaged or lost at this start. */
  recovered({ reason, used = 'a new, empty state', since = 'the first start' }: Recovery): void {
    const told = `the state was damaged (${reason}); used instead: ${used}, without what was stored after ${since}`;
    this.fault('recovery', { kind: 'state', reason: told });
  }

  /** Outbox entries for the gateway's own DM server have no ServerID. */
  #recipient(server: string): string | undefined {
    return server === this.#ownServer ? undefined : server;
  }
}
