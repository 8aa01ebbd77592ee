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

test('the watchdog is fed while the checks of the gateway succeed, and never disarmed', async (t) => {
  const { device, clock, watchdog } = dog(t, async () => undefined);
  watchdog.start();
  await settle();
  for (let look = 0; look < 3; look++) {
    clock.advance(5000);
    await settle();
  }
  assert.equal(readFileSync(device, 'latin1'), '\0\0\0\0');
  await watchdog[Symbol.asyncDispose]();
  assert.equal(readFileSync(device, 'latin1'), '\0\0\0\0', 'a V would disarm it');
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

test('a check that throws, and a device that takes nothing, end neither the feeding nor the gateway', async (t) => {
  const faults = [new Error('no socket can be made'), new Error('no socket can be made'), undefined];
  const { device, clock, events, watchdog } = dog(t, async () => {
    const fault = faults.shift();
    if (fault) throw fault;
    return undefined;
  });
  watchdog.start();
  await settle();
  for (let look = 0; look < 2; look++) {
    clock.advance(5000);
    await settle();
  }
  assert.equal(readFileSync(device, 'latin1'), '\0');
  assert.deepEqual(
    events.all.map(({ fields }) => fields.reason),
    ['no socket can be made'],
    'it is said once',
  );
  await watchdog[Symbol.asyncDispose]();
  const full = new Watchdog({ device: '/dev/full', check: async () => undefined, clock, events });
  full.start();
  await settle();
  assert.match(String(events.all.at(-1)?.fields.reason), /ENOSPC/);
  clock.advance(5000);
  await settle();
  assert.equal(events.all.length, 2);
  await full[Symbol.asyncDispose]();
  assert.equal(events.all.length, 2);
});
