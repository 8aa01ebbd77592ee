import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attacks, groups } from './attacks.ts';
import type { Outcome } from './suffer.ts';

const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const devices = 10;
/** Seconds of each group of attacks. `npm run attack` measures each alone; here is only shown that honest work goes on. */
const seconds = 0.6;

/**
 * All attacks that the network allows, but one alone by the broker: parties wait longer with each connection that failed. The seed
 * says which.
 */
const byBroker = Object.keys(attacks).filter((name) => name.startsWith('broker-'));
const names = Object.keys(attacks).filter(
  (name) => !byBroker.includes(name) || name === byBroker[seed % byBroker.length],
);

type Line = { readonly name: string } & (Outcome | { readonly skipped: string });

describe(`attacks beside honest devices, a moment each (POSTERN_SEED=${seed})`, { timeout: 170_000 }, () => {
  let program: ChildProcess;
  const outcomes = new Map(groups(names).map((atOnce) => [atOnce.join(), Promise.withResolvers<Line>()]));
  before(() => {
    const options = [
      '--short',
      '--devices',
      devices,
      '--seconds',
      seconds,
      '--seed',
      seed,
      '--only',
      names,
    ].map(String);
    const file = fileURLToPath(new URL('attack.ts', import.meta.url));
    program = spawn(process.execPath, [file, ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface(program.stdout!).on('line', (text) => {
      const line = JSON.parse(text) as Line;
      outcomes.get(line.name)?.resolve(line);
    });
    program.once('exit', (code) => {
      for (const { promise, reject } of outcomes.values()) {
        promise.catch(() => {});
        reject(new Error(`the program ended with ${code}`));
      }
    });
  });
  after(async () => {
    if (program.exitCode !== null || program.signalCode !== null) return;
    program.kill();
    await once(program, 'exit');
  });
  for (const [name, outcome] of outcomes)
    test(name.replaceAll(',', ', '), async (t) => {
      const line = await outcome.promise;
      if ('skipped' in line) return t.skip(line.skipped);
      const { acts, died, lockedOut, notOnce, logged, work, reasons } = line;
      t.diagnostic(`${acts} acts of attackers, ${work} pieces of honest work, ${logged} bytes logged`);
      assert.deepEqual(
        { died, lockedOut, notOnce, reasons },
        { died: false, lockedOut: [], notOnce: 0, reasons: [] },
      );
      assert.ok(logged < 1e6, `${logged} bytes logged`);
    });
});
