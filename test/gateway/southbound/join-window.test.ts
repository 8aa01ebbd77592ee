import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { JoinWindow, joinLimits } from '../../../src/gateway/southbound/join-window.ts';
import { Joins } from '../../../src/gateway/southbound/joins.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Pins } from '../../../src/gateway/store/pins.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { testSealing } from '../../state-files.ts';

test('a window ends after its minutes to the millisecond, once, and leaves no timer', () => {
  const clock = new HandClock();
  const ends: string[] = [];
  const window = new JoinWindow(clock, (end) => ends.push(end));
  window.open({ minutes: 60, devices: 64 });
  clock.advance(60 * 60_000 - 1);
  assert.ok(window.isOpen);
  window.open({ minutes: 1, devices: 2 });
  window.took('one');
  assert.deepEqual([window.view?.left, window.view?.joined], [1, ['one']]);
  clock.advance(60_000);
  assert.equal(window.isOpen, false);
  assert.deepEqual([ends, clock.timers], [['time is over'], 0]);
  window.close('closed by hand');
  assert.equal(ends.length, 1);
});

test('no window is longer or wider than its limits', () => {
  const window = new JoinWindow(new HandClock(), () => {});
  const { minutes, devices } = joinLimits;
  for (const wrong of [
    { minutes: 0, devices: 1 },
    { minutes: minutes + 1, devices: 1 },
    { minutes: 1, devices: devices + 1 },
    { minutes: 1.5, devices: 1 },
    { minutes: Number.NaN, devices: 1 },
  ])
    assert.throws(() => window.open(wrong), { code: 'malformed' });
  assert.equal(window.isOpen, false);
});

test('the 65th unknown key ends the association of the first, and of no device that has joined', () => {
  const clock = new HandClock();
  const database = openDatabase(':memory:', gatewaySchema);
  const revoked: string[] = [];
  const joins = new Joins({
    database,
    pins: new Pins(database, 1),
    credentials: new Credentials(database, 10, testSealing),
    isTaken: () => false,
    isListed: () => false,
    canProve: () => true,
    clock,
    events: new EventRecorder(),
  });
  joins.listen({ revoke: (identity) => revoked.push(identity), renew: () => {}, review: () => {} });
  const remote = (mark: string) => ({
    ...{ address: '192.0.2.1', port: 1, key: mark },
    ...{ identity: `key:${mark}`, credential: 'joining' },
  });
  assert.equal(joins.admits('early'), false);
  joins.open({ minutes: 1, devices: 5 }, 'admin');
  assert.ok(joins.admits('joined'));
  assert.ok(joins.isJoined('one', 'OMA-DM', remote('joined')));
  for (let number = 0; number < 64; number++) assert.ok(joins.admits(`key ${number}`));
  assert.deepEqual(revoked, []);
  assert.ok(joins.admits('one more'));
  assert.deepEqual(revoked, ['key:key 0']);
  assert.deepEqual([joins.holds('key 0'), joins.holds('key 1'), joins.holds('joined')], [false, true, true]);
  // One more device than the gateway may have.
  assert.throws(() => joins.isJoined('two', 'OMA-DM', remote('one more')), { code: 'full' });
  assert.equal(joins.view.window?.left, 4);
  clock.advance(60_000);
  assert.deepEqual([joins.holds('key 1'), joins.holds('joined')], [false, true]);
  // Another run of the gateway.
  assert.equal(new Pins(database, 1).at('joined')?.deviceId, 'one');
});
