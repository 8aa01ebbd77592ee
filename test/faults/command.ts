// `npm run faults`: every write of every journey fails once, each in a run of its own.
import { spawnSync } from 'node:child_process';
import { optionsOf } from '../options.ts';

const { seed, journey, place } = optionsOf(
  'faults',
  'Every write of every party in every journey fails once, each in a run of its own. Takes hours.',
  {
    seed: { number: 1 + Math.floor(Math.random() * 1e6), what: 'seed of the random choices' },
    journey: { value: 'NAME', what: 'only journeys whose name has this part' },
    place: { value: 'PLACE', what: 'only this write, such as gw-1:17, or this party: gw-1:' },
  },
);
const { status } = spawnSync(
  process.execPath,
  ['--test', '--test-timeout=7200000', 'test/faults/**/*.test.ts'],
  {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...{ POSTERN_FAULTS: 'all', POSTERN_SEED: String(seed) },
      ...{ POSTERN_JOURNEY: journey ?? '', POSTERN_PLACE: place ?? '' },
    },
  },
);
process.exit(status ?? 1);
