import { noBytes } from '../../src/wire/coap/codec.ts';
import { Option, opaque, uriOptions } from '../../src/wire/coap/options.ts';
import { parametersOf } from '../../src/wire/secure/oscore/config.ts';
import { OscoreKeys } from '../../src/wire/secure/oscore/keys.ts';
import { protectRequest } from '../../src/wire/secure/oscore/messages.ts';
import { pivOf, writeHeader } from '../../src/wire/secure/oscore/option.ts';
import { type Attack, int, Method, repeatedly, request, Strangers } from './attacker.ts';
import { hasOscore, oscoreOf } from './deed.ts';

/** Numbers of the honest devices with a security context. The IDs of their contexts are no secret: each request shows them. */
const protectedOf = (devices: number): number[] =>
  Array.from({ length: devices }, (_, at) => at).filter(hasOscore);

const kidOf = (at: number): Buffer => Buffer.from(oscoreOf(at)['sender-id'], 'hex');

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
};

/** A request that looks protected. */
const sealedLike = (header: Buffer, payload: Uint8Array): Buffer =>
  request({ path: '', options: [opaque(Option.Oscore, header)], payload });
