import type { FirmwareOperation } from '../../mo/firmware-branch.ts';
import type { GatewayAlert } from '../../mo/vocabulary.ts';
import type { Outbox } from '../store/outbox.ts';

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

/** Kinds of outbox entries with a `ResultBody`, and the alert that each becomes. */
export const resultAlerts = {
  'command-fanout': 'CommandFanout',
  'device-trigger': 'DeviceTrigger',
  'image-operation': 'ImageOperation',
} as const satisfies Record<string, GatewayAlert>;

/** An operation that a DM server started by Exec, and that ended after the Exec was answered. */
export interface EndedOperation {
  readonly name: string;
  readonly server: string;
  readonly correlator: string | undefined;
}

/** Puts what the gateway has to tell its DM servers into the outbox, and wakes the DM client, which delivers it. */
export class Reports {
  readonly #outbox: Outbox;
  readonly #ownServer: string;
  #client: { wake(): void } | undefined;

  /** @param ownServer ServerID of the DM server that hears of devices */
  constructor(outbox: Outbox, ownServer: string) {
    this.#outbox = outbox;
    this.#ownServer = ownServer;
  }

  /** Names the client that delivers what is in the outbox. */
  deliverBy(client: { wake(): void }): void {
    this.#client = client;
  }

  /** There is something new in the outbox. */
  wake(): void {
    this.#client?.wake();
  }

  /** The result of an Exec goes to the DM server that sent the Exec. */
  result(kind: keyof typeof resultAlerts, uri: string, ended: EndedOperation, result: string): void {
    const { name, server, correlator } = ended;
    const body: ResultBody = { uri, result, ...(correlator !== undefined && { correlator }) };
    this.#outbox.add(kind, name, JSON.stringify(body), this.#recipient(server));
    this.wake();
  }

  /** The result of an update of the gateway itself goes to the DM server that ordered it. */
  firmwareUpdate(server: string, body: FirmwareUpdateBody): void {
    this.#outbox.add('firmware-update', body.operation, JSON.stringify(body), this.#recipient(server));
    this.wake();
  }

  /** In the outbox the gateway's own server has no name. */
  #recipient(server: string): string | undefined {
    return server === this.#ownServer ? undefined : server;
  }
}
