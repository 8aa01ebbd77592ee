import type { Entropy } from '../../src/base/entropy.ts';
import { encode, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Option, uint } from '../../src/wire/coap/options.ts';
import { ContentType, plainRecord } from '../../src/wire/secure/dtls/record.ts';
import { encodeProof } from '../../src/wire/syncml/bootstrap-proof.ts';
import {
  type Attack,
  firstMessage,
  guess,
  int,
  Method,
  repeatedly,
  request,
  socketAt,
  type Target,
  xml,
} from './attacker.ts';
import { image } from './deed.ts';

/** A message without content. */
const empty = (type: Type, messageId: number): Buffer =>
  encode({ type, code: 0, messageId, token: noBytes, options: [], payload: noBytes });

/** Plain datagrams in the name of a party, to all resources, and what may end or disturb its association. */
function forged(target: Target, chance: Entropy, id: string): readonly (() => [Buffer, port: number])[] {
  const message = (credential = '') =>
    firstMessage(id, '1', 1 + int(chance, 2), { credential, server: 'dm.example' });
  const post =
    (path: string, query: readonly string[] = [], payload?: Buffer) =>
    () =>
      [request({ path, query, ...(payload && { options: [xml], payload }) }), target.coap] as [
        Buffer,
        number,
      ];
  const get =
    (path: string, observe = false) =>
    () =>
      [
        request({ code: Method.GET, path, options: observe ? [uint(Option.Observe, 0)] : [] }),
        target.coap,
      ] as [Buffer, number];
  const proof = Buffer.from(encodeProof({ deviceNonce: chance.bytes(16), mac: chance.bytes(32) }));
  return [
    post('dm/t/dm.example', [`id=${id}`], message(guess(chance))),
    post('dm/t/dm.example', [`id=urn:dev:invented:${int(chance, 1e6)}`, `via=${id}`], message()),
    post('dm', [], message()),
    post('dm', [], message(guess(chance))),
    post('dm/bs', [`id=${id}`]),
    post('dm/bs', [`id=${id}`], proof),
    get(`img/${image}`),
    get('gw/status', true),
    get('.well-known/core'),
    post('rd', [`ep=${id}`, 'lt=60', 'lwm2m=1.1', 'b=U']),
    post('bs', [`ep=${id}`]),
    () => [request({ code: Method.GET, path: 'bspack', query: [`ep=${id}`] }), target.coap],
    post('dmn', [], message()),
    // Answers to what the gateway may have asked, a ping, and a Reset.
    () => [empty(Type.ACK, int(chance, 65_536)), target.coap],
    () => [empty(Type.RST, int(chance, 65_536)), target.coap],
    () => [empty(Type.CON, int(chance, 65_536)), target.coap],
    // At the port of DTLS: CoAP without protection, and an end of the association that nobody has protected.
    () => [request({ path: 'dm', options: [xml], payload: message() }), target.coaps],
    () => [plainRecord(ContentType.Alert, int(chance, 1e6), Buffer.from([1, 0])), target.coaps],
    () => [plainRecord(ContentType.Alert, int(chance, 1e6), Buffer.from([2, 20])), target.coaps],
  ];
}

/** Attacks on parties that speak CoAP over DTLS, by datagrams without any protection. */
export const plainAttacks: Readonly<Record<string, Attack>> = {
  'plain-beside-dtls': {
    what: 'Plain CoAP to all resources, acknowledgements, Resets and plain alerts of DTLS from the forged addresses and ports of devices and child gateways with associations, 1,000 a second',
    needsNetwork: true,
    run: async (target, chance) => {
      const victims = await Promise.all(
        target.keyed.map(async ({ id, address, port }) => ({ id, socket: await socketAt(address, port) })),
      );
      await repeatedly(1000, (round) => {
        const { id, socket } = victims[round % victims.length]!;
        const datagrams = forged(target, chance, id);
        const [datagram, port] = datagrams[int(chance, datagrams.length)]!();
        socket.send(datagram, port, target.host);
      });
    },
  },
};
