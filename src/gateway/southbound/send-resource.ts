import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { type Rate, TokenBuckets } from '../../base/token-buckets.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { decodeContent } from '../../wire/lwm2m/content.ts';
import { paths } from '../../wire/resources.ts';
import type { Registration } from '../store/registrations.ts';
import type { PeerAddress } from './device-addresses.ts';
import type { Observer } from './observer.ts';
import { reportedValues } from './reported-values.ts';

export interface SendResourceParts {
  /** The registration of the client that sends a request. */
  readonly senderOf: (remote: Remote) => Registration | undefined;
  /** Whether the sender has registered and not answered yet. */
  readonly isAwaited: (remote: Remote) => boolean;
  readonly values: Observer['values'];
  /** Called when a client has proved where it is. */
  readonly heard: (device: string, from: PeerAddress) => void;
  readonly clock: Clock;
  readonly events: Events;
}

/** Formats that carry names and types (LwM2M core 1.1, section 6.4.6; LwM2M CBOR is of 1.2). */
const formats: ReadonlySet<number | undefined> = new Set([
  ContentFormat.SenmlJson,
  ContentFormat.SenmlCbor,
  ContentFormat.LwM2mCbor,
]);

/** Most bytes of one Send; how many a client may send, and for how many clients that is remembered. */
export const sendBounds = {
  bytes: 16 * 1024,
  rate: { rate: 1, burst: 64 } satisfies Rate,
  clients: 16_384,
} as const;

/** Seconds until a client that has just registered may send. */
const soon = 2;

/** CoAP resource `/dp`: values that a registered client sends unasked, by the operation Send (LwM2M core 1.1, section 6.4.6). */
export function sendResource(parts: SendResourceParts): Resource {
  const buckets = new TokenBuckets(sendBounds.rate, sendBounds.clients);
  const { senderOf, isAwaited, values, heard, clock, events } = parts;

  /** @throws {PosternError} `malformed`, `unsupportedFormat`, `tooLarge` */
  const take = (device: string, { contentFormat, payload }: CoapRequest): void => {
    if (!formats.has(contentFormat))
      throw new PosternError('unsupportedFormat', 'only SenML CBOR, SenML JSON and LwM2M CBOR');
    if (payload.length > sendBounds.bytes)
      throw new PosternError('tooLarge', `more than ${sendBounds.bytes} bytes`);
    const entries = decodeContent(contentFormat, payload, []);
    if (entries.length === 0 || entries.some(({ path }) => path.length < 3))
      throw new PosternError('malformed', 'no value, or one that is of no resource');
    values(device, undefined, reportedValues(entries, clock.wall()));
  };

  const post = (request: CoapRequest): Reply => {
    const { remote } = request;
    const client = senderOf(remote);
    // Without a registration the client registers again. One that has just done so would do it for ever.
    if (!client)
      return isAwaited(remote)
        ? refusal(Code.ServiceUnavailable, 'the registration is not confirmed yet', { maxAge: soon })
        : refusal(Code.NotFound, 'not registered; register again');
    const { deviceId, heardOn } = client;
    const now = clock.now();
    if (!buckets.of(deviceId, now).take(sendBounds.rate, now))
      return refusal(Code.TooManyRequests, 'too many Sends', { maxAge: 1 });
    heard(deviceId, { address: remote.address, port: remote.port, heardOn });
    try {
      take(deviceId, request);
    } catch (thrown) {
      const { message: reason } = asPosternError(thrown);
      events.emit('observation.unreadable', { device: deviceId, reason });
      throw thrown;
    }
    return reply(Code.Changed);
  };

  return { path: paths.send, methods: { POST: post } };
}
