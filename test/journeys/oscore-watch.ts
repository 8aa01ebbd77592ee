import assert from 'node:assert/strict';
import { type CoapMessage, decode, Malformed } from '../../src/wire/coap/codec.ts';
import { Code, codeText, isRequestCode } from '../../src/wire/coap/codes.ts';
import { Option, textOptions } from '../../src/wire/coap/options.ts';
import { hasOscore, headerOf } from '../../src/wire/secure/oscore/messages.ts';
import { sequenceOf } from '../../src/wire/secure/oscore/option.ts';
import type { Nat } from '../peers/nat.ts';

/** A datagram as a message. */
export const read = (datagram: Buffer): CoapMessage => {
  const message = decode(datagram);
  assert.ok(!(message instanceof Malformed));
  return message;
};

/** Keeps what passes a NAT, and says which messages with a code were not protected. */
export function watch(nat: Nat) {
  const passed: CoapMessage[] = [];
  const fromDevice = new Set<CoapMessage>();
  nat.tap = (datagram, isOutward) => {
    const message = read(Buffer.from(datagram));
    passed.push(message);
    if (isOutward) fromDevice.add(message);
  };
  return {
    passed,
    plain: () =>
      passed
        .filter((message) => message.code !== Code.Empty && !hasOscore(message))
        .map(({ code }) => codeText(code)),
    /** Paths of the requests that were not protected. */
    plainPaths: () =>
      passed
        .filter((message) => isRequestCode(message.code) && !hasOscore(message))
        .map(({ options }) => `/${textOptions(options, Option.UriPath).join('/')}`),
    /** What each request holds, by the Sender ID and the number of its sender. */
    senders: () =>
      passed.flatMap((message): [string, string][] => {
        const { kid, piv } = (hasOscore(message) && headerOf(message)) || {};
        const sender = kid && piv && `${Buffer.from(kid).toString('hex')} ${sequenceOf(piv)}`;
        return sender ? [[sender, Buffer.from(message.payload).toString('hex')]] : [];
      }),
    /** What was protected by each own number, by its sender and number. */
    numbers: () =>
      passed.flatMap((message): [string, string][] => {
        const piv = hasOscore(message) ? headerOf(message)?.piv : undefined;
        if (!piv) return [];
        return [
          [
            `${fromDevice.has(message) ? 'device' : 'gateway'} ${sequenceOf(piv)}`,
            Buffer.from(message.payload).toString('hex'),
          ],
        ];
      }),
  };
}
