// `npm run fuzz`: mutated inputs for every decoder of what a peer sends; sequences of datagrams for a whole CoAP endpoint; requests
// for both APIs. `--inputs N` of each (10 million), `--minutes M` at most for each (no bound), `--seed S`. `--target NAME` plays only
// this one; it may stand several times. `--from N` goes on at input N: a run that was stopped is resumed, or several processes share a
// row of inputs. Standard error has the progress. `--write` records a row of figures for each target that was played. Exits with 1,
// and prints the inputs, when a decoder throws anything but a PosternError, takes too long or takes too much memory, or an invariant of the
// endpoint or of an API does not hold.

import { publish } from '../../build/figure-pages.ts';
import { type Figure, readFigures, single, today } from '../../build/figures.ts';
import { machine } from '../bench/measure.ts';
import { measuring, optionsOf } from '../options.ts';
import { fuzzAdminApi, fuzzHeadendApi } from './apis.ts';
import { type Play, playChunks } from './chunks.ts';
import { dtlsTargets, fuzzDtls } from './dtls.ts';
import { fuzzEndpoint } from './endpoint.ts';
import { Dice } from './mutate.ts';
import { fuzzOscore, oscoreTargets } from './oscore.ts';
import { bounds, fuzz, heaviest } from './run.ts';
import { targets as others } from './targets.ts';

const targets = [...others, ...dtlsTargets, ...oscoreTargets];
const plays: readonly Play[] = [
  ...targets.map((target) => ({
    name: target.name,
    play: (...run: Parameters<Play['play']>) => fuzz(target, ...run),
  })),
  { name: 'CoAP endpoint', play: fuzzEndpoint },
  { name: 'DTLS endpoint', play: fuzzDtls },
  { name: 'OSCORE endpoint', play: fuzzOscore },
  { name: 'head-end API', play: fuzzHeadendApi },
  { name: 'admin API', play: fuzzAdminApi },
];
/** Inputs of each target. */
const goal = 10_000_000;
const values = optionsOf(
  'fuzz',
  `Mutated inputs for every decoder, sequences of datagrams for a CoAP, a DTLS and an OSCORE endpoint, and requests for both APIs:

  ${plays.map(({ name }) => name).join(', ')}`,
  {
    target: {
      value: 'NAME',
      many: true,
      among: plays.map(({ name }) => name),
      what: 'only this one; may be repeated',
    },
    inputs: { number: goal, what: 'inputs of each' },
    minutes: { number: Number.POSITIVE_INFINITY, what: 'minutes of each at most' },
    seed: { number: 1 + (Date.now() & 0x7fff_fffe), what: 'seed of the random choices' },
    from: { number: 0, what: 'number of the first input' },
    write: measuring.write,
  },
);
const { inputs, minutes, seed, from } = values;
/** Inputs of each decoder whose memory is measured. */
const weighed = 300;

const chosen = plays.filter(({ name }) => !values.target || values.target.includes(name));

console.log(`seed ${seed}, ${inputs} inputs each from ${from} on`);
let all = 0;
let findingCount = 0;
// A run of some targets replaces the rows of these alone.
const figures: Record<string, Figure> = { ...readFigures().fuzz?.figures };
for (const each of chosen) {
  const began = performance.now();
  const until = began + minutes * 60_000;
  const part = { seed, from, inputs, until };
  const {
    inputs: done,
    accepted,
    slowest,
    findings,
  } = await playChunks(each, part, (at, took) =>
    console.error(`${each.name}: done up to ${at}, the last chunk in ${(took / 1000).toFixed(1)} s`),
  );
  const seconds = (performance.now() - began) / 1000;
  all += done;
  const perMillion = (1e6 * seconds) / done;
  console.log(
    `${each.name.padEnd(14)}${done} inputs in ${seconds.toFixed(1)} s (${perMillion.toFixed(0)} s per million), ${((100 * accepted) / done).toFixed(1)} % accepted, slowest ${slowest.toFixed(1)} ms`,
  );
  for (const { what, input } of findings) console.error(`  ${what}: ${input}`);
  let found = findings.length;
  const decoder = targets.find(({ name }) => name === each.name);
  const bytes = decoder ? heaviest(decoder, new Dice(seed), weighed) : 0;
  if (bytes > bounds.bytes) {
    console.error(`  decoding takes ${bytes} bytes, more than ${bounds.bytes}`);
    found++;
  }
  findingCount += found;
  figures[`${each.name}/inputs`] = single('Inputs', '', done, { atLeast: goal });
  figures[`${each.name}/findings`] = single('Findings', '', found, { atMost: 0 });
  figures[`${each.name}/accepted`] = single('Accepted', '%', (100 * accepted) / done);
  figures[`${each.name}/slowest`] = single('Slowest input', 'ms', slowest);
}
console.log(`${all} inputs, ${findingCount} findings`);
if (values.write)
  publish(
    'fuzz',
    {
      title: 'Fuzzing',
      date: today(),
      machine: machine(),
      how: 'A row is the last run of its target, `npm run fuzz -- --target NAME --write`.',
      figures: inOrder(figures),
    },
    true,
  );
if (findingCount > 0) process.exitCode = 1;

/** A row of each target that was ever played, in the order of the targets, and a row of all. */
function inOrder(rows: Readonly<Record<string, Figure>>): Record<string, Figure> {
  const kept = plays.flatMap(({ name }) =>
    Object.entries(rows).filter(([key]) => key.startsWith(`${name}/`)),
  );
  const sum = (column: string) =>
    kept.filter(([key]) => key.endsWith(`/${column}`)).reduce((all, [, { value }]) => all + value, 0);
  return {
    ...Object.fromEntries(kept),
    'all/inputs': single('Mutated inputs of decoders, endpoints and APIs', '', sum('inputs')),
    'all/findings': single('Findings in decoders, endpoints and APIs', '', sum('findings'), { atMost: 0 }),
  };
}
