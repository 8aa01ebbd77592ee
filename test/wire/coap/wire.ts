import { Standing } from '../../../src/base/admission.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { type CoapMessage, decode, encode, Malformed, noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../../src/wire/coap/endpoint.ts';
import { type EndpointLimits, endpointDefaults } from '../../../src/wire/coap/endpoint-limits.ts';
import { type Account, type Handler, reply } from '../../../src/wire/coap/message.ts';
import { HandClock } from '../../hand-clock.ts';

/** A message that an endpoint sent. */
export interface Sent {
  readonly message: CoapMessage;
  readonly address: string;
  readonly port: number;
  readonly datagram: Buffer;
}

const types = ['CON', 'NON', 'ACK', 'RST'];

/** Type and code of a message as text, such as `ACK 2.05`. */
export const nameOf = ({ type, code }: CoapMessage): string => `${types[type]} ${codeText(code)}`;

/** An endpoint without a socket. The test passes messages in by `receive`; what the endpoint sends is kept in `sent`. */
export function rig(handler: Handler, limits: Partial<EndpointLimits> = {}) {
  const clock = new HandClock();
  const sent: Sent[] = [];
  const endpoint = new CoapEndpoint({
    clock,
    entropy: seededEntropy(5),
    events: noEvents,
    handler,
    send: (datagram, port, address) => {
      const message = decode(datagram);
      if (message instanceof Malformed)
        throw new Error(`the endpoint sent a malformed datagram: ${message.reason}`);
      sent.push({ message, address, port, datagram });
    },
    limits: { ...endpointDefaults, ...limits },
  });
  const receive = (message: Partial<CoapMessage>, from = 'a', port = 1, multicast = false) =>
    endpoint.receive(encode(messageOf(message)), from, port, multicast);
  /** Names of the messages that were sent since the last call. */
  const take = () => sent.splice(0).map(({ message }) => nameOf(message));
  return { clock, endpoint, sent, receive, take };
}

/** The account of a peer that may get this many bytes. */
export const account = (
  room: number = Number.POSITIVE_INFINITY,
  standing: Standing = Standing.Proven,
): Account => ({ room, standing });

/** A message with these fields. By default a CON GET with message ID 1, without token, options and payload. */
export const messageOf = (fields: Partial<CoapMessage>): CoapMessage => ({
  type: Type.CON,
  code: Code.GET,
  messageId: 1,
  token: noBytes,
  options: [],
  payload: noBytes,
  ...fields,
});

export const hello: Handler = () => reply(Code.Content, { payload: 'hello' });

/** Resolves after the callbacks of promises that are already settled. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
