import { seededEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { type CoapMessage, decode, encode, Malformed, noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint, type EndpointLimits, endpointDefaults } from '../../../src/wire/coap/endpoint.ts';
import { type Handler, reply } from '../../../src/wire/coap/message.ts';
import { HandClock } from '../../hand-clock.ts';

export interface Sent {
  readonly message: CoapMessage;
  readonly address: string;
  readonly port: number;
  readonly datagram: Buffer;
}

const types = ['CON', 'NON', 'ACK', 'RST'];

/** `ACK 2.05`, for comparing at a glance. */
export const nameOf = ({ type, code }: CoapMessage): string => `${types[type]} ${codeText(code)}`;

/** An endpoint without a socket: what goes in is written by the test, what comes out is kept for it. */
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
      if (message instanceof Malformed) throw new Error(`the endpoint sent garbage: ${message.reason}`);
      sent.push({ message, address, port, datagram });
    },
    limits: { ...endpointDefaults, ...limits },
  });
  const receive = (message: Partial<CoapMessage>, from = 'a', port = 1, multicast = false) =>
    endpoint.receive(encode(messageOf(message)), from, port, multicast);
  /** What was sent since the last time. */
  const take = () => sent.splice(0).map(({ message }) => nameOf(message));
  return { clock, endpoint, sent, receive, take };
}

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

/** Lets promises that are settled run their course. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
