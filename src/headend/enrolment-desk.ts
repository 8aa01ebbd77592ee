import { createPublicKey, X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { matchesDevice } from '../base/device-pattern.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { TokenBucket, TokenBuckets } from '../base/token-buckets.ts';
import {
  decodeEnrolmentRequest,
  type EnrolmentAnswer,
  type EnrolmentRequest,
  encodeEnrolmentGrant,
  grantInfo,
} from '../wire/tunnel/enrolment-message.ts';
import { sealTo } from '../wire/tunnel/hpke.ts';
import { gatewayTopics } from '../wire/tunnel/topics.ts';
import type { CertificateAuthority, CheckedRequest, Issued } from './certificate-authority.ts';
import type { EnrolmentCodes, MadeCode } from './enrolment-codes.ts';
import type { EnrolmentConfig } from './enrolment-config.ts';
import type { EnrolmentRecord, EnrolmentRecords } from './enrolment-records.ts';
import type { Parties } from './parties.ts';
import type { Replacements } from './replacements.ts';

/** The boards of a factory's batch, by the codes that they will show. */
export interface BoardManifest {
  /** Name of the batch, for a person. */
  readonly batch: string;
  /** When the codes end, in milliseconds since 1970. */
  readonly expires: number;
  readonly boards: readonly MadeCode[];
}

export interface EnrolmentDeskParts {
  readonly serverId: string;
  /** Names that no gateway may have, besides those of claims: those of this server at the broker. */
  readonly reserved: readonly string[];
  readonly settings: EnrolmentConfig;
  readonly authority: CertificateAuthority;
  readonly records: EnrolmentRecords;
  readonly codes: EnrolmentCodes;
  readonly replacements: Replacements;
  /** Called in the transaction that gives the name of a board to another one. */
  readonly replaced: (gateway: string) => void;
  /** Called when a board that was replaced asks again. */
  readonly returned: (gateway: string, key: string) => void;
  readonly parties: Parties;
  readonly database: Database;
  readonly clock: Clock;
  readonly events: Events;
}

/** Seconds until a board asks again. */
const again = { waiting: 60, refused: 600 } as const;
/** Requests per second: of one claim, and of one key. Further ones get no answer. */
const rates = { claim: { rate: 20, burst: 200 }, key: { rate: 0.2, burst: 10 }, names: 4096 } as const;
/** Most requests that wait for their turn. */
const queueLength = 256;

/** Decides on the requests of boards, and issues what was approved. */
export class EnrolmentDesk {
  readonly #parts: EnrolmentDeskParts;
  readonly #claims = new TokenBuckets(rates.claim, rates.names);
  readonly #keys = new TokenBuckets(rates.key, rates.names);
  /** How many boards each pattern of the policy may still approve. */
  readonly #policy = new Map<string, TokenBucket>();
  /** Requests are worked on one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #queued = 0;

  /** Gives the gateways that are enrolled their accounts. */
  constructor(parts: EnrolmentDeskParts) {
    this.#parts = parts;
    for (const record of parts.records.holders()) this.#know(record);
  }

  /**
   * Answers a request. Undefined: it gets no answer.
   * @param claim name by which the broker knows who asks
   * @param client client ID of who asks, which must be the ID of the key
   */
  async answer(claim: string, client: string, payload: Uint8Array): Promise<EnrolmentAnswer | undefined> {
    const { serverId, events, clock } = this.#parts;
    const now = clock.now();
    const refusal = (reason: string, gateway?: string) =>
      events.emit('enrolment.request-refused', { claim, gateway, reason });
    if (
      this.#queued >= queueLength ||
      !this.#claims.of(claim, now).take(rates.claim, now) ||
      !this.#keys.of(`${claim} ${client}`, now).take(rates.key, now)
    ) {
      refusal('too many requests');
      return undefined;
    }
    return await this.#inTurn(async () => {
      let gateway: string | undefined;
      try {
        const asked = decodeEnrolmentRequest(payload);
        if (asked.server !== undefined && asked.server !== serverId) return undefined;
        const checked = await this.#parts.authority.check(asked.request);
        gateway = checked.name;
        if (checked.key !== client)
          throw new PosternError('forbidden', 'the request is for another key than its client ID says');
        return await this.#decide(claim, checked, asked);
      } catch (thrown) {
        const { code, message: reason } = asPosternError(thrown);
        if (code === 'internal') throw thrown;
        refusal(reason, gateway);
        return { state: 'refused', reason, again: again.refused };
      }
    });
  }

  /**
   * Approves a request by hand, whether it waits or was refused. Returns the answer for the board.
   * @param gateway the name that the person has seen. A board that waits may ask for another one at any time
   * @throws {PosternError} `notFound`; `conflict` when it asks for another name, was approved already, or its name is that of a device
   */
  async approve(key: string, gateway: string): Promise<EnrolmentAnswer> {
    return await this.#inTurn(async () => {
      const record = this.record(key);
      if (record.gateway !== gateway)
        throw new PosternError('conflict', `the board asks for the name ${record.gateway} now`);
      if (record.state === 'approved' || record.state === 'issued')
        throw new PosternError('conflict', `the request of ${record.gateway} was approved by ${record.by}`);
      this.#demandFree(record.gateway);
      this.#parts.database.transaction(() => this.#approve(record, 'hand'));
      return await this.#grant(this.record(key));
    });
  }

  /**
   * Refuses a request that waits. Returns the answer for the board.
   * @throws {PosternError} `notFound`, `conflict` when it was decided already
   */
  async refuse(key: string, reason: string): Promise<EnrolmentAnswer> {
    const record = this.record(key);
    if (record.state !== 'waiting')
      throw new PosternError(
        'conflict',
        `the request of ${record.gateway} does not wait: it is ${record.state}`,
      );
    this.#parts.records.refuse(key, 'hand', reason);
    return { state: 'refused', reason, again: again.refused };
  }

  /**
   * Takes the codes of a batch of boards: all of them, or none. It may be done again, also after boards of the batch were enrolled.
   * A code for a name gives this name to whoever shows it, so a name that has a board or an account is refused.
   * @returns how many codes are new
   * @throws {PosternError} `malformed` when a name or a code is there twice, or the codes have expired; `conflict` when a name is in
   *   use, or a code is known for another name; `forbidden` for a name that no gateway may have; `full`
   */
  takeManifest({ batch, expires, boards }: BoardManifest): number {
    const { codes, database, clock, events } = this.#parts;
    for (const one of ['gateway', 'hash'] as const)
      if (new Set(boards.map((board) => board[one])).size < boards.length)
        throw new PosternError('malformed', `the manifest has a ${one} twice`);
    if (expires <= clock.wall())
      throw new PosternError('malformed', 'the codes of the manifest have expired');
    return database.transaction(() => {
      const taken = boards.filter((board) => {
        if (!codes.take(board, expires)) return false;
        this.#demandFree(board.gateway);
        const holder = this.#holderOf(board.gateway, '');
        if (holder !== undefined) throw new PosternError('conflict', holder);
        return true;
      }).length;
      database.afterCommit(() => events.emit('enrolment.manifest-taken', { batch, boards: taken }));
      return taken;
    });
  }

  /** @throws {PosternError} `notFound` */
  record(key: string): EnrolmentRecord {
    const record = this.#parts.records.get(key);
    if (!record) throw new PosternError('notFound', `no board with the key ${key} has asked`);
    return record;
  }

  /** Runs work after all work before it. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#queued++;
    const before = this.#last;
    const run = (async () => {
      await before;
      return await work();
    })();
    this.#last = run.catch(() => {});
    try {
      return await run;
    } finally {
      this.#queued--;
    }
  }

  async #decide(claim: string, checked: CheckedRequest, asked: EnrolmentRequest): Promise<EnrolmentAnswer> {
    const { records, database, events } = this.#parts;
    const { key, name: gateway, publicKey } = checked;
    const known = records.get(key);
    if (known && known.gateway !== gateway && known.state !== 'waiting')
      throw new PosternError('forbidden', `this key is that of ${known.gateway}`);
    if (known?.state === 'approved' || known?.state === 'issued') return await this.#grant(known);
    if (known?.state === 'replaced') this.#parts.returned(gateway, key);
    if (known?.state === 'refused' || known?.state === 'replaced' || known?.state === 'gone')
      throw new PosternError('forbidden', known.reason ?? 'it was refused');
    this.#demandFree(gateway);
    const request = {
      key,
      gateway,
      claim,
      publicKey,
      ...(asked.serial !== undefined && { serial: asked.serial }),
    };
    const reason = database.transaction(() => {
      const taken = this.#holderOf(gateway, key);
      const by = this.#approval(request, asked.code, taken);
      const waits = taken ?? 'a person must approve it';
      records.ask(request, waits);
      if (by === undefined) return waits;
      this.#approve(this.record(key), by);
      return undefined;
    });
    if (reason === undefined) return await this.#grant(this.record(key));
    if (known?.reason !== reason) events.emit('enrolment.requested', { gateway, key, claim, reason });
    return { state: 'waiting', reason, again: again.waiting };
  }

  /** By what a request is approved. Undefined: a person decides. */
  #approval(
    { key, gateway, claim, serial }: Pick<EnrolmentRecord, 'key' | 'gateway' | 'claim' | 'serial'>,
    code: string | undefined,
    taken: string | undefined,
  ): string | undefined {
    const { settings, codes, events, clock } = this.#parts;
    if (code !== undefined)
      try {
        const good = codes.use(code, key, claim, gateway);
        if (good === undefined && taken !== undefined)
          throw new PosternError('conflict', `${taken}; the code is not for this name alone`);
        return 'code';
      } catch (thrown) {
        const { code: kind, message: reason } = asPosternError(thrown);
        if (kind === 'conflict') events.emit('enrolment.code-used', { gateway, key, reason });
        throw thrown;
      }
    if (taken !== undefined) return this.#parts.replacements.use(gateway, serial) ? 'replacement' : undefined;
    const fits = (wanted: string | undefined, value: string | undefined) =>
      wanted === undefined || wanted === value;
    const isListed = settings.allow.some(
      (entry) => fits(entry.gateway, gateway) && fits(entry.serial, serial) && fits(entry.claim, claim),
    );
    if (isListed) return 'list';
    const rule = settings.policy.find((one) => matchesDevice(one.gateway, gateway) && fits(one.claim, claim));
    if (!rule) return undefined;
    const rate = { rate: rule.rate / 3600, burst: rule.rate };
    const name = JSON.stringify([rule.gateway, rule.claim]);
    const bucket = this.#policy.get(name) ?? new TokenBucket(rate, clock.now());
    this.#policy.set(name, bucket);
    return bucket.take(rate, clock.now()) ? 'policy' : undefined;
  }

  /**
   * Who has a name already, in words. Only a code for this name, an order to replace it, or a person gives it to another board. The
   * same holds for the name of a board that is gone.
   */
  #holderOf(gateway: string, key: string): string | undefined {
    const holder = this.#parts.records.holder(gateway);
    if (holder && holder.key !== key) return `another board is enrolled as ${gateway}`;
    const gone = this.#parts.records.gone(gateway);
    if (gone) return `the board of ${gateway} was ${gone.reason}`;
    if (!holder && this.#parts.parties.get(gateway)) return `${gateway} has an account in the configuration`;
    return undefined;
  }

  /** @throws {PosternError} `forbidden` for a name that no gateway may have */
  #demandFree(gateway: string): void {
    const { reserved, settings, parties } = this.#parts;
    if (reserved.includes(gateway) || settings.claims.includes(gateway))
      throw new PosternError('forbidden', `the name ${gateway} is reserved`);
    if (parties.get(gateway)?.kind === 'device')
      throw new PosternError('forbidden', `${gateway} is a device`);
  }

  /** In a transaction. A gateway with an account in the configuration keeps it. */
  #approve(record: EnrolmentRecord, by: string): void {
    const { records, parties, events, database, replacements, replaced } = this.#parts;
    const { gateway, key } = record;
    const before = records.holder(gateway);
    records.approve(record, by, parties.configured(gateway));
    if (before && before.key !== key) {
      replacements.done(gateway);
      replaced(gateway);
    }
    database.afterCommit(() => {
      events.emit('enrolment.approved', { gateway, key, by });
      this.#know(this.record(key));
    });
  }

  #know(record: EnrolmentRecord): void {
    try {
      this.#parts.parties.enrol(record.gateway, this.#parts.records.secretsOf(record));
    } catch (thrown) {
      const { message: reason } = asPosternError(thrown);
      this.#parts.events.emit('enrolment.failed', { gateway: record.gateway, reason });
    }
  }

  /** The grant of an approved board, with a certificate that has at least half of its time left. */
  async #grant(record: EnrolmentRecord): Promise<EnrolmentAnswer> {
    const { records, database, serverId } = this.#parts;
    const { gateway, publicKey } = record;
    const secrets = records.secretsOf(record);
    const chain = this.#isFresh(record) ? (record.chain ?? '') : await this.#issue(record);
    await database.settled();
    const grant = encodeEnrolmentGrant({
      gateway,
      chain: certificatesIn(chain),
      server: serverId,
      ...secrets,
      topics: gatewayTopics(gateway),
    });
    const recipient = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' });
    return { state: 'granted', sealed: sealTo(recipient, grantInfo, grant) };
  }

  #isFresh({ chain }: EnrolmentRecord): boolean {
    if (chain === undefined) return false;
    const { validFromDate, validToDate } = new X509Certificate(chain);
    const end = validToDate.getTime();
    return end - this.#parts.clock.wall() > (end - validFromDate.getTime()) / 2;
  }

  /** Issues another certificate for the key of a board. It is not stored. */
  async issueAgain({ gateway, publicKey }: EnrolmentRecord): Promise<Issued> {
    const { authority, settings } = this.#parts;
    return await authority.issue(gateway, publicKey, settings.days);
  }

  async #issue(record: EnrolmentRecord): Promise<string> {
    const issued = await this.issueAgain(record);
    this.#parts.records.issued(record.key, issued);
    return issued.chain;
  }
}

/** The certificates of a PEM text, in DER. */
export const certificatesIn = (pem: string): Uint8Array[] =>
  (pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map(
    (one) => new X509Certificate(one).raw,
  );
