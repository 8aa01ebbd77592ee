import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Watchdog } from '../../../src/gateway/update/watchdog.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

function dog(t: TestContext, check: () => Promise<string | undefined>) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-dog-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const device = join(folder, 'watchdog');
  writeFileSync(device, '');
  const clock = new HandClock();
  const events = new EventRecorder();
  return { device, clock, events, watchdog: new Watchdog({ device, check, clock, events }) };
}

/** What is waiting for a promise that has been kept goes on. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

test('the watchdog is fed while the checks of the gateway succeed, and disarmed at the end', async (t) => {
  const { device, clock, watchdog } = dog(t, async () => undefined);
  watchdog.start();
  await settle();
  for (let look = 0; look < 3; look++) {
    clock.advance(5000);
    await settle();
  }
  assert.equal(readFileSync(device, 'latin1'), '\0\0\0\0');
  await watchdog[Symbol.asyncDispose]();
  assert.equal(readFileSync(device, 'latin1').at(-1), 'V');
  assert.equal(clock.timers, 0);
});

test('the watchdog is not fed if a check fails, and the reason is reported', async (t) => {
  const { device, events, watchdog } = dog(t, async () => 'CoAP does not answer');
  watchdog.start();
  await settle();
  assert.equal(readFileSync(device, 'latin1'), '');
  assert.deepEqual(events.all[0]?.fields, { reason: 'CoAP does not answer' });
  await watchdog[Symbol.asyncDispose]();
});

test('if the watchdog device is missing, the error names the configuration key', () => {
  const parts = { check: async () => undefined, clock: new HandClock(), events: new EventRecorder() };
  const missing = new Watchdog({ device: '/nowhere/watchdog', ...parts });
  assert.throws(() => missing.start(), /update\.watchdog: \/nowhere\/watchdog cannot be opened/);
});
