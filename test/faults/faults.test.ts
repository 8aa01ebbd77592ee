import './failing-storage.ts';

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { type Entropy, seededEntropy } from '../../src/base/entropy.ts';
import { startAedes } from '../peers/brokers.ts';
import { unwatch, type Watched } from './failing-storage.ts';
import { type Journey, journeys } from './journeys.ts';
import { Rig } from './rig.ts';

/** How many writes of each party of each journey fail: `all` in `npm run faults`, a sample in `npm test`. */
const wanted = process.env.POSTERN_FAULTS ?? '1';
const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
/** To look at some runs again: a part of the name of the journey, and a place, such as `gw-1:17`, or a party: `gw-1:`. */
const only = { journey: process.env.POSTERN_JOURNEY ?? '', place: process.env.POSTERN_PLACE ?? '' };
/** Runs at the same time, and milliseconds that one may take. */
const limits = { parallel: 4, run: 30_000 } as const;

// In memory, where there is a disk of it: here the disk fails by other means.
const folder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'postern-faults-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let runs = 0;

/** One write that fails. `ends`: the transaction ends with it. */
interface Fault {
  readonly party: string;
  readonly at: number;
  readonly ends: boolean;
}

/** What one party wrote in a run. `start`: how many of its writes belong to its first start. */
type Written = Watched & { readonly start: number };

/** Goes a journey once, to its good end. Returns what each of the parties wrote. */
async function go(journey: Journey, fault?: Fault): Promise<ReadonlyMap<string, Written>> {
  await using broker = await startAedes();
  await using rig = new Rig(join(folder, String(++runs)), broker.url);
  const written = journey.parties.map((party) => {
    const ends = fault?.party === party && fault.ends;
    return [party, rig.watch(party, fault?.party === party ? fault.at : undefined, ends)] as const;
  });
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error('the journey does not end')), limits.run);
  try {
    await Promise.race([journey.run(rig), late.promise]);
    await rig.compareAll();
  } catch (cause) {
    const { party = 'no party', at = '', ends } = fault ?? {};
    const failed = written.find(([, { failed: place }]) => place !== undefined)?.[1].failed;
    const how = ends ? ', and ended the transaction' : '';
    const [what] = String(cause).split('\n');
    throw new Error(`seed ${seed}, ${party}:${at}: ${failed} failed${how}: ${what}`, { cause });
  } finally {
    clearTimeout(timer);
    for (const party of journey.parties) unwatch(rig.fileOf(party));
  }
  return new Map(
    written.map(([party, watched]) => [party, { ...watched, start: rig.startPlaces.get(party) ?? 0 }]),
  );
}

/** The writes of a party that fail: all of them, or some. */
function chosen(party: string, from: number, to: number, entropy: Entropy): Fault[] {
  const places =
    wanted === 'all'
      ? Array.from({ length: to - from }, (_, at) => from + at)
      : Array.from({ length: Number(wanted) }, () => from + Math.floor(entropy.uniform() * (to - from)));
  return places
    .map((at) => ({ party, at, ends: entropy.uniform() < 0.5 }))
    .filter(({ at }) => only.place === `${party}:${at}` || `${party}:`.startsWith(only.place));
}

describe(`every write fails once, over all journeys, seed ${seed}`, { timeout: 7_200_000 }, () => {
  /** Parties whose first start was looked at, with the number of its writes: a start that writes as many is the same. */
  const started = new Set<string>();
  for (const journey of journeys.filter(({ name }) => name.includes(only.journey)))
    test(journey.name, async (t) => {
      const entropy = seededEntropy(seed);
      const faults: Fault[] = [];
      for (const [party, { places, start }] of await go(journey)) {
        const first = `${party} ${start}`;
        const from = started.has(first) ? start : 0;
        started.add(first);
        faults.push(...chosen(party, from, places.length, entropy));
        t.diagnostic(`${party}: ${places.length} writes, ${start} of them in the first start`);
      }
      const bad: unknown[] = [];
      let met = 0;
      const work = async () => {
        for (let fault = faults.shift(); fault; fault = faults.shift())
          try {
            const written = await go(journey, fault);
            if (written.get(fault.party)?.failed !== undefined) met++;
          } catch (thrown) {
            bad.push(thrown);
          }
      };
      const count = faults.length;
      await Promise.all(Array.from({ length: limits.parallel }, work));
      t.diagnostic(`${met} writes failed in ${count} runs`);
      if (bad.length > 0) throw new AggregateError(bad, `${bad.length} of ${count} runs ended badly`);
      assert.ok(count === 0 || met > 0, 'writes failed');
    });
});
