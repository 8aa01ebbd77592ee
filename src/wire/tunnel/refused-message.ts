import { type ErrorCode, PosternError } from '../../base/errors.ts';
import { Reason, reasonText } from './mqtt-reasons.ts';

/**
 * The broker refuses a message by its PUBACK. `forbidden`: this message is refused for good. `tooLarge`: so are all of its
 * size. `unavailable`: the same message may be accepted later.
 */
export class RefusedMessage extends PosternError {
  /** What the broker said. */
  readonly reason: string;

  constructor(topic: string, reasonCode: number) {
    const reason = reasonText(reasonCode);
    const what = reasonCode === Reason.NotAuthorized ? 'does not allow to publish' : 'refuses a message';
    super(refusalCodes[reasonCode] ?? 'forbidden', `the broker ${what} on ${topic}: ${reason}`);
    this.reason = reason;
  }
}

const refusalCodes: Readonly<Record<number, ErrorCode>> = {
  [Reason.PacketTooLarge]: 'tooLarge',
  [Reason.QuotaExceeded]: 'unavailable',
};

/** Why a message was not acknowledged. */
export const publishError = (topic: string, error: Error & { readonly code?: unknown }): PosternError =>
  typeof error.code === 'number'
    ? new RefusedMessage(topic, error.code)
    : new PosternError('unavailable', `MQTT publish failed: ${error.message}`, { cause: error });
