import type { Monotonic } from '../../../base/clock.ts';
import type { CoapMessage } from '../../coap/codec.ts';
import type { Remote } from '../../coap/message.ts';
import type { NotificationTaker } from '../../coap/observation.ts';
import { Option, sorted, uint, unacceptableOption } from '../../coap/options.ts';
import type { OscoreContext } from './contexts.ts';
import { headerOf, openResponse, type ProtectedRequest } from './messages.ts';
import { sequenceOf } from './option.ts';

/**
 * Opens the notifications to a protected request (RFC 8613 section 8.4.2), for who takes them. Their order is that of their
 * Partial IVs, the lower bits of which become the number of the Observe option. One that does not verify is dropped; one that is not
 * newer is acknowledged and has no effect.
 */
export class OpenedNotifications implements NotificationTaker {
  readonly token: Uint8Array;
  readonly isProof = true;
  readonly #context: OscoreContext;
  readonly #request: ProtectedRequest;
  readonly #taker: NotificationTaker;
  /** Number of the latest one. The first response may be without. */
  #latest = -1;
  #isFirst = true;

  constructor(context: OscoreContext, request: ProtectedRequest, taker: NotificationTaker) {
    this.#context = context;
    this.#request = request;
    this.#taker = taker;
    this.token = taker.token;
  }

  begun(forget: () => void): void {
    this.#taker.begun(forget);
  }

  lost(): void {
    this.#taker.lost();
  }

  take(message: CoapMessage, from: Remote, now: Monotonic): boolean {
    if (this.#context.isRevoked) return false;
    const opened = openResponse(this.#context.keys, this.#request, message);
    if (!opened) return false;
    const piv = headerOf(message)?.piv;
    if (piv) {
      const number = sequenceOf(piv);
      if (number <= this.#latest) return true;
      this.#latest = number;
    } else if (!this.#isFirst) return false;
    this.#isFirst = false;
    if (unacceptableOption(opened.options) !== undefined) {
      this.lost();
      return true;
    }
    const options = opened.options.map((option) =>
      option.number === Option.Observe.number
        ? uint(Option.Observe, Math.max(0, this.#latest) % 2 ** 24)
        : option,
    );
    return this.#taker.take({ ...message, ...opened, options: sorted(options) }, from, now);
  }
}
