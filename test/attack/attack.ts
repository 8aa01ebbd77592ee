// `npm run attack`: honest devices work, and one attack after the other goes on beside them. For each: what share of the honest
// work succeeded, its time at p99 against a quiet time just before, growth of the gateway's memory, what it logged, and whether
// each honest device still gets in afterwards. `--only NAME`, `--seconds N` (of each attack), `--devices N`, `--seed N`; `--write`
// records the figures.
import { setTimeout as pause } from 'node:timers/promises';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, readFigures, single, today, type Unit } from '../../build/figures.ts';
import { machine } from '../bench/measure.ts';
import { measuring, optionsOf } from '../options.ts';
import { attacks } from './attacks.ts';
import { attackedSite } from './site.ts';
import { bars, type Outcome, suffer, verdict } from './suffer.ts';

const flags = optionsOf(
  'attack',
  `Honest devices work, and one attack after the other goes on beside them:\n\n${Object.entries(attacks)
    .map(([name, { what }]) => `  ${name.padEnd(20)} ${what}`)
    .join('\n')}`,
  {
    only: { value: 'NAME', among: Object.keys(attacks), what: 'only this attack' },
    seconds: { number: 15, what: 'seconds of each attack' },
    devices: { number: 100, what: 'honest devices' },
    seed: { number: 1, what: 'seed of the random choices' },
    write: measuring.write,
  },
);
const names = flags.only === undefined ? Object.keys(attacks) : [flags.only];
/** Milliseconds in which caches fill and compilers work, before the first attack. */
const warmUp = 20_000;
const outcomes: Outcome[] = [];
await using site = await attackedSite(flags.devices, flags.seed);
console.error(`${flags.devices} honest devices are at work, seed ${flags.seed}`);
await pause(warmUp);
for (const name of names) {
  const outcome = await suffer(site, name, flags.seconds, flags.seed);
  outcomes.push(outcome);
  const found = verdict(outcome);
  console.error(`${name}: ${found.length === 0 ? 'withstood' : found.join('; ')}`);
  if (outcome.died) break;
}

// The figures of one attack alone take the place of its earlier ones.
const figures: Record<string, Figure> = flags.only === undefined ? {} : { ...readFigures().attack?.figures };
for (const { name, success, slower, growth, logged, lockedOut } of outcomes) {
  const row = (key: string, what: string, unit: Unit, value: number, target = {}) => {
    figures[`${name}/${key}`] = single(what, unit, value, target);
  };
  row('success', 'Honest work that succeeded', '%', 100 * success, { atLeast: 100 });
  row('p99', 'Honest work at p99 / the same before', 'times', slower, { atMost: bars.slower });
  row('growth', 'Growth of memory (RSS)', 'MB', growth, { atMost: bars.megabytes });
  row('log', 'Logged', 'KB', logged / 1000, { atMost: bars.logged / 1000 });
  row('locked-out', 'Honest devices locked out afterwards', '', lockedOut, { atMost: 0 });
}
publish(
  'attack',
  {
    title: 'Attacks',
    date: today(),
    machine: machine(),
    how: `\`npm run attack\`: ${flags.devices} honest devices at work (sessions, bootstraps, LwM2M registrations), each attack for ${flags.seconds} s, seed ${flags.seed}. All are processes of one machine.`,
    figures,
  },
  flags.write,
);
process.exitCode = outcomes.every((outcome) => verdict(outcome).length === 0) ? 0 : 1;
