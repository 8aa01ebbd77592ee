import { background } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { certificatesOf, named, readPem } from '../../base/pem.ts';
import { backoff } from '../../base/retry.ts';
import {
  decodeEnrolmentAnswer,
  decodeEnrolmentGrant,
  encodeEnrolmentRequest,
  grantInfo,
} from '../../wire/tunnel/enrolment-message.ts';
import { openSealed } from '../../wire/tunnel/hpke.ts';
import { MqttLink } from '../../wire/tunnel/mqtt-link.ts';
import type { MqttSettings } from '../../wire/tunnel/mqtt-settings.ts';
import { enrolmentTopics, isTopicLevel } from '../../wire/tunnel/topics.ts';
import { type BoardIdentity, commonNameOf, keyId } from './board-identity.ts';
import { certificateRequest } from './certificate-request.ts';
import type { UplinkDescription } from './uplink.ts';

export interface EnrolmentParts {
  readonly gatewayId: string;
  readonly identity: BoardIdentity;
  /** The broker, and the claim certificate or the user name there. */
  readonly settings: MqttSettings;
  /** Name of the claim certificate, or user name at the broker. */
  readonly claim: string;
  /** One-time code. */
  readonly code?: string | undefined;
  /** Serial number of the board. */
  readonly serial?: string | undefined;
  /** ServerID of the DM server that is meant. */
  readonly server?: string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** How a gateway that asks to be enrolled stands with the broker of the head-end. */
export interface EnrolmentWay extends Pick<UplinkDescription, 'url' | 'reason' | 'retryInSeconds'> {
  readonly connected: boolean;
}

/** The way in words, without what is said elsewhere: empty while the broker is reached and refuses nothing. */
export const wayText = ({ connected, url, reason, retryInSeconds }: EnrolmentWay): string =>
  [
    connected ? undefined : `NOT CONNECTED to ${url}${reason === undefined ? '' : `: ${reason}`}`,
    connected ? reason : undefined,
    retryInSeconds === undefined ? undefined : `next attempt in ${retryInSeconds} s`,
  ]
    .filter((part) => part !== undefined)
    .join('; ');

/** Milliseconds between requests that get no answer. */
const unanswered = { first: 10_000, cap: 300_000, jitter: 0.5 } as const;
/** Most seconds until a gateway asks again, whatever the answer says. */
const longestWait = 3600;

/**
 * Asks a head-end for the certificate and the DM account of this gateway (docs/bindings.md, Enrolment), until it has both.
 * Each request is the same for the head-end: it names the key, which stays. So a request may be repeated at any time, and an
 * answer may be lost.
 */
export class Enrolment implements AsyncDisposable {
  readonly #parts: EnrolmentParts;
  readonly #topics: ReturnType<typeof enrolmentTopics>;
  readonly #request: Buffer;
  readonly #link: MqttLink;
  readonly #enrolled = Promise.withResolvers<void>();
  readonly #delays: Iterator<number, never>;
  #timer: Timer | undefined;
  /** What the head-end said last. The same is said once. */
  #said: string | undefined;

  /** @throws {PosternError} `configuration`, `storage` when there is no key and none can be made */
  constructor(parts: EnrolmentParts) {
    const { gatewayId, identity, settings, claim, code, serial, server, clock, entropy, events } = parts;
    this.#parts = parts;
    const key = identity.key();
    this.#topics = enrolmentTopics(claim, keyId(key));
    this.#request = encodeEnrolmentRequest({
      request: certificateRequest(key, gatewayId),
      ...(code !== undefined && { code }),
      ...(serial !== undefined && { serial }),
      ...(server !== undefined && { server }),
    });
    this.#delays = backoff(unanswered, entropy);
    this.#link = new MqttLink({
      settings,
      clientId: keyId(key),
      subscriptions: [this.#topics.down],
      carrier: { topic: this.#topics.up, isNeeded: () => false },
      clock,
      entropy,
      events,
      connected: () => this.#ask(),
      disconnected: () => this.#timer?.cancel(),
      received: (_topic, payload) => this.#received(payload),
    });
  }

  /**
   * Resolves when this gateway is enrolled, and what it got survives a power cut.
   * @throws the reason of the signal when it is aborted first
   */
  async run(stop: AbortSignal): Promise<void> {
    stop.throwIfAborted();
    const { promise, reject } = this.#enrolled;
    const abort = () => reject(stop.reason);
    stop.addEventListener('abort', abort, { once: true });
    this.#link.start();
    try {
      await promise;
    } finally {
      stop.removeEventListener('abort', abort);
    }
  }

  get way(): EnrolmentWay {
    const { connected, url, problems, retryInSeconds } = this.#link;
    return {
      ...{ connected, url },
      ...(problems.length > 0 && { reason: problems.join('; ') }),
      ...(retryInSeconds !== undefined && { retryInSeconds }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.cancel();
    await this.#link[Symbol.asyncDispose]();
  }

  /** Publishes the request, and does it again when no answer comes. */
  #ask(): void {
    const { events } = this.#parts;
    this.#askIn(this.#delays.next().value);
    void background(events, 'enrolment', async () => {
      const publication = { topic: this.#topics.up, payload: this.#request };
      await this.#link
        .publish(publication)
        .catch((thrown) => this.#tell('waiting', asPosternError(thrown).message));
    });
  }

  #askIn(delay: number): void {
    this.#timer?.cancel();
    this.#timer = this.#parts.clock.after(delay, () => this.#ask());
  }

  #received(payload: Buffer): void {
    const { gatewayId: gateway, identity, events } = this.#parts;
    try {
      const answer = decodeEnrolmentAnswer(payload);
      if (answer.state === 'granted') {
        const grant = decodeEnrolmentGrant(openSealed(identity.key(), grantInfo, answer.sealed));
        const { server } = this.#parts;
        if (server !== undefined && grant.server !== server)
          throw new PosternError('malformed', `it is of ${grant.server}, not of ${server}`);
        identity.store(grant, gateway);
        this.#timer?.cancel();
        events.emit('enrolment.done', { gateway, server: grant.server });
        this.#enrolled.resolve();
        return;
      }
      this.#tell(answer.state, answer.reason);
      this.#askIn(Math.min(Math.max(answer.again, 1), longestWait) * 1000);
    } catch (thrown) {
      // It asks again: the next answer may be right, and the disk may take it.
      this.#tell('failed', asPosternError(thrown).message);
    }
  }

  #tell(state: 'waiting' | 'refused' | 'failed', reason: string): void {
    if (this.#said === reason) return;
    this.#said = reason;
    const { events, gatewayId: gateway } = this.#parts;
    if (state === 'waiting') events.emit('enrolment.waiting', { gateway, reason });
    else if (state === 'refused') events.emit('enrolment.refused', { gateway, reason });
    else events.emit('enrolment.failed', { gateway, reason });
  }
}

/**
 * The name of a claim certificate, by which the broker knows who asks.
 * @throws {PosternError} `configuration`
 */
export function claimOf(file: string): string {
  const key = 'enrolment.cert';
  const pem = readPem(file, key);
  const [certificate] = named({ key, file }, () => certificatesOf(pem));
  const name = commonNameOf(certificate!);
  if (name !== undefined && isTopicLevel(name)) return name;
  throw new PosternError(
    'configuration',
    `enrolment.cert: ${file}: the common name of a claim certificate has 1 to 64 of the characters A-Z a-z 0-9 . _ : -`,
  );
}
