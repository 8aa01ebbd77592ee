import { guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { BoardIdentity } from './board-identity.ts';
import { certificateRequest } from './certificate-request.ts';

export interface CertificateKeeperParts {
  readonly gatewayId: string;
  readonly identity: BoardIdentity;
  /** Settings of the broker, whose `cert` is read for each attempt to connect. */
  readonly settings: { cert?: string };
  /** The owner has ended its relation to this board. */
  readonly gone: () => void;
  /** Replaces the connection to the broker by another one. */
  readonly reconnect: (reason: string) => void;
  readonly clock: Clock;
  readonly events: Events;
}

/** The certificate of a gateway, for people and DM servers. */
export interface CertificateView {
  /** ISO 8601; empty when the certificate is lost. */
  readonly expires: string;
  /** What is wrong with the certificate or its renewal. */
  readonly problem?: string;
}

/** Attempts with a new certificate, after which the one before takes turns with it. */
const tries = 3;
/** Part of the time of a certificate that is left when it should have been renewed. The head-end begins at a third. */
const late = 1 / 4;
/** Milliseconds between looks at the time that is left. */
const lookEvery = 3_600_000;

/**
 * Changes the certificate by which this gateway is known at its broker. A new certificate is tried first; the one before stays
 * until the broker has taken the new one, and is used again if the broker does not take it.
 *
 * When a certificate is renewed is the decision of the DM server: a board without a battery does not know the time. The gateway
 * only says when it is late. While its clock shows a time before the certificate was made, it says nothing of the kind.
 */
export class CertificateKeeper {
  readonly #parts: CertificateKeeperParts;
  /** Attempts in a row that failed, with the certificate that is tried. */
  #failed = 0;
  /** The broker took the certificate in use after attempts with the new one had failed: it is there, so the next attempt decides. */
  #isLast = false;
  #timer: Timer | undefined;
  /** Why the last new certificate was not taken. */
  #refused: string | undefined;
  /** What was said of the time. The same is said once. */
  #said: string | undefined;

  constructor(parts: CertificateKeeperParts) {
    this.#parts = parts;
  }

  /** Looks at the time that is left, now and each hour. */
  start(): void {
    const { clock, events } = this.#parts;
    const look = guarded(events, 'certificate', () => {
      this.#timer = clock.after(lookEvery, look);
      this.#look();
    });
    look();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** Certificate request in PEM. */
  get request(): string {
    const { identity, gatewayId } = this.#parts;
    const body = certificateRequest(identity.key(), gatewayId)
      .toString('base64')
      .replace(/.{1,64}/g, '$&\n');
    return `-----BEGIN CERTIFICATE REQUEST-----\n${body}-----END CERTIFICATE REQUEST-----\n`;
  }

  view(): CertificateView {
    const { identity } = this.#parts;
    try {
      const problem = this.#refused ?? this.#lateness()?.reason;
      const expires = identity.certificate().validToDate.toISOString();
      return { expires, ...(problem !== undefined && { problem }) };
    } catch (thrown) {
      return { expires: '', problem: `the certificate is lost: ${asPosternError(thrown).message}` };
    }
  }

  /**
   * Checks a certificate that is to be tried.
   * @throws {PosternError} `malformed`
   */
  check(pem: string): void {
    this.#parts.identity.checkNext(pem, this.#parts.gatewayId);
  }

  /** Certificates in PEM: the one in use, and its issuers. */
  get chain(): string {
    return this.#parts.identity.chain();
  }

  /**
   * Stores a certificate that is to be tried.
   * @param pem certificates, that of the gateway first
   * @throws {PosternError} `malformed`, `storage`
   */
  offer(pem: string): void {
    this.#parts.identity.storeNext(pem, this.#parts.gatewayId);
  }

  /** Tries the certificate that was stored. */
  tryNext(): void {
    const { settings, identity, reconnect } = this.#parts;
    this.#failed = 0;
    this.#isLast = false;
    this.#refused = undefined;
    settings.cert = identity.nextFile;
    reconnect('the certificate is renewed');
  }

  /** The head-end has told which board has this name. Returns true when it is another one: this one must serve nobody. */
  isReplacedBy(certificate: Buffer): boolean {
    const { identity, gatewayId: gateway, events } = this.#parts;
    if (identity.isGone(certificate, gateway)) {
      this.#parts.gone();
      return true;
    }
    if (!identity.isReplacedBy(certificate, gateway)) return false;
    events.emit('gateway.given-up', { gateway, reason: 'another board has replaced this one' });
    identity.giveUp();
    return true;
  }

  /** A connection to the broker is up. */
  connected(): void {
    const { settings, identity, events, gatewayId: gateway, reconnect } = this.#parts;
    const isNext = settings.cert === identity.nextFile;
    if (!isNext && this.#failed < tries) return;
    if (!isNext && !this.#isLast) {
      // The attempts before may have failed because there was no broker.
      this.#isLast = true;
      this.#failed = tries - 1;
      settings.cert = identity.nextFile;
      reconnect('the certificate is renewed');
      return;
    }
    this.#failed = 0;
    this.#isLast = false;
    try {
      if (isNext) {
        identity.takeNext();
        settings.cert = identity.certificateFile;
        events.emit('certificate.renewed', { gateway, expires: this.view().expires });
        this.#look();
        return;
      }
      this.#refused = 'the broker did not take the new certificate, and takes the one before';
      events.emit('certificate.refused', { gateway, reason: this.#refused });
      identity.dropNext();
    } catch (thrown) {
      // The file stays, and is tried again at the next start.
      events.emit('certificate.refused', { gateway, reason: asPosternError(thrown).message });
    }
  }

  /** An attempt to connect has failed: perhaps because of the certificate, perhaps because there is no broker. */
  failed(): void {
    const { settings, identity } = this.#parts;
    if (settings.cert !== identity.nextFile && this.#failed < tries) return;
    if (settings.cert === identity.nextFile) this.#failed++;
    if (this.#failed < tries) return;
    settings.cert = settings.cert === identity.nextFile ? identity.certificateFile : identity.nextFile;
  }

  #look(): void {
    const { events, gatewayId: gateway } = this.#parts;
    const found = this.#lateness();
    if (found?.kind === this.#said) return;
    this.#said = found?.kind;
    if (!found) return;
    const { kind, reason } = found;
    if (kind === 'behind') events.emit('certificate.clock-behind', { gateway, reason });
    else if (kind === 'expired') events.emit('certificate.expired', { gateway, reason });
    else events.emit('certificate.expiring', { gateway, reason });
  }

  /** What is to be said of the time that is left. */
  #lateness(): { readonly kind: 'behind' | 'expiring' | 'expired'; readonly reason: string } | undefined {
    const { validFromDate, validToDate } = this.#parts.identity.certificate();
    const now = this.#parts.clock.wall();
    const [from, to] = [validFromDate.getTime(), validToDate.getTime()];
    const end = validToDate.toISOString();
    if (now < from)
      return {
        kind: 'behind',
        reason: `the clock shows ${new Date(now).toISOString()}, before the certificate was made; nothing is known of its end`,
      };
    if (now > to) return { kind: 'expired', reason: `the certificate has ended on ${end}` };
    if (to - now < (to - from) * late)
      return { kind: 'expiring', reason: `the certificate ends on ${end}, and was not renewed` };
    return undefined;
  }
}
