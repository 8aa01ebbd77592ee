import { decode, Malformed } from '../../src/wire/coap/codec.ts';
import { Option, uint } from '../../src/wire/coap/options.ts';
import { encodeProof } from '../../src/wire/syncml/bootstrap-proof.ts';
import { deviceId } from '../bench/crowd.ts';
import { type Attack, firstMessage, guess, int, repeatedly, request, Strangers, xml } from './attacker.ts';

/** A package for the DM server in the name of a device. */
const tunnelled = (device: string, payload: Buffer, via: readonly string[] = []): Buffer =>
  request({ path: 'dm/t/dm.example', query: [`id=${device}`, ...via], options: [xml], payload });

/** Attacks in the names of others: devices, the gateway, and devices that do not exist. */
export const nameAttacks: Readonly<Record<string, Attack>> = {
  'first-messages': {
    what: 'First messages of sessions in the names of honest devices, without a credential, 500 a second from 200 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 200);
      await repeatedly(500, (round) => {
        const device = deviceId(int(chance, target.devices));
        const payload = firstMessage(device, String(int(chance, 1e6)), 1);
        strangers.send(round, request({ path: 'dm', options: [xml], payload }));
      });
    },
  },
  'predicted-sessions': {
    what: 'Sessions of honest devices opened ahead, by session IDs 1 to 64 and high message numbers, 500 a second',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      await repeatedly(500, (round) => {
        const device = deviceId(int(chance, target.devices));
        const payload = firstMessage(device, (1 + (round % 64)).toString(16), 900);
        strangers.send(round, request({ path: 'dm', options: [xml], payload }));
      });
    },
  },
  guessing: {
    what: 'Proofs that are guessed, in the names of honest devices, at /dm and /bs, 1,000 a second from 20 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 20);
      // A challenge of the bootstrap is answered with a proof that is guessed.
      for (const [at, socket] of strangers.sockets.entries())
        socket.on('message', (datagram) => {
          const answer = decode(datagram);
          if (answer instanceof Malformed) return;
          const echo = answer.options.filter(({ number }) => number === Option.Echo.number);
          if (echo.length === 0) return;
          const query = [`id=${deviceId(int(chance, target.devices))}`];
          const payload = encodeProof({ deviceNonce: chance.bytes(16), mac: chance.bytes(32) });
          strangers.send(at, request({ path: 'dm/bs', query, options: echo, payload }));
        });
      await repeatedly(1000, (round) => {
        const device = deviceId(int(chance, target.devices));
        const isBootstrap = round % 2 === 0;
        strangers.send(
          round,
          request({
            path: isBootstrap ? 'dm/bs' : 'dm',
            query: isBootstrap ? [`id=${device}`] : [],
            options: isBootstrap ? [] : [xml],
            ...(!isBootstrap && {
              payload: firstMessage(device, String(int(chance, 1e6)), 1, { credential: guess(chance) }),
            }),
          }),
        );
      });
    },
  },
  'stolen-names': {
    what: 'Packages in the tunnel in the names of the gateway and of honest devices, also behind another gateway, 500 a second',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      await repeatedly(500, (round) => {
        const device = round % 3 === 0 ? 'gw-1' : deviceId(int(chance, target.devices));
        const via = round % 3 === 1 ? ['via=gw-1'] : round % 3 === 2 ? ['via=gw-2'] : [];
        strangers.send(
          round,
          tunnelled(
            device,
            firstMessage(device, String(int(chance, 1e6)), 1, { credential: guess(chance) }),
            via,
          ),
        );
      });
    },
  },
  'tunnel-names': {
    what: 'Packages in the tunnel in 100,000 names that nobody has, 1,000 a second from 200 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 200);
      await repeatedly(1000, (round) => {
        const device = `urn:dev:stranger:${int(chance, 100_000)}`;
        strangers.send(round, tunnelled(device, firstMessage(device, '1', 1)));
      });
    },
  },
  'hung-server': {
    what: 'Packages in the tunnel in the names of honest devices and of nobody, while the DM server hangs, 1,000 a second from 200 addresses',
    cutsOff: true,
    stopsServer: true,
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 200);
      await repeatedly(1000, (round) => {
        const at = int(chance, 100_000);
        const device = round % 2 === 0 ? deviceId(at % target.devices) : `urn:dev:stranger:${at}`;
        strangers.send(round, tunnelled(device, firstMessage(device, '1', 1, { server: 'dm.example' })));
      });
    },
  },
  registrations: {
    what: 'LwM2M registrations in new names and in those of honest clients, 300 a second from 100 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 100);
      await repeatedly(300, (round) => {
        const at = int(chance, target.devices);
        const name = round % 2 === 0 ? deviceId(at - (at % 5) + 4) : `stranger-${round}`;
        strangers.send(
          round,
          request({
            path: 'rd',
            query: [`ep=${name}`, 'lt=60', 'lwm2m=1.1', 'b=U'],
            options: [uint(Option.ContentFormat, 40)],
            payload: Buffer.from('</1/0>,</3/0>'),
          }),
        );
      });
    },
  },
};
