import { openDatabase } from '../../src/base/open-database.ts';
import type { OutboxEntry } from '../../src/gateway/store/outbox.ts';
import { AlertSequences } from '../../src/headend/alert-sequences.ts';
import { Records } from '../../src/headend/records.ts';
import { headendSchema } from '../../src/headend/schema.ts';

type Recorded = Parameters<AlertSequences['record']>;
type Refused = Parameters<AlertSequences['refused']>;

interface Step {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly time: bigint;
  readonly recorded?: Recorded;
  readonly refused?: Refused;
  readonly device?: string | undefined;
}

/**
 * What a DM server in this process knows of the alerts of gateways, at each time. It also lets the server fail: `refuse`
 * returns an error for an alert about a device that is not recorded.
 */
export class ServerMemory implements Disposable {
  readonly #steps: Step[] = [];
  readonly #record = AlertSequences.prototype.record;
  readonly #refused = AlertSequences.prototype.refused;
  readonly #addAlert = Records.prototype.addAlert;

  constructor(refuse: (device: string) => Error | undefined) {
    const steps = this.#steps;
    const [record, refused, addAlert] = [this.#record, this.#refused, this.#addAlert];
    let under: Recorded | undefined;
    AlertSequences.prototype.record = function recorded(this: AlertSequences, ...args: Recorded) {
      under = args;
      return record.apply(this, args);
    };
    AlertSequences.prototype.refused = function took(this: AlertSequences, ...args: Refused) {
      steps.push({ time: process.hrtime.bigint(), refused: args });
      refused.apply(this, args);
    };
    Records.prototype.addAlert = function added(this: Records, ...args: Parameters<typeof addAlert>) {
      const [kind, , device] = args;
      const error = kind === 'DeviceAttach' && device !== undefined ? refuse(device) : undefined;
      if (error) throw error;
      addAlert.apply(this, args);
      if (under) steps.push({ time: process.hrtime.bigint(), recorded: under, device });
      under = undefined;
    };
  }

  [Symbol.dispose](): void {
    AlertSequences.prototype.record = this.#record;
    AlertSequences.prototype.refused = this.#refused;
    Records.prototype.addAlert = this.#addAlert;
  }

  /** When alerts were refused. */
  get refusals(): bigint[] {
    return this.#steps.filter(({ refused }) => refused).map(({ time }) => time);
  }

  /**
   * Judges alerts that a gateway sends again after a power cut, as the server does that knows what it knew then. Returns what
   * is wrong: an alert that it has recorded is new, or one that it has not is a repetition.
   */
  async wrong(entries: readonly OutboxEntry[], gateway: string, cut: bigint): Promise<string[]> {
    await using database = openDatabase(':memory:', headendSchema);
    const sequences = new AlertSequences(database);
    const devices = new Map<string, string | undefined>();
    for (const { time, recorded, refused, device } of this.#steps) {
      if (time > cut) break;
      if (refused) sequences.refused(...refused);
      if (!recorded) continue;
      sequences.record(...recorded);
      devices.set(`${recorded[1]} ${recorded[2]}`, device);
    }
    return entries.flatMap(({ epoch = '', sequence, deviceId, kind }) => {
      if (kind !== 'device-attach') return [];
      const known = devices.get(`${epoch} ${sequence}`);
      const verdict = sequences.record(gateway, epoch, sequence);
      const wanted = known === deviceId ? 'repeated' : 'new';
      return verdict === wanted ? [] : [`${deviceId}, number ${sequence}: ${verdict} in place of ${wanted}`];
    });
  }
}
