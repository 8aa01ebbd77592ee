// `npm run sessions`: sessions of stock peers with Postern, by seed.
import { publish } from '../../build/figure-pages.ts';
import { readFigures, recordRun } from '../../build/figures.ts';
import { optionsOf } from '../options.ts';
import { playDmClient } from './dm-clients.ts';
import { playDmServer } from './dm-servers.ts';
import { playLwm2mClient } from './lwm2m-clients.ts';
import { type Play, playAll } from './play.ts';
import { HabitCounts, habitRun, sessionRun } from './report.ts';

const plays: Readonly<Record<string, Play>> = {
  'dm-client': playDmClient,
  'dm-server': playDmServer,
  'lwm2m-client': playLwm2mClient,
};

const { count, seed, peer, trace, write } = optionsOf(
  'sessions',
  'Plays sessions of stock peers with Postern. Both sides have to agree on the end of each session.',
  {
    count: { what: 'sessions of each kind of peer', number: 10_000 },
    seed: { what: 'seed of the first session; the next one has the next seed', number: 1 },
    peer: { what: 'only this kind of peer', value: 'KIND', among: Object.keys(plays) },
    trace: { what: 'prints the messages of the sessions' },
    write: { what: 'records the run in docs/figures.json, and makes the tables' },
  },
);

const shown = trace ? (line: string) => console.log(`${line}\n`) : undefined;
let wrong = 0;
for (const [kind, play] of Object.entries(plays)) {
  if (peer !== undefined && peer !== kind) continue;
  const begun = performance.now();
  const habitsOf = new HabitCounts();
  const before = wrong;
  const ends = await playAll(
    (each) => play(each, shown),
    seed,
    count,
    (at, { what, habits }) => {
      wrong++;
      console.log(`${kind}, seed ${at}: ${what}\n  ${JSON.stringify(habits)}`);
    },
    (played, { habits }) => {
      habitsOf.add(habits);
      if (played % 1000 === 0) console.log(`${kind}: ${played} of ${count} sessions`);
    },
  );
  const seconds = Math.round((performance.now() - begun) / 1000);
  const all = [...ends].map(([end, times]) => `${end} ${times}`).join(', ');
  console.log(`${kind}: ${count} sessions from seed ${seed} in ${seconds} s: ${all}`);
  if (!write) continue;
  const told = {
    kind,
    first: seed,
    sessions: count,
    disagreements: wrong - before,
    done: ends.get('done') ?? 0,
  };
  recordRun('habits', habitRun(readFigures().habits, kind, habitsOf));
  publish('sessions', sessionRun(readFigures().sessions, told), true);
}
console.log(wrong === 0 ? 'Both sides agree on each session.' : `${wrong} disagreements`);
process.exitCode = wrong === 0 ? 0 : 1;
