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

/** A session as the policies see it. */
export interface SessionContext {
  readonly party: Party;
  /** The gateway that it comes through; the gateway itself for its own sessions. */
  readonly gateway: string;
  readonly sessionId: string;
  readonly opening: Opening;
}

export interface SessionsParts {
  readonly serverId: string;
  readonly parties: Parties;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly work: (context: SessionContext) => Work;
  readonly alerted: (context: Omit<SessionContext, 'opening'>, alert: Alert) => number;
}

interface Open {
  readonly session: ServerSession;
  readonly context: Omit<SessionContext, 'opening'>;
  idle: Timer;
}

/** Sessions at one time, and milliseconds that one may lie still. */
const limits = { sessions: 4096, idle: 120_000 } as const;

/** DM sessions of this server: packages in, packages out. */
export class Sessions {
  readonly #parts: SessionsParts;
  readonly #open: BoundedMap<string, Open>;
  readonly #lockOut: LockOut;

  constructor(parts: SessionsParts) {
    this.#parts = parts;
    this.#lockOut = new LockOut(parts.clock);
    this.#open = new BoundedMap(
      limits.sessions,
      (_, open) => void this.#abandon(open, DmStatus.DeviceFull, 'too many sessions'),
    );
  }

  /**
   * Takes a package that came through a gateway.
   * @throws {PosternError} `unauthorized` for an unknown party, `malformed`, `unsupportedFormat`
   */
  async receive({ gateway: top, envelope }: UpPackage): Promise<DownPackage> {
    // The gateway that a device belongs to is the one next to it; how it is reached is another matter.
    const gateway = envelope.via ?? top;
    const { contentType = '', body = new Uint8Array(), headers } = envelope;
    const message = decodeMessage(body, contentType);
    const { sessionId, source, msgId } = message.header;
    const partyId = envelope.device ?? top;
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
    this.#keepAwake(key, open);
    const was = open.session.outcome;
    const answer = await open.session.receive(message, { body, hmac: headers?.[hmacHeader] });
    const { outcome } = open.session;
    if (open.session.authenticated) this.#lockOut.succeeded(lockKey);
    else if (outcome?.status === DmStatus.InvalidCredentials && !was) this.#lockOut.failed(lockKey);
    if (outcome && !was)
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

  /** Those that are under way. */
  list(): { party: string; gateway: string; session: string }[] {
    return [...this.#open.values()]
      .filter(({ session }) => !session.outcome)
      .map(({ context: { party, gateway, sessionId } }) => ({
        party: party.id,
        gateway,
        session: sessionId,
      }));
  }

  async stop(): Promise<void> {
    for (const [key, open] of [...this.#open.entries()]) {
      this.#close(key, open);
      await this.#abandon(open, DmStatus.SessionAborted, 'the server stops');
    }
  }

  #begin(key: string, context: Omit<SessionContext, 'opening'>): Open {
    const { serverId, parties, entropy, events, work, alerted } = this.#parts;
    const { party, gateway, sessionId } = context;
    events.emit('session.started', { device: party.id, gateway, session: sessionId });
    const session = new ServerSession({
      ends: { local: serverId, remote: party.id },
      account: parties.account(serverId, party),
      saveNonces: parties.nonceKeeper(party.id),
      entropy,
      sessionId,
      work: (opening) => work({ ...context, opening }),
      alerted: (alert) => alerted(context, alert),
    });
    const open: Open = { session, context, idle: { cancel() {} } };
    this.#open.set(key, open);
    return open;
  }

  #keepAwake(key: string, open: Open): void {
    open.idle.cancel();
    open.idle = this.#parts.clock.after(limits.idle, () => {
      this.#open.delete(key);
      void this.#abandon(open, 408, 'the device did not come back');
    });
  }

  #close(key: string, open: Open): void {
    open.idle.cancel();
    this.#open.delete(key);
  }

  async #abandon({ session, context, idle }: Open, status: number, reason: string): Promise<void> {
    idle.cancel();
    if (session.outcome) return;
    await session.abandon(status, reason);
    this.#parts.events.emit('session.failed', {
      device: context.party.id,
      gateway: context.gateway,
      session: context.sessionId,
      status,
      reason,
    });
  }
}
