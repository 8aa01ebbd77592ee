import { background } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Monotonic, Timer } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { isOk } from '../dm/status.ts';
import type { CertificateAuthority } from './certificate-authority.ts';
import type { EnrolmentDesk } from './enrolment-desk.ts';
import type { EnrolmentRecord, EnrolmentRecords } from './enrolment-records.ts';

export interface RenewalsParts {
  readonly records: EnrolmentRecords;
  readonly authority: CertificateAuthority;
  readonly desk: EnrolmentDesk;
  /** Does operations in a session of a gateway. */
  readonly manage: (
    gateway: string,
    operations: readonly Operation[],
  ) => Promise<readonly OperationOutcome[]>;
  readonly isOnline: (gateway: string) => boolean;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds between two looks at all certificates. */
const lookEvery = 3_600_000;
/** Milliseconds after which the same failure is told again, and gateways whose last failure is remembered. */
const repeatAfter = 86_400_000;
const remembered = 4096;

/**
 * Renews the certificates of gateways over DM, when a third of their time is left: `Get` of `./GwCertificate/Request`, `Replace`
 * of `./GwCertificate/Chain` (docs/gwmo.md). Each look renews one gateway after the other. What fails is tried again in the next.
 */
export class Renewals implements Disposable {
  readonly #parts: RenewalsParts;
  readonly #told = new BoundedMap<string, { readonly reason: string; readonly at: Monotonic }>(remembered);
  #timer: Timer | undefined;
  #isLooking = false;
  /** Somebody has asked for a look while one was under way. */
  #isWanted = false;
  #isStopped = false;

  constructor(parts: RenewalsParts) {
    this.#parts = parts;
  }

  /** Looks each hour. */
  start(): void {
    this.#timer = this.#parts.clock.after(lookEvery, () => {
      this.start();
      this.lookSoon();
    });
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  /** Looks at all certificates now; while that is under way, once more after it. */
  lookSoon(): void {
    this.#isWanted = true;
    if (this.#isLooking) return;
    this.#isLooking = true;
    void background(this.#parts.events, 'enrolment', async () => {
      try {
        while (this.#isWanted && !this.#isStopped) {
          this.#isWanted = false;
          await this.#look();
        }
      } finally {
        this.#isLooking = false;
      }
    });
  }

  async #look(): Promise<void> {
    const { records, isOnline } = this.#parts;
    for (const record of records.due()) {
      if (this.#isStopped) return;
      if (isOnline(record.gateway)) await this.#renew(record);
      else this.#failed(record, 'the gateway is offline');
    }
  }

  async #renew(record: EnrolmentRecord): Promise<void> {
    const { manage, authority, desk, records, events } = this.#parts;
    const { gateway, key } = record;
    try {
      const [asked] = await manage(gateway, [{ name: 'Get', uri: './GwCertificate/Request' }]);
      const request = demandOk(asked, 'Get')?.data;
      const checked = await authority.check(derOf(request));
      if (checked.key !== key || checked.name !== gateway)
        throw new PosternError('conflict', 'the request is for another key or name than was enrolled');
      const issued = await desk.issueAgain(record);
      const [given] = await manage(gateway, [
        { name: 'Replace', uri: './GwCertificate/Chain', format: 'chr', data: issued.chain },
      ]);
      demandOk(given, 'Replace');
      // Only now: a gateway that has not stored it gets another one.
      records.issued(key, issued);
      this.#told.delete(gateway);
      events.emit('certificate.renewed', { gateway, expires: new Date(issued.expires).toISOString() });
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code === 'internal') throw thrown;
      this.#failed(record, message);
    }
  }

  #failed({ gateway, expires = 0 }: EnrolmentRecord, reason: string): void {
    const { clock, events } = this.#parts;
    const told = this.#told.get(gateway);
    if (told?.reason === reason && clock.now() - told.at < repeatAfter) return;
    this.#told.set(gateway, { reason, at: clock.now() });
    events.emit('certificate.renewal-failed', { gateway, reason, expires: new Date(expires).toISOString() });
  }
}

/** The first result of a command. */
function demandOk(outcome: OperationOutcome | undefined, name: string) {
  if (outcome && isOk(outcome.status)) return outcome.results?.[0];
  throw new PosternError('unavailable', `the gateway answered ${name} with ${outcome?.status ?? 'nothing'}`);
}

const derOf = (pem: unknown): Buffer => Buffer.from(String(pem).replace(/-----[A-Z ]+-----/g, ''), 'base64');
