import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { LockOut } from '../dm/lock-out.ts';
import { type Opening, ServerSession, type Work } from '../dm/server-session.ts';
import { SessionTable } from '../dm/session-table.ts';
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

/** Bounds of the sessions; times in milliseconds. */
const limits = {
  proven: 4096,
  unproven: 1024,
  unprovenOfHost: 256,
  idle: 120_000,
  silent: 10_000,
  unprovenSilent: 2000,
} as const;

/** The DM sessions of this server. A package of a party goes in, the answer comes out. */
export class Sessions {
  readonly #parts: SessionsParts;
  readonly #table: SessionTable<SessionContext>;
  readonly #lockOut: LockOut;

  constructor(parts: SessionsParts) {
    this.#parts = parts;
    this.#lockOut = new LockOut(parts.clock);
    this.#table = new SessionTable({
      clock: parts.clock,
      events: parts.events,
      limits,
      abandoned: ({ party, gateway, sessionId }, status, reason) =>
        parts.events.emit('session.failed', {
          device: party.id,
          gateway,
          session: sessionId,
          status,
          reason,
        }),
    });
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
    const { sessionId, source } = message.header;
    const partyId = envelope.device ?? brokerGateway;
    if (source.locUri !== partyId)
      throw new PosternError('forbidden', `a package of ${source.locUri} in the name of ${partyId}`);
    const party = this.#parts.parties.get(partyId);
    if (!party) throw new PosternError('unauthorized', `${partyId} is not known here`);
    // The address proves nothing, but it keeps apart what anyone sends in the name of the party.
    const sender = `${gateway} ${envelope.peer ?? ''}`;
    const lockKey = `${sender} ${partyId}`;
    this.#lockOut.check(lockKey);
    const seal = { body, hmac: headers?.[hmacHeader] };
    const { session, place } = this.#table.find(
      { key: `${gateway} ${partyId} ${sessionId}`, sender, host: sender, message, seal },
      () => this.#begin({ party, gateway, sessionId }),
    );
    if (place === 'new')
      this.#parts.events.emit('session.started', { device: partyId, gateway, session: sessionId });
    const outcomeBefore = session.outcome;
    const answer = await session.receive(message, seal);
    const { outcome } = session;
    if (session.authenticated && place !== 'repeated') this.#lockOut.succeeded(lockKey);
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
    const hmac = session.seal(coded);
    return { contentType, body: coded, ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }) };
  }

  /** Lists the sessions that have not ended. */
  list(): { party: string; gateway: string; session: string }[] {
    return [...this.#table.values()]
      .filter(({ session }) => !session.outcome)
      .map(({ owner: { party, gateway, sessionId } }) => ({ party: party.id, gateway, session: sessionId }));
  }

  /** Ends all open sessions with status 514. */
  async stop(): Promise<void> {
    await this.#table.end(() => true, DmStatus.SessionAborted, 'the server stops');
  }

  #begin(context: SessionContext): { session: ServerSession; owner: SessionContext } {
    const { serverId, parties, entropy, work, handleAlert } = this.#parts;
    const { party, sessionId } = context;
    const session = new ServerSession({
      ends: { local: serverId, remote: party.id },
      account: parties.account(serverId, party),
      saveNonces: parties.nonceKeeper(party.id),
      entropy,
      sessionId,
      work: (opening) => work(context, opening),
      alerted: (alert) => handleAlert(context, alert),
    });
    return { session, owner: context };
  }
}
