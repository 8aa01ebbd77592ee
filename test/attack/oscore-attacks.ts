import { setTimeout as pause } from 'node:timers/promises';
import { noBytes } from '../../src/wire/coap/codec.ts';
import { Option, opaque, uriOptions } from '../../src/wire/coap/options.ts';
import { parametersOf } from '../../src/wire/secure/oscore/config.ts';
import { OscoreKeys } from '../../src/wire/secure/oscore/keys.ts';
import { protectRequest } from '../../src/wire/secure/oscore/messages.ts';
import { pivOf, writeHeader } from '../../src/wire/secure/oscore/option.ts';
import { factoryContext } from '../../src/wire/secure/transport-keys.ts';
import {
  type Attack,
  firstMessage,
  int,
  Method,
  repeatedly,
  request,
  Strangers,
  type Target,
  xml,
} from './attacker.ts';
import { ContextParty } from './context-party.ts';
import { bootstrapped, hasOscore, leaver, oscoreOf, renewer } from './deed.ts';

/** Numbers of the honest devices with a security context. The IDs of their contexts are no secret: each request shows them. */
const protectedOf = (devices: number): number[] =>
  Array.from({ length: devices }, (_, at) => at).filter(hasOscore);

const kidOf = (at: number): Buffer => Buffer.from(oscoreOf(at)['sender-id'], 'hex');

/** Milliseconds between two renewals of a context, or two leavings. */
const renewEvery = 2000;

/** Strangers who end the attack as failed when a request of theirs is answered with success. */
async function unsuccessful(target: Target, count: number): Promise<Strangers> {
  const strangers = await Strangers.at(target, count);
  for (const socket of strangers.sockets)
    socket.on('message', (datagram) => {
      if (datagram[1]! >> 5 !== 2) return;
      console.error(`a request that must be refused has the answer ${datagram.toString('hex')}`);
      process.exit(1);
    });
  return strangers;
}

/** Fresh requests in a context: what its device may ask. */
const asking = (keys: OscoreKeys, id: string, first: number): Buffer[] =>
  [
    { code: Method.GET, options: uriOptions(['gw', 'status']), payload: noBytes },
    { code: Method.GET, options: uriOptions(['img', 'firmware']), payload: noBytes },
    { code: Method.POST, options: [...uriOptions(['dm']), xml], payload: firstMessage(id, '1', 1) },
    {
      code: Method.POST,
      options: [...uriOptions(['dm', 't', 'dm.example'], [`id=${id}`]), xml],
      payload: firstMessage(id, '1', 1, { server: 'dm.example' }),
    },
  ].map((plain, at) => {
    const { options, payload } = protectRequest(keys, pivOf(first + at), plain).message;
    return request({ path: '', options, payload });
  });

/** A datagram with another message ID, so that it is no repetition of its last copy. */
function anew(datagram: Buffer, round: number): Buffer {
  const copy = Buffer.from(datagram);
  copy.writeUInt16BE(round & 0xffff, 2);
  return copy;
}

/** Does something each two seconds, for ever. The attack fails when it fails. */
async function again(act: () => Promise<void>): Promise<never> {
  for (;;) {
    await pause(renewEvery);
    await act().catch((thrown: unknown) => {
      console.error(String(thrown));
      process.exit(1);
    });
  }
}

/** Attacks on OSCORE: what costs the gateway work, writes or the windows of its devices before anybody has proved anything. */
export const oscoreAttacks: Readonly<Record<string, Attack>> = {
  'oscore-strangers': {
    what: 'OSCORE requests in contexts that nobody has, with any kid, ID Context and number, 2,000 a second from 200 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 200);
      await repeatedly(2000, (round) => {
        const header = writeHeader({
          piv: pivOf(int(chance, 2 ** 30)),
          kid: chance.bytes(int(chance, 8)),
          ...(round % 2 === 0 && { kidContext: chance.bytes(8) }),
        });
        strangers.send(round, sealedLike(header, chance.bytes(30)));
      });
    },
  },
  'oscore-forged': {
    what: 'OSCORE requests in the contexts of honest devices with numbers far ahead, which do not verify, 2,000 a second from 200 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 200);
      const honest = protectedOf(target.devices);
      await repeatedly(2000, (round) => {
        const kid = kidOf(honest[round % honest.length]!);
        const header = writeHeader({ piv: pivOf(2 ** 39 + int(chance, 2 ** 30)), kid });
        strangers.send(round, sealedLike(header, chance.bytes(30)));
      });
    },
  },
  'oscore-replays': {
    what: 'Old OSCORE requests of honest devices, repeated 1,000 times a second from 100 addresses',
    run: async (target) => {
      const strangers = await Strangers.at(target, 100);
      // What the attacker once recorded: what each device said before its present run.
      const recorded = protectedOf(target.devices).flatMap((at) => {
        const keys = new OscoreKeys(
          parametersOf({ ...oscoreOf(at), 'master-salt': '', 'id-context': undefined }),
        );
        return [1, 2, 3].map((number) => {
          const plain = { code: Method.GET, options: uriOptions(['.well-known', 'core']), payload: noBytes };
          return protectRequest(keys, pivOf(number), plain).message;
        });
      });
      await repeatedly(1000, (round) => {
        const { options, payload } = recorded[round % recorded.length]!;
        strangers.send(round, request({ path: '', options, payload }));
      });
    },
  },
  'oscore-guessed': {
    what: 'OSCORE requests with guessed IDs of contexts that bootstraps give, and in the contexts of the factory secrets of honest devices, whose IDs follow from their names, 2,000 a second from 200 addresses',
    run: async (target, chance) => {
      const strangers = await unsuccessful(target, 200);
      const factory = bootstrapped.map((id) => factoryContext('a guess', id).recipientId);
      await repeatedly(2000, (round) => {
        const issued = Buffer.from(Buffer.from(chance.bytes(6)).toString('base64url').slice(0, 7));
        const kid = round % 2 === 0 ? issued : factory[int(chance, factory.length)]!;
        const header = writeHeader({
          piv: pivOf(2 ** 38 + int(chance, 2 ** 30)),
          kid,
          ...(round % 3 === 0 && { kidContext: chance.bytes(8) }),
        });
        strangers.send(round, sealedLike(header, chance.bytes(30)));
      });
    },
  },
  'oscore-rotated': {
    what: 'A device that gets a new context by a bootstrap each two seconds, and then repeats from 100 addresses what it sent in the former one, and asks anew in it, 1,000 times a second',
    run: async (target) => {
      const strangers = await unsuccessful(target, 100);
      const party = await ContextParty.open(renewer, target);
      let keys = await party.renew();
      let former: Buffer[] = [];
      const renew = async () => {
        const recorded = party.sent.filter(([, code]) => code !== 0);
        const next = await party.renew();
        former = [...recorded, ...asking(keys, renewer, 2 ** 39)];
        keys = next;
      };
      await renew();
      await Promise.all([
        again(renew),
        repeatedly(1000, (round) => strangers.send(round, anew(former[round % former.length]!, round))),
      ]);
    },
  },
  'oscore-revoked': {
    what: 'A device that leaves each two seconds, and then goes on in its context from 100 addresses, 1,000 times a second',
    run: async (target) => {
      const strangers = await unsuccessful(target, 100);
      const party = await ContextParty.open(leaver, target);
      let revoked: Buffer[] = [];
      const leave = async () => {
        const keys = await party.renew();
        await party.leave();
        revoked = asking(keys, leaver, 2 ** 39);
      };
      await leave();
      await Promise.all([
        again(leave),
        repeatedly(1000, (round) => strangers.send(round, anew(revoked[round % revoked.length]!, round))),
      ]);
    },
  },
};

/** A request that looks protected. */
const sealedLike = (header: Buffer, payload: Uint8Array): Buffer =>
  request({ path: '', options: [opaque(Option.Oscore, header)], payload });
