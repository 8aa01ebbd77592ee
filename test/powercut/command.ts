// `npm run powercut`: the power is cut, and the gateway is killed, at many points of its work.
import { spawnSync } from 'node:child_process';
import { optionsOf } from '../options.ts';

const { cuts, kills, seed } = optionsOf(
  'powercut',
  'Cuts the power of a gateway, and kills it, at many points of its work. It must start each time and keep what it promised.',
  {
    cuts: { number: 500, what: 'points at which the power is cut' },
    kills: { number: 500, what: 'times that the process is killed' },
    seed: { number: 1 + Math.floor(Math.random() * 1e6), what: 'seed of the random choices' },
  },
);
const { status } = spawnSync(
  process.execPath,
  ['--test', '--test-timeout=7200000', 'test/powercut/**/*.test.ts'],
  {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...{ POSTERN_POWER_CUTS: String(cuts), POSTERN_KILLS: String(kills), POSTERN_SEED: String(seed) },
    },
  },
);
process.exit(status ?? 1);
