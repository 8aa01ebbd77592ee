// The attacks of `npm run attack`. Each runs in a process of its own (`node attacks.ts NAME,… TARGET SEED`) until it is killed, and
// sends at most so many datagrams, requests or messages per second that the machine is not the victim.
import { seededEntropy } from '../../src/base/entropy.ts';
import { addressAttacks } from './address-attacks.ts';
import { associationAttacks } from './association-attacks.ts';
import { type Attack, runAll, type Target } from './attacker.ts';
import { brokerAttacks } from './broker-attacks.ts';
import { childAttacks } from './child-attacks.ts';
import { coapAttacks } from './coap-attacks.ts';
import { dtlsAttacks } from './dtls-attacks.ts';
import { httpAttacks } from './http-attacks.ts';
import { nameAttacks } from './name-attacks.ts';
import { oscoreAttacks } from './oscore-attacks.ts';
import { plainAttacks } from './plain-attacks.ts';

/** All attacks by name, in the order in which they run. */
export const attacks: Readonly<Record<string, Attack>> = {
  ...coapAttacks,
  ...dtlsAttacks,
  ...associationAttacks,
  ...plainAttacks,
  ...oscoreAttacks,
  ...nameAttacks,
  ...childAttacks,
  ...addressAttacks,
  ...httpAttacks,
  ...brokerAttacks,
};

/** Most attacks that `groups` puts together. */
const groupSize = 6;

/**
 * Puts attacks together that can go on at once: those from the same machine. Those that cut the
 * gateway off come one after the other, with one recovery after the last.
 */
export function groups(names: readonly string[]): string[][] {
  const kind = (name: string) => {
    const { from = 'network', cutsOff, needsNetwork = false } = attacks[name]!;
    return cutsOff ? 'cut off' : `${from} ${needsNetwork}`;
  };
  return [...Map.groupBy(names, kind).values()].flatMap((alike) => {
    const count = Math.ceil(alike.length / groupSize);
    return Array.from({ length: count }, (_, at) => alike.filter((_name, place) => place % count === at));
  });
}

if (import.meta.main) {
  const [names = '', target = '{}', seed = '1'] = process.argv.slice(2);
  process.on('unhandledRejection', () => {});
  const chance = seededEntropy(Number(seed));
  await runAll(
    names
      .split(',')
      .map((name) => [name, () => attacks[name]!.run(JSON.parse(target) as Target, chance)] as const),
  );
}
