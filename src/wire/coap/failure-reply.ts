import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { codeFromText } from './codes.ts';
import { type Reply, refusal } from './message.ts';

/** The response to a request whose handler has thrown. An error of the program is told by an event, and not to the peer. */
export function failureReply(thrown: unknown, events: Events): Reply {
  const error = asPosternError(thrown);
  if (error.code === 'internal')
    events.emit('coap.handler-failed', { message: error.message, stack: error.stack });
  const { retryAfter } = error;
  return refusal(
    codeFromText(error.coapCode),
    error.code === 'internal' ? '' : error.message,
    retryAfter === undefined ? {} : { maxAge: retryAfter },
  );
}
