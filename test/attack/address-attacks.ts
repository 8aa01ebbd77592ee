import type { Entropy } from '../../src/base/entropy.ts';
import { encode, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { deviceId } from '../bench/crowd.ts';
import {
  type Attack,
  firstMessage,
  int,
  Method,
  repeatedly,
  request,
  sendOnce,
  sourceOf,
  type Target,
  xml,
} from './attacker.ts';

/** A first message in the name of a device, and discovery, in turn. */
function firstDatagram(target: Target, chance: Entropy, round: number): Buffer {
  const device = deviceId(int(chance, target.devices));
  return round % 2 === 0
    ? request({ path: 'dm', options: [xml], payload: firstMessage(device, '1', 1) })
    : request({ code: Method.GET, path: '.well-known/core' });
}

/** Attacks by the address that a datagram claims to come from. */
export const addressAttacks: Readonly<Record<string, Attack>> = {
  'new-addresses': {
    what: 'First messages and discovery, each from another one of 65,536 addresses, 1,000 a second',
    run: async (target, chance) => {
      await repeatedly(1000, async (round) => {
        const datagram = firstDatagram(target, chance, round);
        await sendOnce(target, sourceOf(target, int(chance, 65_536)), datagram, target.host);
      });
    },
  },
  'new-networks': {
    what: 'The same over IPv6, each from another /64 of 65,536, 1,000 a second',
    needsNetwork: true,
    run: async (target, chance) => {
      await repeatedly(1000, async (round) => {
        const datagram = firstDatagram(target, chance, round);
        const network = `2001:db8:bad:${int(chance, 65_536).toString(16)}`;
        const host = 1 + int(chance, 65_535);
        await sendOnce(target, `${network}::${host.toString(16)}`, datagram, target.host6!);
      });
    },
  },
  'forged-devices': {
    what: 'Requests, first messages, acknowledgements and resets from the forged addresses of honest devices, 1,000 a second',
    needsNetwork: true,
    run: async (target, chance) => {
      const { deviceAddresses } = target;
      await repeatedly(1000, async (round) => {
        const at = int(chance, target.devices);
        const from = deviceAddresses[at]!;
        const datagrams = [
          () => request({ path: 'dm', options: [xml], payload: firstMessage(deviceId(at), '1', 1) }),
          () => request({ code: Method.GET, path: '.well-known/core' }),
          () => request({ path: 'dm/bs', query: [`id=${deviceId(at)}`] }),
          () =>
            encode({
              type: round % 8 === 3 ? Type.RST : Type.ACK,
              code: 0,
              messageId: int(chance, 65_536),
              token: noBytes,
              options: [],
              payload: noBytes,
            }),
        ];
        const to = from.includes(':') ? target.host6! : target.host;
        await sendOnce(target, from, datagrams[round % datagrams.length]!(), to);
      });
    },
  },
};
