import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { background } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { certificatesOf, named, readPem } from '../base/pem.ts';
import { keyFileOf, PlatformSealing, Sealing } from '../base/sealing.ts';
import { type EnrolmentAnswer, encodeEnrolmentAnswer } from '../wire/tunnel/enrolment-message.ts';
import { MqttLink } from '../wire/tunnel/mqtt-link.ts';
import type { MqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import {
  enrolmentRequests,
  enrolmentTopics,
  gatewayTopics,
  goneUnit,
  headendCarrier,
  parseEnrolmentTopic,
} from '../wire/tunnel/topics.ts';
import { CertificateAuthority } from './certificate-authority.ts';
import { type Departure, Departures, type DeparturesParts, type NextOwner } from './departures.ts';
import { EnrolmentCodes, type NewCode } from './enrolment-codes.ts';
import type { EnrolmentConfig } from './enrolment-config.ts';
import { type BoardManifest, certificatesIn, EnrolmentDesk } from './enrolment-desk.ts';
import { type EnrolmentRecord, EnrolmentRecords } from './enrolment-records.ts';
import type { Parties } from './parties.ts';
import { Renewals, type RenewalsParts } from './renewals.ts';
import { type Replacement, Replacements } from './replacements.ts';

export interface EnrolmentParts
  extends Pick<RenewalsParts, 'manage' | 'isOnline'>,
    Pick<DeparturesParts, 'unreachableDevices' | 'notifier'> {
  readonly serverId: string;
  readonly route: string;
  readonly group?: string | undefined;
  /** State file, beside which the sealing key is. */
  readonly state: string;
  readonly mqtt: MqttSettings;
  readonly settings: EnrolmentConfig;
  readonly parties: Parties;
  /** Called in the transaction that gives the name of a board to another one. */
  readonly replaced: (gateway: string) => void;
  /** Called when a gateway has no account any more. */
  readonly gone: (gateway: string) => void;
  /** Called when the account of a gateway was taken away by force. */
  readonly revoked: (gateway: string) => void;
  /** Called when a board that was replaced asks again. */
  readonly returned: (gateway: string, key: string) => void;
  readonly database: Database;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Seconds for which the broker keeps an answer for a board that is away. The board asks again. */
const answerExpiry = 300;

/**
 * Enrols gateways over the broker. It has a connection of its own: a broker that forbids the topics of enrolment does not
 * stop the management of gateways.
 */
export class Enrolment implements AsyncDisposable {
  readonly #parts: EnrolmentParts;
  readonly #records: EnrolmentRecords;
  readonly #codes: EnrolmentCodes;
  readonly #replacements: Replacements;
  readonly #desk: EnrolmentDesk;
  readonly #authority: CertificateAuthority;
  /** Orders that gateways leave this server. */
  readonly departures: Departures;
  readonly #renewals: Renewals;
  readonly #link: MqttLink;

  /** @throws {PosternError} `configuration` when the files of the authority or the sealing key cannot be used */
  constructor(parts: EnrolmentParts) {
    const { serverId, route, group, state, mqtt, settings, clock, entropy, events } = parts;
    this.#parts = parts;
    const file = keyFileOf(state);
    const sealing =
      state === ':memory:'
        ? new Sealing(entropy.bytes(32), entropy)
        : new PlatformSealing({ file }, entropy, (reason) =>
            events.emit('state.key-unusable', { file, reason }),
          );
    this.#records = new EnrolmentRecords({ ...parts, sealing });
    this.#codes = new EnrolmentCodes(parts);
    this.#replacements = new Replacements({ ...parts, records: this.#records });
    const authority = new CertificateAuthority(settings, parts);
    this.#authority = authority;
    this.departures = new Departures({
      ...parts,
      sealing,
      records: this.#records,
      gone: (gateway) => {
        parts.gone(gateway);
        this.#tellHolder(gateway);
      },
    });
    this.#desk = new EnrolmentDesk({
      ...parts,
      reserved: ownNames(serverId, mqtt),
      authority,
      records: this.#records,
      codes: this.#codes,
      replacements: this.#replacements,
    });
    this.#renewals = new Renewals({ ...parts, records: this.#records, desk: this.#desk, authority });
    this.#link = new MqttLink({
      settings: mqtt,
      clientId: `${serverId}-${route}-enrol`,
      subscriptions: [group === undefined ? enrolmentRequests : `$share/${group}/${enrolmentRequests}`],
      carrier: { topic: headendCarrier, isNeeded: () => false },
      clock,
      entropy,
      events,
      received: (topic, payload) =>
        void background(events, 'enrolment', async () => await this.#received(topic, payload)),
    });
  }

  /** True while boards can ask. */
  get connected(): boolean {
    return this.#link.connected;
  }

  /** Connects to the broker. Returns before the connection is up. */
  start(): void {
    this.#renewals.start();
    this.#link.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#renewals[Symbol.dispose]();
    await this.#link[Symbol.asyncDispose]();
  }

  /**
   * A gateway is online: its certificate is renewed if that is due. Where a board was replaced, both boards are told which
   * one has the name.
   */
  gatewayOnline(gateway: string): void {
    this.#renewals.lookSoon();
    this.departures.gatewayOnline(gateway);
    if (this.#records.hadOther(gateway)) this.#tellHolder(gateway);
  }

  /** Whether a gateway has left this server, so that nothing of it is looked at. */
  isGone(gateway: string): boolean {
    return this.#parts.parties.get(gateway) === undefined && this.#records.gone(gateway) !== undefined;
  }

  /**
   * Orders that a gateway leaves this server.
   * @param by who orders it
   * @param force ends its account at once
   * @param next the next owner; absent when the gateway is decommissioned
   * @throws {PosternError} as `Departures.order`
   */
  leave(gateway: string, by: string, force: boolean, next?: NextOwner): void {
    const { database, isOnline, revoked } = this.#parts;
    database.transaction(() => {
      this.departures.order(gateway, by, next);
      if (force) this.departures.revoke(gateway);
    });
    if (force) revoked(gateway);
    else if (isOnline(gateway)) this.departures.gatewayOnline(gateway);
  }

  /**
   * Takes an order back. The gateway is asked to confirm that, if it may have the order.
   * @throws {PosternError} as `Departures.cancel`
   */
  takeBack(gateway: string, order: Departure['order']): void {
    this.departures.cancel(gateway, order);
    if (this.#parts.isOnline(gateway)) this.departures.gatewayOnline(gateway);
  }

  /** Tells the boards of a name which board has it: by its certificate, or by one for no board where the latest one is gone. */
  #tellHolder(gateway: string): void {
    const { holder: topic } = gatewayTopics(gateway);
    void background(this.#parts.events, 'enrolment', async () => {
      const gone = this.#records.gone(gateway);
      const chain = gone ? await this.#certificateOfNobody(gone) : this.#records.holder(gateway)?.chain;
      const [payload] = certificatesIn(chain ?? '');
      if (!payload) return;
      // The broker keeps it. If it is lost, the next start of a board brings it again.
      await this.#link
        .publish({ topic, payload: Buffer.from(payload), retain: true })
        .catch((thrown) => this.#lost(gateway, thrown));
    });
  }

  /**
   * A certificate by which a board learns that it is gone. Its key is thrown away. It is as old as the certificate of that board, so
   * that no later board of the name believes that another one has replaced it.
   */
  async #certificateOfNobody({ gateway, key, chain }: EnrolmentRecord): Promise<string> {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const spki = publicKey.export({ type: 'spki', format: 'der' });
    const { days } = this.#parts.settings;
    const from = chain === undefined ? undefined : new X509Certificate(chain).validFromDate;
    return (await this.#authority.issue(gateway, spki, days, goneUnit(key), from)).chain;
  }

  #lost(claim: string, thrown: unknown): void {
    const { message } = asPosternError(thrown);
    this.#parts.events.emit('enrolment.request-refused', { claim, reason: `a message was lost: ${message}` });
  }

  /**
   * Orders that the next board which asks by the name of a gateway replaces its board.
   * @throws {PosternError} `notFound` when no board is enrolled by this name
   */
  replace(gateway: string, hours: number, serial?: string): Replacement {
    return this.#replacements.order(gateway, hours, serial);
  }

  /** Takes such an order back. @throws {PosternError} `notFound` */
  keep(gateway: string): void {
    this.#replacements.cancel(gateway);
  }

  /** Lists the boards that have asked, the latest first: at most `limit`, and only numbers below `before`. */
  list(limit: number, before?: number): EnrolmentRecord[] {
    return this.#records.latest(limit, before);
  }

  /**
   * Makes a one-time code.
   * @param gateway the only name that it is good for
   * @throws {PosternError} `full`
   */
  makeCode(hours: number, gateway?: string): NewCode {
    return this.#codes.make(hours, gateway);
  }

  /**
   * Takes the boards of a factory's batch. Returns how many are new.
   * @throws {PosternError} as `EnrolmentDesk.takeManifest`
   */
  takeManifest(manifest: BoardManifest): number {
    return this.#desk.takeManifest(manifest);
  }

  /**
   * Approves a board by hand.
   * @param gateway the name that it asks for, as the person has seen it
   * @throws {PosternError} `notFound`, `conflict`, `forbidden`
   */
  async approve(key: string, gateway: string): Promise<EnrolmentRecord> {
    return this.#decided(key, await this.#desk.approve(key, gateway));
  }

  /**
   * Refuses a board by hand. It may be approved later.
   * @throws {PosternError} `notFound`, `conflict`
   */
  async refuse(key: string, reason: string): Promise<EnrolmentRecord> {
    return this.#decided(key, await this.#desk.refuse(key, reason));
  }

  /** Tells a board at once, if it is there. Otherwise it hears when it asks again. */
  #decided(key: string, answer: EnrolmentAnswer): EnrolmentRecord {
    const record = this.#desk.record(key);
    void background(
      this.#parts.events,
      'enrolment',
      async () => await this.#publish(record.claim, key, answer),
    );
    return record;
  }

  async #received(topic: string, payload: Buffer): Promise<void> {
    const place = parseEnrolmentTopic(topic);
    if (!place) return;
    const answer = await this.#desk.answer(place.claim, place.client, payload);
    if (answer) await this.#publish(place.claim, place.client, answer);
  }

  async #publish(claim: string, client: string, answer: EnrolmentAnswer): Promise<void> {
    const { down: topic } = enrolmentTopics(claim, client);
    try {
      await this.#link.publish({
        topic,
        payload: encodeEnrolmentAnswer(answer),
        expiry: answerExpiry,
        flow: client,
      });
    } catch (thrown) {
      this.#lost(claim, thrown);
    }
  }
}

/** Names by which the broker may know this server. A gateway of such a name could read and write everything. */
function ownNames(serverId: string, { username, cert }: MqttSettings): string[] {
  const key = 'mqtt.cert';
  const pem = cert === undefined ? undefined : readPem(cert, key);
  const [certificate] =
    cert === undefined || pem === undefined ? [] : named({ key, file: cert }, () => certificatesOf(pem));
  const name = certificate && /^CN=(.*)$/m.exec(certificate.subject)?.[1];
  return [serverId, username, name].filter((one) => one !== undefined);
}
