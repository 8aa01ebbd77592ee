import { senderOf } from '../base/address-prefix.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { type Account, isGuess, locked } from '../dm/authentication.ts';
import { Challenges } from '../dm/challenges.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { ProofGuard, type Way } from '../dm/proof-guard.ts';
import { type Opening, ServerSession, type Work } from '../dm/server-session.ts';
import { type BegunSession, SessionTable } from '../dm/session-table.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { decodeMessage, encodeMessage } from '../wire/syncml/codec.ts';
import type { Alert, SyncHdr, SyncmlMessage } from '../wire/syncml/message.ts';
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
  /** Throws unless a gateway is behind a broker gateway, as `ChildWays.demand`. */
  readonly demandWay: (gateway: string, brokerGateway: string) => void;
  /** What this server does in a session after the party has proved itself. */
  readonly work: (context: SessionContext, opening: Opening) => Work;
  /** Called with each message of a party that has proved itself, and the broker gateway that it came through. */
  readonly proved: (context: SessionContext, brokerGateway: string) => void;
  /** Handles an alert of the party and returns the alert's DM status. */
  readonly handleAlert: (context: SessionContext, alert: Alert) => number;
}

/** Most bytes of one session: the inventory of a gateway with 10,000 devices, read in one Get, takes 34 MiB. */
export const bytesOfSession = 48 * 1024 * 1024;
/** Bounds of the sessions; times in milliseconds. */
export const sessionLimits = {
  sessions: 4096,
  idle: 120_000,
  silent: 10_000,
  bytes: { share: 16 * 1024, pool: 64 * 1024 * 1024, keep: 300_000 },
} as const;

/** A party, and the account by which its proof is measured. */
interface Measure {
  readonly party: Party;
  readonly account: Account;
}

/** Failures in a row by one way that are told by an event. */
const failuresTold = 3;

/** The DM sessions of this server. A package of a party goes in, the answer comes out. */
export class Sessions {
  readonly #parts: SessionsParts;
  readonly #table: SessionTable<SessionContext>;
  readonly #challenges: Challenges;
  readonly #guard: ProofGuard;

  constructor(parts: SessionsParts) {
    this.#parts = parts;
    this.#challenges = new Challenges(parts.clock, parts.entropy);
    this.#guard = new ProofGuard(parts.clock);
    this.#table = new SessionTable({
      clock: parts.clock,
      events: parts.events,
      limits: sessionLimits,
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
   * A party that is not known here is challenged like any other, so that nobody can find out which are known.
   * @throws {PosternError} `forbidden` when the message names another source than the envelope, or the envelope names a
   * device like its gateway, or a way that is not behind its gateway; `unavailable` while that is not known; `lockedOut` after too many failed proofs, `malformed`, `unsupportedFormat`
   */
  async receive({ gateway: brokerGateway, envelope }: UpPackage): Promise<DownPackage> {
    // A device belongs to the gateway nearest to it, not to the gateway that is connected to the broker.
    const gateway = envelope.via ?? brokerGateway;
    // What a broker gateway says of a gateway elsewhere would move its routes and its sessions, and bootstrap devices to it.
    this.#parts.demandWay(gateway, brokerGateway);
    const { contentType = '', body = new Uint8Array(), headers } = envelope;
    const message = decodeMessage(body, contentType);
    const { sessionId, source } = message.header;
    const partyId = envelope.device ?? brokerGateway;
    // Otherwise anyone behind a gateway could speak, and fail, in its name.
    if (envelope.device === brokerGateway)
      throw new PosternError('forbidden', `no device is named like its gateway ${brokerGateway}`);
    if (source.locUri !== partyId)
      throw new PosternError('forbidden', `a package of ${source.locUri} in the name of ${partyId}`);
    const known = this.#parts.parties.get(partyId);
    // The address proves nothing, but it keeps apart what anyone sends in the name of the party. The gateway itself has none.
    const sender = `${brokerGateway} ${gateway} ${envelope.device === undefined ? '' : `from ${envelope.peer}`}`;
    // A guesser has many ports, and may have many addresses.
    const [first = ''] = (envelope.peer ?? '').split(/[| ]/);
    const way = {
      entrance: brokerGateway,
      address: sender.replaceAll(/\|\d+/g, ''),
      sender: `${gateway} ${senderOf(first)}`,
    };
    const lock = this.#guard.lockOf(partyId, way);
    const seal = { body, mediaType: contentType, hmac: headers?.[hmacHeader] };
    const key = `${brokerGateway} ${gateway} ${partyId} ${sessionId}`;
    const arrival = { key, associations: [sender], message, seal };
    let measure: Measure | undefined;
    const found = this.#table.find(arrival, () => {
      measure = this.#measureOf(partyId, known);
      return this.#begin(measure, gateway, message.header, lock !== undefined);
    });
    const { session, place } = found;
    const party = known ?? found.owner.party;
    if (place === 'stranger') {
      if (lock) throw lock;
      if (measure && isGuess(message.header, seal, measure.account.peer.nonce))
        this.#failed(partyId, known, gateway, way, sessionId);
      return sealed(session, session.refuse(message, seal), contentType);
    }
    if (place === 'new')
      this.#parts.events.emit('session.started', { device: partyId, gateway, session: sessionId });
    const outcomeBefore = session.outcome;
    const answer = await this.#table.receive(arrival, found);
    const { outcome } = session;
    if (session.authenticated && place !== 'repeated') {
      this.#guard.succeeded(partyId, way);
      this.#parts.proved({ party, gateway, sessionId }, brokerGateway);
    }
    if (outcome && !outcomeBefore)
      this.#parts.events.emit(isOk(outcome.status) ? 'session.ended' : 'session.failed', {
        device: partyId,
        gateway,
        session: sessionId,
        status: outcome.status,
        reason: outcome.reason,
      });
    return sealed(session, answer, contentType);
  }

  /** Lists the sessions that have not ended. */
  list(): { party: string; gateway: string; session: string }[] {
    return [...this.#table.values()]
      .filter(({ session }) => !session.outcome)
      .map(({ owner: { party, gateway, sessionId } }) => ({ party: party.id, gateway, session: sessionId }));
  }

  /** Whether a party has a session that has not been forgotten yet. */
  knows(party: string): boolean {
    return this.#table.values().some(({ owner }) => owner.party.id === party);
  }

  /** Ends the open sessions of a party, which has no account any more. */
  async endOf(party: string): Promise<void> {
    const fits = (owner: SessionContext) => owner.party.id === party;
    await this.#table.end(fits, DmStatus.SessionAborted, 'the party has no account any more');
  }

  /** Ends the open sessions of parties whose accounts have ended or have another secret now. */
  async review(): Promise<void> {
    const { parties } = this.#parts;
    const isOver = ({ party: { id, clientSecret } }: SessionContext) =>
      parties.get(id)?.clientSecret !== clientSecret;
    await this.#table.end(isOver, DmStatus.SessionAborted, 'the account of the party has ended or changed');
  }

  /** Ends all open sessions with status 514. */
  async stop(): Promise<void> {
    await this.#table.stop('the server stops');
  }

  /** Counts a wrong answer to a challenge. */
  #failed(id: string, known: Party | undefined, gateway: string, way: Way, session: string): void {
    const failures = this.#guard.failed(id, way);
    if (failures > failuresTold) return;
    this.#parts.events.emit('session.failed', {
      device: id,
      gateway,
      session,
      status: DmStatus.InvalidCredentials,
      reason: known ? 'the party did not prove itself' : 'this party has no account here',
    });
  }

  /**
   * What the proof of a party is measured by. Neither the answers nor their time tell which parties have an account here, so a
   * pretence is made for each party, and counts for one without an account.
   */
  #measureOf(id: string, known: Party | undefined): Measure {
    const { serverId, parties } = this.#parts;
    const { secret, nonce } = this.#challenges.pretence(id);
    const schemes = { clientSchemes: ['md5'], serverSchemes: ['md5'] } as const;
    const party = known ?? { id, kind: 'device', clientSecret: secret, serverSecret: secret, ...schemes };
    const account = parties.account(serverId, party);
    const { own, peer } = account;
    return { party, account: known ? account : { own: { ...own, nonce }, peer: { ...peer, nonce } } };
  }

  /** @param isLocked only the proof counts that needs no challenge: no guess can be right by it */
  #begin(
    { party, account }: Measure,
    gateway: string,
    { sessionId, msgId: firstMsgId }: SyncHdr,
    isLocked: boolean,
  ): BegunSession<SessionContext> {
    const { serverId, parties, entropy, work, handleAlert } = this.#parts;
    const context = { party, gateway, sessionId };
    const name = `${gateway} ${party.id} ${sessionId}`;
    const challenge = this.#challenges.of(name, account.peer.nonce, !isLocked && firstMsgId > 1);
    const session = new ServerSession({
      ends: { local: serverId, remote: party.id },
      account: isLocked ? { ...account, peer: locked(account.peer) } : account,
      challenge,
      firstMsgId,
      saveNonces: parties.nonceKeeper(party.id),
      entropy,
      sessionId,
      mostWeight: bytesOfSession,
      work: (opening) => work(context, opening),
      alerted: (alert) => handleAlert(context, alert),
    });
    return { session, owner: context };
  }
}

function sealed(session: ServerSession, answer: SyncmlMessage, contentType: string): DownPackage {
  const body = encodeMessage(answer, contentType);
  const hmac = session.seal(body);
  return { contentType, body, ...(hmac !== undefined && { headers: { [hmacHeader]: hmac } }) };
}
