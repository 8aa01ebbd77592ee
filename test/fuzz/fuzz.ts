// `npm run fuzz`: mutated inputs for every decoder of what a peer sends; then sequences of datagrams for a whole CoAP endpoint,
// and requests for both APIs, `--inputs` of each. `--inputs N` for all decoders together (10 million), `--minutes M` at most
// (30 for the decoders, and 30 for each of the others), `--seed S`; `--write` records the figures. Exits with 1, and prints the
// inputs, when a decoder throws anything but a PosternError, takes too long or takes too much memory, or an invariant of the
// endpoint or of an API does not hold.

import { publish } from '../../build/figure-pages.ts';
import { measured, single, today } from '../../build/figures.ts';
import { machine } from '../bench/measure.ts';
import { Site } from '../journeys/site.ts';
import { measuring, optionsOf } from '../options.ts';
import { fuzzAdminApi, fuzzHeadendApi } from './apis.ts';
import { fuzzEndpoint } from './endpoint.ts';
import { bounds, fuzz, heaviest } from './run.ts';
import { targets } from './targets.ts';

const values = optionsOf(
  'fuzz',
  'Mutated inputs for every decoder, sequences of datagrams for a CoAP endpoint, and requests for both APIs.',
  {
    inputs: { number: 10_000_000, what: 'inputs of all decoders together' },
    minutes: { number: 30, what: 'minutes at most: for the decoders, and for each of the others' },
    seed: { number: 1 + (Date.now() & 0x7fff_fffe), what: 'seed of the random choices' },
    write: measuring.write,
  },
);
const { inputs, minutes, seed } = values;
/** Inputs of each decoder whose memory is measured. */
const weighed = 300;
console.log(`seed ${seed}, ${inputs} inputs, at most ${minutes} minutes`);
const end = performance.now() + minutes * 60_000;
let failed = false;
let all = 0;
let findingCount = 0;
const runs: { read: number; slowest: number; heaviest: number }[] = [];
for (const [at, target] of targets.entries()) {
  const share = Math.ceil(inputs / targets.length);
  const until = performance.now() + (end - performance.now()) / (targets.length - at);
  const began = performance.now();
  const { inputs: done, accepted, slowest, findings } = fuzz(target, seed + at, share, until);
  const seconds = (performance.now() - began) / 1000;
  const bytes = heaviest(target, seed + at, weighed);
  all += done;
  findingCount += findings.length;
  runs.push({ read: (100 * accepted) / done, slowest, heaviest: bytes / 1024 / 1024 });
  console.log(
    `${target.name.padEnd(14)}${done} inputs in ${seconds.toFixed(1)} s, ${((100 * accepted) / done).toFixed(1)} % read, slowest ${slowest.toFixed(1)} ms, heaviest ${(bytes / 1024 / 1024).toFixed(1)} MB`,
  );
  for (const { what, input } of findings) console.error(`  ${what}: ${input}`);
  if (bytes > bounds.bytes) console.error(`  decoding takes more than ${bounds.bytes} bytes`);
  failed ||= findings.length > 0 || bytes > bounds.bytes;
}
await using site = new Site('mqtt://127.0.0.1:1');
const players = {
  'CoAP endpoint': fuzzEndpoint,
  'head-end API': fuzzHeadendApi,
  'admin API': (...run: Parameters<typeof fuzzEndpoint>) => fuzzAdminApi(...run, site),
};
for (const [name, play] of Object.entries(players)) {
  const { inputs: done, accepted, findings } = await play(seed, inputs, performance.now() + minutes * 60_000);
  all += done;
  findingCount += findings.length;
  failed ||= findings.length > 0;
  console.log(`${name.padEnd(14)}${done} inputs, ${accepted} answered`);
  for (const { what, input } of findings) console.error(`  ${what}: ${input}`);
}
console.log(`${all} inputs, ${failed ? 'with findings' : 'no findings'}`);
publish(
  'fuzz',
  {
    title: 'Fuzzing',
    date: today(),
    machine: machine(),
    how: `\`npm run fuzz -- --seed ${seed}\`: ${targets.map(({ name }) => name).join(', ')}.`,
    figures: {
      inputs: single(
        `Mutated inputs of ${targets.length} decoders, of a CoAP endpoint and of two APIs`,
        '',
        all,
      ),
      findings: single(
        `Findings in ${targets.length} decoders, a CoAP endpoint and two APIs`,
        '',
        findingCount,
        { atMost: 0 },
      ),
      slowest: single('Slowest input', 'ms', Math.max(...runs.map((run) => run.slowest)), {
        atMost: bounds.milliseconds,
      }),
      heaviest: single('Memory of the heaviest input', 'MB', Math.max(...runs.map((run) => run.heaviest)), {
        atMost: bounds.bytes / 1024 / 1024,
      }),
      read: measured(
        'Inputs that a decoder accepts',
        '%',
        runs.map((run) => run.read),
      ),
    },
  },
  values.write,
);
if (failed) process.exitCode = 1;
