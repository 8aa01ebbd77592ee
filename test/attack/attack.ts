// `npm run attack`: honest parties work, and one attack after the other goes on beside them. For each: what share of the honest
// work succeeded, its time at p99 against a quiet time just before, growth of memory, what was logged, and whether each honest
// party still gets in afterwards. All run in network namespaces of their own where these can be made, else on loopback, and then
// without the attacks that need more. `--only NAME,…`, `--seconds N` (of each attack), `--devices N`, `--seed N`; `--write` records the
// figures. `--short` is for `npm test`: no quiet time, little pauses, several attacks at once, and each outcome as a line of JSON.
import { setTimeout as pause } from 'node:timers/promises';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, readFigures, single, today, type Unit } from '../../build/figures.ts';
import { machine } from '../bench/measure.ts';
import { measuring, optionsOf } from '../options.ts';
import { attacks, groups } from './attacks.ts';
import { inOwnNetwork, networkSkip } from './network.ts';
import { attackedSite } from './site.ts';
import { bars, type Outcome, suffer, verdict, withoutAttack } from './suffer.ts';

const flags = optionsOf(
  'attack',
  `Honest parties work, and one attack after the other goes on beside them:\n\n${Object.entries(attacks)
    .map(([name, { what }]) => `  ${name.padEnd(20)} ${what}`)
    .join('\n')}

An attack is withstood when all honest work succeeds, and time, memory, log and lock-outs keep their bars (docs/security.md).
The machine must have nothing else to do: the bar of time falls first where it has.`,
  {
    only: { value: 'NAME,…', among: Object.keys(attacks), what: 'only these attacks' },
    seconds: { number: 15, what: 'seconds of each attack' },
    devices: { number: 100, what: 'honest devices' },
    seed: { number: 1, what: 'seed of the random choices' },
    short: { what: 'several attacks at once, without pauses; each outcome is a line of JSON' },
    write: measuring.write,
  },
);
const names = flags.only?.split(',') ?? Object.keys(attacks);
const { devices, seed } = flags;
const time = 1000 * flags.seconds;
const code = await inOwnNetwork(devices);
if (code !== undefined) process.exit(code);

// Its processes end with it.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** Milliseconds in which caches fill and compilers work, before the first attack; of quiet time before each attack. */
const [warmUp, quiet] = flags.short ? [0, 0] : [40_000, Math.min(5000, time)];
const outcomes: Outcome[] = [];
await using site = await attackedSite({ devices, seed, pauses: flags.short ? [50, 250] : [400, 1600] });
console.error(`${devices} honest devices are at work, seed ${seed}`);
await pause(warmUp);
const calm = flags.short ? [] : await withoutAttack(site, time);
const left = networkSkip ? names.filter((name) => attacks[name]!.needsNetwork) : [];
for (const atOnce of flags.short ? groups(names) : names.map((name) => [name])) {
  if (atOnce.some((name) => left.includes(name))) {
    if (flags.short) console.log(JSON.stringify({ name: atOnce.join(), skipped: networkSkip }));
    console.error(`${atOnce}: left out: ${networkSkip}`);
    continue;
  }
  const outcome = await suffer(site, { names: atOnce, time, quiet, calm, seed });
  outcomes.push(outcome);
  const found = verdict(outcome);
  if (flags.short) console.log(JSON.stringify(outcome));
  else console.error(`${atOnce}: ${found.length === 0 ? 'withstood' : `fell: ${found.join('; ')}`}`);
  if (outcome.died) break;
}
if (!flags.short) record();

/** Publishes the figures. */
function record(): void {
  // Recorded, the figures of single attacks take the place of their earlier ones. Printed, they stand alone.
  const figures: Record<string, Figure> =
    flags.only !== undefined && flags.write ? { ...readFigures().attack?.figures } : {};
  for (const { name, success, slower, growth, headendGrowth, logged, lockedOut } of outcomes) {
    const row = (key: string, what: string, unit: Unit, value: number, target = {}) => {
      figures[`${name}/${key}`] = single(what, unit, value, target);
    };
    row('success', 'Honest work that succeeded', '%', 100 * success, { atLeast: 100 });
    row('p99', 'Honest work at p99 / the same before', 'times', slower, { atMost: bars.slower });
    row('growth', 'Growth of memory (RSS): gateway', 'MB', growth, { atMost: bars.megabytes });
    row('headend', 'Head-end', 'MB', headendGrowth, { atMost: bars.megabytes });
    row('log', 'Logged', 'KB', logged / 1000, { atMost: bars.logged / 1000 });
    row('locked-out', 'Honest parties locked out afterwards', '', lockedOut.length, { atMost: 0 });
  }
  const where = networkSkip
    ? 'All are processes of one machine, on loopback.'
    : 'Gateway and head-end, honest devices, and the attacker are in network namespaces of their own, on one machine.';
  publish(
    'attack',
    {
      title: 'Attacks',
      date: today(),
      machine: machine(),
      how: `\`npm run attack\`: ${devices} honest devices and an operator at work (sessions with gateway and DM server, bootstraps, LwM2M registrations, discovery, the API), each attack for ${flags.seconds} s, seed ${seed}. ${where} The log is that of the gateway or the head-end, whichever is more.`,
      figures,
    },
    flags.write,
  );
}
process.exitCode = outcomes.every((outcome) => verdict(outcome).length === 0) ? 0 : 1;
