// `npm run fuzz`: mutated inputs for every decoder of what a peer sends; sequences of datagrams for a whole CoAP endpoint; requests
// for both APIs. `--inputs N` of each (10 million), `--minutes M` at most for each (no bound), `--seed S`. `--target NAME` plays only
// this one; it may stand several times. `--from N` goes on at input N: a run that was stopped is resumed, or several processes share a
// row of inputs. Standard error has the progress. `--write` records the figures of a run of all. Exits with 1, and prints the
// inputs, when a decoder throws anything but a PosternError, takes too long or takes too much memory, or an invariant of the
// endpoint or of an API does not hold.

import { publish } from '../../build/figure-pages.ts';
import { measured, single, today } from '../../build/figures.ts';
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
const values = optionsOf(
  'fuzz',
  'Mutated inputs for every decoder, sequences of datagrams for a CoAP, a DTLS and an OSCORE endpoint, and requests for both APIs.',
  {
    target: {
      value: 'NAME',
      many: true,
      among: plays.map(({ name }) => name),
      what: 'only this one; may be repeated',
    },
    inputs: { number: 10_000_000, what: 'inputs of each' },
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
if (values.write && values.target) {
  console.error('--write wants all targets');
  process.exit(2);
}

console.log(`seed ${seed}, ${inputs} inputs each from ${from} on`);
let all = 0;
let findingCount = 0;
const slowests: number[] = [];
const accepts: number[] = [];
const weights: number[] = [];
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
  findingCount += findings.length;
  const perMillion = (1e6 * seconds) / done;
  console.log(
    `${each.name.padEnd(14)}${done} inputs in ${seconds.toFixed(1)} s (${perMillion.toFixed(0)} s per million), ${((100 * accepted) / done).toFixed(1)} % accepted, slowest ${slowest.toFixed(1)} ms`,
  );
  for (const { what, input } of findings) console.error(`  ${what}: ${input}`);
  const decoder = targets.find(({ name }) => name === each.name);
  if (!decoder) continue;
  slowests.push(slowest);
  accepts.push((100 * accepted) / done);
  const bytes = heaviest(decoder, new Dice(seed), weighed);
  weights.push(bytes / 1024 / 1024);
  if (bytes > bounds.bytes) {
    console.error(`  decoding takes ${bytes} bytes, more than ${bounds.bytes}`);
    findingCount++;
  }
}
console.log(`${all} inputs, ${findingCount} findings`);
const names = chosen.map(({ name }) => name).join(', ');
if (values.write)
  publish(
    'fuzz',
    {
      title: 'Fuzzing',
      date: today(),
      machine: machine(),
      how: `\`npm run fuzz -- --seed ${seed}\`: ${names}.`,
      figures: {
        inputs: single(
          `Mutated inputs of ${targets.length} decoders, of a CoAP and a DTLS endpoint and of two APIs`,
          '',
          all,
        ),
        findings: single(
          `Findings in ${targets.length} decoders, a CoAP and a DTLS endpoint and two APIs`,
          '',
          findingCount,
          { atMost: 0 },
        ),
        slowest: single('Slowest input', 'ms', Math.max(...slowests), { atMost: bounds.milliseconds }),
        heaviest: single('Memory of the heaviest input', 'MB', Math.max(...weights), {
          atMost: bounds.bytes / 1024 / 1024,
        }),
        read: measured('Inputs that a decoder accepts', '%', accepts),
      },
    },
    true,
  );
if (findingCount > 0) process.exitCode = 1;
