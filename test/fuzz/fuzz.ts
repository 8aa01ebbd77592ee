// `npm run fuzz`: mutated inputs for every decoder of what a peer sends. `--inputs N` in all (10 million), `--minutes M`
// at most (30), `--seed S`. Ends with 1 and the inputs when a decoder throws what it must not, or takes too long.
import { parseArgs } from 'node:util';
import { bounds, fuzz, heaviest } from './run.ts';
import { targets } from './targets.ts';

const { values } = parseArgs({
  options: { inputs: { type: 'string' }, minutes: { type: 'string' }, seed: { type: 'string' } },
});
const inputs = Number(values.inputs ?? 10_000_000);
const minutes = Number(values.minutes ?? 30);
const seed = Number(values.seed ?? Date.now() & 0x7fff_ffff);
const weighed = 300;
console.log(`seed ${seed}, ${inputs} inputs, at most ${minutes} minutes`);
const end = performance.now() + minutes * 60_000;
let failed = false;
let all = 0;
for (const [at, target] of targets.entries()) {
  const share = Math.ceil(inputs / targets.length);
  const until = performance.now() + (end - performance.now()) / (targets.length - at);
  const began = performance.now();
  const { inputs: done, accepted, slowest, findings } = fuzz(target, seed + at, share, until);
  const seconds = (performance.now() - began) / 1000;
  const bytes = heaviest(target, seed + at, weighed);
  all += done;
  console.log(
    `${target.name.padEnd(14)}${done} inputs in ${seconds.toFixed(1)} s, ${((100 * accepted) / done).toFixed(1)} % read, slowest ${slowest.toFixed(1)} ms, heaviest ${(bytes / 1024 / 1024).toFixed(1)} MB`,
  );
  for (const { what, input } of findings) console.error(`  ${what}: ${input}`);
  if (bytes > bounds.bytes) console.error(`  decoding takes more than ${bounds.bytes} bytes`);
  failed ||= findings.length > 0 || bytes > bounds.bytes;
}
console.log(`${all} inputs, ${failed ? 'with findings' : 'no findings'}`);
if (failed) process.exitCode = 1;
