import { background } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Timer } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { LockOut } from '../dm/lock-out.ts';
import { type Opening, ServerSession, type Work } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { decodeMessage, encodeMessage } from '../wire/syncml/codec.ts';
import type { Alert } from '../wire/syncml/message.ts';
import type { DownPackage, UpPackage } from './downlink.ts';
import type { Parties, Party } from './parties.ts';

/** Whose session it is, and through which gateway it comes. */
export interface SessionContext {
  readonly party: Party;
  /**
   * For a device: the gateway nearest to it. For a gateway: the gateway itself, or its parent gateway if it has one.
   */
  readonly gateway: string;
  readonly sessionId: string;
}

export interface SessionsParts {
  readonly serverId: string;
  readonly parties: Parties;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** What this server does in a session after the party has proved itself. */
  readonly work: (context: SessionContext, opening: Opening) => Work;
  /** Handles an alert of the party and returns the alert's DM status. */
  readonly handleAlert: (context: SessionContext, alert: Alert) => number;
}

interface OpenSession {
  readonly session: ServerSession;
  readonly context: SessionContext;
  idleTimer: Timer;
}

/** Open sessions, and milliseconds between two packages of a session. */
const limits = { sessions: 4096, idle: 120_000 } as const;

/** The DM sessions of this server. A package of a party goes in, the answer comes out. */
export class Sessions {
  readonly #parts: SessionsParts;
  readonly #open: BoundedMap<string, OpenSession>;
  readonly #lockOut: LockOut;

  constructor(parts: SessionsParts) {
    this.#parts = parts;
    this.#lockOut = new LockOut(parts.clock);
    this.#open = new BoundedMap(limits.sessions, (_, open) =>
      this.#abandon(open, DmStatus.DeviceFull, 'too many sessions'),
    );
  }

  /**
   * Passes a package of a party to its session, which begins with the first package, and returns the answer.
   * @throws {PosternError} `unauthorized` for an unknown party, `forbidden` when the message names another source
   * than the envelope, `lockedOut` after too many failed proofs, `malformed`, `unsupportedFormat`
   */
  async receive({ gateway: brokerGateway, envelope }: UpPackage): Promise<DownPackage> {
    // A device belongs to the gateway nearest to it, not to the gateway that is connected to the broker.
    const gateway = envelope.via ?? brokerGateway;
    const { contentType = '', body = new Uint8Array(), headers } = envelope;
    const message = decodeMessage(body, contentType);
    const { sessionId, source, msgId } = message.header;
    const partyId = envelope.device ?? brokerGateway;
    if (source.locUri !== partyId)
      throw new PosternError('forbidden', `a package of ${source.locUri} in the name of ${partyId}`);
    const party = this.#parts.parties.get(partyId);
    if (!party) throw new PosternError('unauthorized', `${partyId} is not known here`);
    const lockKey = `${gateway} ${partyId}`;
    this.#lockOut.check(lockKey);
    const key = `${lockKey} ${sessionId}`;
    const known = this.#open.get(key);
    if (known && msgId === 1 && known.session.outcome) this.#close(key, known);
    const open = this.#open.get(key) ?? this.#begin(key, { party, gateway, sessionId });
    this.#restartIdleTimer(key, open);
    const outcomeBefore = open.session.outcome;
    const answer = await open.session.receive(message, { body, hmac: headers?.[hmacHeader] });
    const { outcome } = open.session;
    if (open.session.authenticated) this.#lockOut.succeeded(lockKey);
    else if (outcome?.status === DmStatus.InvalidCredentials && !outcomeBefore) this.#lockOut.failed(lockKey);
    if (outcome && !outcomeBefore)
      this.#parts.events.emit(isOk(outcome.status) ? 'session.ended' : 'session.failed', {
        device: partyId,
        gateway,
        session: sessionId,
        status: outcome.status,
        reason: outcome.reason,
      });
    const coded = encodeMessage(answer, contentType);
    const hmac = open.session.seal(coded);
    return { contentType, body: coded, ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }) };
  }

  /** Lists the sessions that have not ended. */
  list(): { party: string; gateway: string; session: string }[] {
    return [...this.#open.values()]
      .filter(({ session }) => !session.outcome)
      .map(({ context: { party, gateway, sessionId } }) => ({
        party: party.id,
        gateway,
        session: sessionId,
      }));
  }

  /** Ends all open sessions with status 514. */
  async stop(): Promise<void> {
    for (const [key, open] of [...this.#open.entries()]) {
      this.#close(key, open);
      await this.#abandon(open, DmStatus.SessionAborted, 'the server stops');
    }
  }

  #begin(key: string, context: SessionContext): OpenSession {
    const { serverId, parties, entropy, events, work, handleAlert } = this.#parts;
    const { party, gateway, sessionId } = context;
    events.emit('session.started', { device: party.id, gateway, session: sessionId });
    const session = new ServerSession({
      ends: { local: serverId, remote: party.id },
      account: parties.account(serverId, party),
      saveNonces: parties.nonceKeeper(party.id),
      entropy,
      sessionId,
      work: (opening) => work(context, opening),
      alerted: (alert) => handleAlert(context, alert),
    });
    const open: OpenSession = { session, context, idleTimer: { cancel() {} } };
    this.#open.set(key, open);
    return open;
  }

  #restartIdleTimer(key: string, open: OpenSession): void {
    open.idleTimer.cancel();
    open.idleTimer = this.#parts.clock.after(limits.idle, () => {
      this.#open.delete(key);
      this.#abandon(open, 408, 'the device did not come back');
    });
  }

  #close(key: string, open: OpenSession): void {
    open.idleTimer.cancel();
    this.#open.delete(key);
  }

  /** Ends a session whose party is not waiting for anything. Never rejects. */
  #abandon({ session, context, idleTimer }: OpenSession, status: number, reason: string): Promise<void> {
    const { events } = this.#parts;
    return background(events, 'session-end', async () => {
      idleTimer.cancel();
      if (session.outcome) return;
      await session.abandon(status, reason);
      events.emit('session.failed', {
        device: context.party.id,
        gateway: context.gateway,
        session: context.sessionId,
        status,
        reason,
      });
    });
  }
}
