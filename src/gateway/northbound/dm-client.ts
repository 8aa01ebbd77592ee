import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import {
  ClientSession,
  type Exchange,
  type Incoming,
  type OutgoingAlert,
  runClientSession,
  succeeded,
} from '../../dm/client-session.ts';
import { hmacHeader } from '../../dm/hmac-header.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import type { ManagementTree } from '../../dm/tree.ts';
import type { Accounts } from '../../mo/dm-acc.ts';
import { gatewayFaultAlert } from '../../mo/gateway-alerts.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import { decodeMessage, encodeMessage } from '../../wire/syncml/codec.ts';
import { decodeNotification, sessionIdText } from '../../wire/syncml/notification.ts';
import { type Envelope, EnvelopeKind } from '../../wire/tunnel/envelope.ts';
import { deviceKinds, type Outbox, type OutboxEntry } from '../store/outbox.ts';
import { AlertBatches } from './alert-batches.ts';
import { AlertDeliveries } from './alert-deliveries.ts';
import { MessageLimit } from './message-limit.ts';
import { alertOf, demandEncodable } from './outgoing-alerts.ts';
import { SessionLanes } from './session-lanes.ts';
import type { TelemetryReports } from './telemetry-reports.ts';
import type { Uplink } from './uplink.ts';

export interface DmClientParts {
  readonly gatewayId: string;
  /** ServerID of the gateway's own DM server, which gets the alerts about devices. */
  readonly serverId: string;
  /** Media type of the packages that the gateway sends. */
  readonly mediaType: string;
  /** Whether the uplink is encrypted and has verified its other end, which admits the DM servers. */
  readonly isUplinkVerified: boolean;
  readonly accounts: Accounts;
  readonly tree: ManagementTree;
  readonly outbox: Outbox;
  /** Reports of values. They have sessions of their own, because the data budget has a class of its own for them. */
  readonly telemetry?: Pick<TelemetryReports, 'servers' | 'hasOthers' | 'take' | 'ended'>;
  readonly vocabulary: Vocabulary;
  readonly upstream: Pick<Uplink, 'request' | 'connected' | 'largestBody'>;
  /** Resolves when what a message acknowledges is durable. */
  readonly settled: () => Promise<void>;
  /** What is wrong with this gateway, where no broker keeps its state. Its own server is told in the next session. */
  readonly problem?: (() => string | undefined) | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Alerts that are made in one turn of the event loop. Devices are served between two turns. */
const madeAtOnce = 32;

/**
 * The gateway as DM client of its DM servers. It runs one session at a time with each: when a server asks for it by Package #0, or
 * when the outbox holds alerts for that server. The gateway's own DM server gets the alerts about devices. Another DM
 * server, which has rights in the gateway's tree, gets only the results of operations that it started itself. An alert
 * is removed from the outbox only when the server answers it with a status of success.
 */
export class DmClient implements AsyncDisposable {
  readonly #parts: DmClientParts;
  readonly #lanes: SessionLanes;
  readonly #deliveries: AlertDeliveries;
  readonly #messageLimit: MessageLimit;
  readonly #batches = new AlertBatches();
  /** Session IDs that servers asked for by Package #0, by ServerID. Each of these servers has an account here. */
  readonly #asked = new Map<string, string>();
  /** Servers to be contacted even if there is nothing to report. */
  readonly #contacts = new Set<string>();
  /** The problem that the own server knows of: not known after a start, undefined when there is none. */
  #toldProblem: string | undefined | null = null;
  #nextSessionId: number;

  constructor(parts: DmClientParts) {
    this.#parts = parts;
    this.#deliveries = new AlertDeliveries(parts.outbox, parts.clock, () => this.wake(), parts.events);
    this.#lanes = new SessionLanes({
      ...parts,
      own: parts.serverId,
      due: () => this.#dueServers(),
      mayHaveOthers: () =>
        this.#asked.size + this.#contacts.size > 0 ||
        parts.outbox.mayHaveOthers ||
        parts.telemetry?.hasOthers(parts.serverId) === true,
      isCalled: (server) => this.#asked.has(server) || this.#contacts.has(server),
      // Reports have gathered their values already.
      isUrgent: () =>
        this.#batches.isReduced(parts.serverId) ||
        parts.outbox.hasOtherThan(deviceKinds) ||
        parts.telemetry?.servers().includes(parts.serverId) === true,
      run: (server) => this.#hasFailed(server),
    });
    this.#messageLimit = new MessageLimit(parts.clock, () => parts.upstream.largestBody);
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /**
   * Starts to work when there is something to do. To be called when alerts were added, or the uplink is connected
   * again. An alert with the result of an operation does not wait for other alerts.
   */
  wake(): void {
    this.#lanes.wake();
  }

  /**
   * Takes a Package #0 for the gateway itself.
   * @throws {PosternError} `malformed`, `unauthorized` for a wrong digest, or without an account
   */
  notified(body: Uint8Array): void {
    const notification = decodeNotification(body);
    const { accounts, events } = this.#parts;
    if (!accounts.believes(notification)) {
      events.emit('notification.refused', { server: notification.serverId });
      throw new PosternError('unauthorized', 'the digest of Package #0 is wrong');
    }
    this.#asked.set(notification.serverId, sessionIdText(notification.sessionId));
    this.wake();
  }

  /** Opens a session with a server even if there is nothing to report, so that the server knows of this gateway. */
  contact(serverId: string): void {
    this.#contacts.add(serverId);
    this.wake();
  }

  /** A server has no account any more. It is not contacted. */
  forget(serverId: string): void {
    this.#asked.delete(serverId);
    this.#contacts.delete(serverId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#deliveries.stop();
    await this.#lanes[Symbol.asyncDispose]();
  }

  /** Runs one session. Returns whether it has failed. */
  async #hasFailed(server: string): Promise<boolean> {
    const asked = this.#asked.get(server);
    this.#asked.delete(server);
    const isContact = this.#contacts.delete(server);
    const session = asked ?? this.#takeSessionId();
    const reason = await this.#session(server, session, asked !== undefined, isContact);
    if (reason === undefined || this.#lanes.signal.aborted) return false;
    if (isContact && this.#parts.accounts.find(server)) this.#contacts.add(server);
    this.#parts.events.emit('dm.session-failed', { server, session, reason });
    return true;
  }

  /** ServerIDs of the servers that asked, are to be contacted, or have alerts in the outbox. */
  #dueServers(): Set<string> {
    const { serverId, upstream, telemetry } = this.#parts;
    if (!upstream.connected) return new Set();
    return new Set([
      ...this.#asked.keys(),
      ...this.#contacts,
      ...this.#deliveries.servers().map((server) => server ?? serverId),
      ...(telemetry?.servers() ?? []),
    ]);
  }

  /** Runs one session. Returns why the session or an alert in it failed, or undefined on success. */
  async #session(
    serverId: string,
    sessionId: string,
    notified: boolean,
    isContact: boolean,
  ): Promise<string | undefined> {
    const { gatewayId, accounts, tree, telemetry, entropy, events } = this.#parts;
    const isOwn = serverId === this.#parts.serverId;
    const account = accounts.find(serverId);
    if (!account) return `no account for ${serverId}`;
    // An alert leaves when its number is durable. Without that, the server can still read in a session that it asked for.
    const fault = await this.#fault();
    if (fault !== undefined && !notified && !isContact) return fault;
    const most = fault === undefined ? this.#batches.size(serverId, notified) : 0;
    const due = this.#deliveries.due(isOwn ? undefined : serverId, most);
    const unanswered = new Set<OutboxEntry>(due);
    const maxMsgSize = this.#messageLimit.bytes;
    const alerts: OutgoingAlert[] = [];
    for (const [at, entry] of due.entries()) {
      if (at % madeAtOnce === madeAtOnce - 1) await turn();
      alerts.push(...this.#alert(entry, serverId, () => unanswered.delete(entry)));
    }
    // They promise something. That the disk takes nothing promises nothing.
    const numbered = alerts.length;
    const reports = !notified && !isContact && most > 0 && due.length === 0 ? telemetry?.take(serverId) : [];
    const isTelemetry = reports !== undefined && reports.length > 0;
    if (isTelemetry) alerts.push(...reports);
    else if (isOwn) alerts.push(...this.#problemAlert());
    const session = new ClientSession({
      ends: { local: gatewayId, remote: serverId },
      account,
      saveNonces: accounts.nonceKeeper(serverId),
      tree,
      entropy,
      sessionId,
      mediaType: this.#parts.mediaType,
      isPeerVerified: this.#parts.isUplinkVerified,
      maxMsgSize,
      notified,
      alerts,
      executed: (command, uri, status) =>
        events.emit('dm.command', { server: serverId, session: sessionId, command, uri, status }),
    });
    events.emit('dm.session-started', {
      server: serverId,
      session: sessionId,
      alerts: alerts.length,
      notified,
    });
    try {
      const outcome = await runClientSession(session, (message, seal) =>
        this.#exchange(serverId, isTelemetry, () => numbered > 0 || session.hasChanged, message, seal),
      );
      this.#deliveries.forgetDelivered();
      events.emit('dm.session-ended', {
        server: serverId,
        session: sessionId,
        status: outcome.status,
      });
      if (!succeeded(outcome)) {
        if (!isTelemetry) this.#failed(serverId, sessionId, notified, unanswered);
        return outcome.reason;
      }
      // Reports say nothing of whether an alert is a culprit.
      if (isTelemetry) return undefined;
      const culprit = this.#batches.succeeded(serverId);
      if (culprit) this.#blame(culprit, serverId);
      if (unanswered.size > 0) {
        events.emit('alert.unanswered', { server: serverId, session: sessionId, alerts: unanswered.size });
        for (const entry of unanswered) this.#deliveries.unanswered(entry);
      }
      return undefined;
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      // The session begins again, with smaller messages.
      const isSmaller = code === 'tooLarge' && this.#messageLimit.refused(maxMsgSize);
      if (!isSmaller && !isTelemetry) this.#failed(serverId, sessionId, notified, unanswered);
      else if (notified) this.#asked.set(serverId, sessionId);
      return message;
    } finally {
      if (isTelemetry) telemetry?.ended(serverId);
    }
  }

  /** A session has failed. `alerts` are those that the server did not answer in it. */
  #failed(server: string, session: string, notified: boolean, alerts: ReadonlySet<OutboxEntry>): void {
    if (!this.#parts.upstream.connected) return;
    const all = [...alerts];
    this.#batches.failed(
      server,
      all,
      all.some((entry) => this.#deliveries.isAlone(entry)),
    );
    // An alert may be the cause. The session that the server asked for begins again, without alerts.
    if (notified && alerts.size > 0) this.#asked.set(server, session);
  }

  /** The alert of a problem that has come or has ended. It is in no outbox: the disk may be the problem. */
  #problemAlert(): OutgoingAlert[] {
    const { problem: ask, vocabulary } = this.#parts;
    if (!ask) return [];
    const problem = ask();
    if (problem === this.#toldProblem) return [];
    const kind = problem === undefined ? 'problem-ended' : 'problem';
    const alert = gatewayFaultAlert(vocabulary, { sequence: 0, kind, reason: problem ?? 'it has ended' });
    const settled = (status: number) => {
      if (isOk(status)) this.#toldProblem = problem;
    };
    return [{ ...alert, settled }];
  }

  /** The server answers sessions, but none with this alert. */
  #blame(entry: OutboxEntry, server: string): void {
    const reason = 'the server refuses each package with this alert, or does not answer it';
    const { kind: alert, deviceId: device, sequence } = entry;
    if (this.#deliveries.blamed(entry, reason))
      this.#parts.events.emit('alert.set-aside', { device, alert, sequence, server, reason });
  }

  /** The alert of an outbox entry. None when it cannot be encoded: the entry is set aside, and the others go on. */
  #alert(entry: OutboxEntry, server: string, answered: () => void): OutgoingAlert[] {
    const { events, vocabulary, mediaType } = this.#parts;
    const { kind, deviceId, sequence } = entry;
    const fields = { device: deviceId, alert: kind, sequence, server };
    try {
      const alert = alertOf(vocabulary, entry);
      demandEncodable(alert, mediaType);
      const settled = (status: number) => {
        answered();
        if (isOk(status)) {
          this.#deliveries.delivered(entry, () => events.emit('alert.delivered', { ...fields, status }));
          return;
        }
        const epoch = status === DmStatus.AlreadyExists ? this.#deliveries.forgotten(entry) : undefined;
        if (epoch !== undefined) {
          if (epoch !== 'begun') events.emit('state.taken-back', { server, epoch });
          return;
        }
        events.emit('alert.refused', { ...fields, status });
        if (this.#deliveries.refused(entry, status))
          events.emit('alert.set-aside', { ...fields, reason: `the server answers with ${status}` });
      };
      return [{ ...alert, settled }];
    } catch (thrown) {
      answered();
      const { message: reason } = asPosternError(thrown);
      this.#deliveries.setAside(entry, reason);
      events.emit('alert.set-aside', { ...fields, reason });
      return [];
    }
  }

  /**
   * Sends a package and returns the answer package.
   * @param isTelemetry whether it belongs to a session with reports of values
   * @param promises whether the package promises something, which must be durable
   * @throws {PosternError} as `Uplink.request`; `unavailable` when the far end reports an error
   */
  async #exchange(
    serverId: string,
    isTelemetry: boolean,
    promises: () => boolean,
    ...[message, seal]: Parameters<Exchange>
  ): Promise<Incoming> {
    const { upstream, mediaType } = this.#parts;
    const body = encodeMessage(message, mediaType);
    const hmac = seal(body);
    this.#deliveries.forgetDelivered();
    const fault = await this.#fault();
    if (fault !== undefined && promises()) throw new PosternError('storage', fault);
    const answer = await upstream.request({
      server: serverId,
      contentType: mediaType,
      body,
      ...(isTelemetry && { traffic: 'telemetry' }),
      ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }),
    });
    if (answer.kind === EnvelopeKind.Error) throw farError(answer);
    const { body: received = new Uint8Array(), contentType = mediaType, headers } = answer;
    return {
      message: decodeMessage(received, contentType),
      seal: { body: received, hmac: headers?.[hmacHeader] },
    };
  }

  /** Waits until all is durable. Returns why the disk does not take it. */
  async #fault(): Promise<string | undefined> {
    try {
      await this.#parts.settled();
      return undefined;
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code !== 'storage') throw thrown;
      return message;
    }
  }

  #takeSessionId(): string {
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    return sessionIdText(this.#nextSessionId);
  }
}

const farError = ({ status, reason }: Envelope): PosternError =>
  new PosternError(
    status === DmStatus.RequestEntityTooLarge ? 'tooLarge' : 'unavailable',
    `the far end answered ${status ?? 500}: ${reason ?? 'no reason given'}`,
  );
