import { type Clock, type Monotonic, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { FieldsOf } from '../../base/event-table.ts';
import type { Events } from '../../base/events.ts';
import { backoff } from '../../base/retry.ts';
import {
  ClientSession,
  type Exchange,
  type Incoming,
  type OutgoingAlert,
  runClientSession,
  succeeded,
} from '../../dm/client-session.ts';
import { hmacHeader } from '../../dm/hmac-header.ts';
import { isOk } from '../../dm/status.ts';
import type { ManagementTree } from '../../dm/tree.ts';
import type { Accounts } from '../../mo/dm-acc.ts';
import { firmwareAlert } from '../../mo/firmware-branch.ts';
import {
  campaignAlert,
  type DeviceAttach,
  type DeviceDetach,
  deviceAttachAlert,
  deviceDetachAlert,
} from '../../mo/gateway-alerts.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import { decodeMessage, encodeMessage } from '../../wire/syncml/codec.ts';
import { decodeNotification, sessionIdText } from '../../wire/syncml/notification.ts';
import { type Envelope, EnvelopeKind } from '../../wire/tunnel/envelope.ts';
import type { Outbox, OutboxEntry } from '../store/outbox.ts';
import { type FirmwareUpdateBody, type ResultBody, resultAlerts } from './reports.ts';
import type { Uplink } from './uplink.ts';

export interface DmClientParts {
  readonly gatewayId: string;
  readonly serverId: string;
  /** Media type of the packages sent. */
  readonly mediaType: string;
  readonly accounts: Accounts;
  readonly tree: ManagementTree;
  readonly outbox: Outbox;
  readonly vocabulary: Vocabulary;
  readonly upstream: Pick<Uplink, 'request' | 'connected'>;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Alerts of one session. */
const alertsPerSession = 1024;
/**
 * Milliseconds between sessions for alerts alone, doubling while they keep coming: the first goes at once, a storm in a
 * handful of sessions. After as long as the cap without any it begins anew.
 */
const gathering = { first: 250, cap: 15_000 } as const;
const gathered = ['device-attach', 'device-detach'] as const;
const retry = { first: 1000, cap: 300_000, jitter: 0.5 } as const;

const isResult = (kind: string): kind is keyof typeof resultAlerts => Object.hasOwn(resultAlerts, kind);

/** The alert that an entry of the outbox stands for. */
function alertOf(
  vocabulary: Vocabulary,
  { kind, sequence, deviceId, body }: OutboxEntry,
): Omit<OutgoingAlert, 'settled'> {
  const parsed = JSON.parse(body) as object;
  const fields = { ...parsed, sequence, deviceId };
  if (kind === 'device-attach') return deviceAttachAlert(vocabulary, fields as DeviceAttach);
  if (kind === 'device-detach') return deviceDetachAlert(vocabulary, fields as DeviceDetach);
  if (kind === 'firmware-update') {
    const { operation, correlator, result } = parsed as FirmwareUpdateBody;
    return firmwareAlert(operation, correlator, result);
  }
  if (!isResult(kind)) throw new PosternError('internal', `an alert of kind ${kind} in the outbox`);
  const { uri, correlator, result } = parsed as ResultBody;
  return campaignAlert(vocabulary.alerts[resultAlerts[kind]], uri, correlator, result);
}

/**
 * The gateway as a device of its DM servers: one session at a time, opened when a server asks by Package #0 or when the
 * outbox holds alerts for it. Its own server hears of devices; another, to whom the tree gave rights, of what it started.
 * An alert leaves the outbox when the server's status for it says so, and not before.
 */
export class DmClient implements AsyncDisposable {
  readonly #parts: DmClientParts;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  /** Sessions that servers asked for, by ServerID; each has an account here. */
  readonly #asked = new Map<string, string>();
  /** Servers to be contacted although nothing is to report. */
  readonly #contacts = new Set<string>();
  #wanted = false;
  /** When the last session with alerts began, and how long the next one waits from there. */
  #lastAlerts: Monotonic | undefined;
  #gathering = 0;
  /** Of the pause that is under way: what ends it early, besides a server that asks. */
  #pausing: { readonly forAlerts: boolean; readonly end: AbortController } | undefined;
  #nextSessionId: number;

  constructor(parts: DmClientParts) {
    this.#parts = parts;
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /**
   * There may be something to report: alerts were added, or the broker is there again. What an order came to does not wait
   * for other alerts.
   */
  wake(): void {
    this.#wanted = true;
    if (this.#isCalled || (this.#pausing?.forAlerts && this.#isUrgent())) this.#pausing?.end.abort();
    if (this.#stop.signal.aborted) return;
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined;
      if (this.#isDue()) this.wake();
    });
  }

  /**
   * Package #0 for the gateway itself.
   * @throws {PosternError} `unauthorized`, `malformed`, `notFound`
   */
  notified(body: Uint8Array): void {
    const notification = decodeNotification(body);
    const { accounts, events } = this.#parts;
    if (!accounts.find(notification.serverId))
      throw new PosternError('notFound', `no account for ${notification.serverId}`);
    if (!accounts.believes(notification)) {
      events.emit('notification.refused', { server: notification.serverId });
      throw new PosternError('unauthorized', 'the digest of Package #0 is wrong');
    }
    this.#asked.set(notification.serverId, sessionIdText(notification.sessionId));
    this.wake();
  }

  /** Opens a session with a server that there is an account for, so that it knows of this gateway. */
  contact(serverId: string): void {
    this.#contacts.add(serverId);
    this.wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** A server asked for a session, or is to be contacted. */
  get #isCalled(): boolean {
    return this.#asked.size > 0 || this.#contacts.size > 0;
  }

  #isDue(): boolean {
    const { outbox, upstream } = this.#parts;
    if (this.#stop.signal.aborted || !this.#wanted || !upstream.connected) return false;
    return this.#isCalled || outbox.servers().length > 0;
  }

  async #work(): Promise<void> {
    const { entropy, events } = this.#parts;
    const delays = backoff(retry, entropy);
    while (this.#isDue()) {
      await this.#gather();
      let failed = false;
      for (const server of this.#dueServers()) {
        const asked = this.#asked.get(server);
        this.#asked.delete(server);
        const isContact = this.#contacts.delete(server);
        const session = asked ?? this.#takeSessionId();
        const reason = await this.#session(server, session, asked !== undefined);
        if (reason === undefined || this.#stop.signal.aborted) continue;
        failed = true;
        if (isContact) this.#contacts.add(server);
        events.emit('dm.session-failed', { server, session, reason });
      }
      if (failed) await this.#pause(delays.next().value, false);
    }
    this.#wanted = false;
  }

  /** Lets alerts come together when they come one after the other; nobody waits who was asked. */
  async #gather(): Promise<void> {
    const { clock } = this.#parts;
    if (this.#isUrgent()) return;
    const since = this.#lastAlerts === undefined ? gathering.cap : clock.now() - this.#lastAlerts;
    if (since >= gathering.cap) this.#gathering = 0;
    else if (since < this.#gathering) await this.#pause(this.#gathering - since, true);
    this.#lastAlerts = clock.now();
    this.#gathering = Math.min(gathering.cap, Math.max(gathering.first, this.#gathering * 2));
  }

  #isUrgent(): boolean {
    return this.#isCalled || this.#parts.outbox.hasOtherThan(gathered);
  }

  async #pause(delay: number, forAlerts: boolean): Promise<void> {
    const end = new AbortController();
    this.#pausing = { forAlerts, end };
    const signal = AbortSignal.any([this.#stop.signal, end.signal]);
    await pause(this.#parts.clock, delay, signal).catch(() => {});
    this.#pausing = undefined;
  }

  /** Servers that asked, and those that something waits for. */
  #dueServers(): Set<string> {
    const { outbox, serverId } = this.#parts;
    return new Set([
      ...this.#asked.keys(),
      ...this.#contacts,
      ...outbox.servers().map((server) => server ?? serverId),
    ]);
  }

  /** Runs one session. Answers with why it, or an alert in it, failed. */
  async #session(serverId: string, sessionId: string, notified: boolean): Promise<string | undefined> {
    const { gatewayId, accounts, tree, entropy, events, outbox, vocabulary } = this.#parts;
    const isOwn = serverId === this.#parts.serverId;
    const account = accounts.find(serverId);
    if (!account) return `no account for ${serverId}`;
    let refused: string | undefined;
    let unanswered = 0;
    const alerts = outbox.peek(alertsPerSession, isOwn ? undefined : serverId).map((entry): OutgoingAlert => {
      return {
        ...alertOf(vocabulary, entry),
        settled: (status) => {
          unanswered--;
          const { kind, deviceId, sequence } = entry;
          const fields: FieldsOf<'alert.delivered' | 'alert.refused'> = {
            device: deviceId,
            alert: kind,
            sequence,
            status,
            server: serverId,
          };
          if (isOk(status)) {
            outbox.remove(sequence);
            events.emit('alert.delivered', fields);
          } else {
            refused = `the server answered an alert with ${status}`;
            events.emit('alert.refused', fields);
          }
        },
      };
    });
    unanswered = alerts.length;
    const session = new ClientSession({
      ends: { local: gatewayId, remote: serverId },
      account,
      saveNonces: accounts.nonceKeeper(serverId),
      tree,
      entropy,
      sessionId,
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
        this.#exchange(serverId, message, seal),
      );
      events.emit('dm.session-ended', {
        server: serverId,
        session: sessionId,
        status: outcome.status,
      });
      if (!succeeded(outcome)) return outcome.reason;
      return refused ?? (unanswered > 0 ? 'the server gave no status for an alert' : undefined);
    } catch (thrown) {
      return asPosternError(thrown).message;
    }
  }

  async #exchange(serverId: string, ...[message, seal]: Parameters<Exchange>): Promise<Incoming> {
    const { upstream, mediaType } = this.#parts;
    const body = encodeMessage(message, mediaType);
    const hmac = seal(body);
    const answer = await upstream.request({
      server: serverId,
      contentType: mediaType,
      body,
      ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }),
    });
    if (answer.kind === EnvelopeKind.Error) throw farError(answer);
    const { body: received = new Uint8Array(), contentType = mediaType, headers } = answer;
    return {
      message: decodeMessage(received, contentType),
      seal: { body: received, hmac: headers?.[hmacHeader] },
    };
  }

  #takeSessionId(): string {
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    return sessionIdText(this.#nextSessionId);
  }
}

const farError = ({ status, reason }: Envelope): PosternError =>
  new PosternError('unavailable', `the far end answered ${status ?? 500}: ${reason ?? 'no reason given'}`);
