import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CloneWatch, cloneLimits } from '../../src/headend/clone-watch.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

function watch() {
  const [clock, events] = [new HandClock(), new EventRecorder()];
  const clones = new CloneWatch({ clock, events });
  const heard = (boot: number, online = true, gateway = 'gw-1') =>
    clones.heard(gateway, { online, software: '1', bootId: Buffer.from([boot]) });
  return { clock, events, clones, heard };
}

test('any number of starts, one after the other, is one board; so are late Last Wills and repeated states', () => {
  const { events, clones, heard } = watch();
  for (let boot = 0; boot < 20; boot++) {
    heard(boot);
    heard(boot);
    // The Last Will of the start before is late.
    if (boot > 0) heard(boot - 1, false);
    heard(boot);
  }
  assert.deepEqual([events.all, clones.clonedAt('gw-1')], [[], undefined]);
});

test('a start that comes back after another one is a second board; this is said once, until an hour without it', () => {
  const { clock, events, clones, heard } = watch();
  heard(1);
  heard(2);
  assert.equal(events.count('gateway.cloned'), 0);
  heard(1);
  assert.equal(clones.clonedAt('gw-1'), clock.wall());
  for (let turn = 0; turn < 10; turn++) {
    clock.advance(60_000);
    heard(turn % 2 === 0 ? 2 : 1);
  }
  assert.equal(events.count('gateway.cloned'), 1);
  assert.match(String(events.all[0]?.fields.reason), /02 and 01/);
  clock.advance(3_599_000);
  assert.ok(clones.clonedAt('gw-1'));
  clock.advance(2000);
  assert.equal(clones.clonedAt('gw-1'), undefined);
  heard(2);
  assert.equal(events.count('gateway.cloned'), 2);
  assert.equal(clones.clonedAt('gw-2'), undefined);
});

test('gateways and boots are bounded: the oldest are forgotten', () => {
  const { events, heard } = watch();
  for (let boot = 0; boot <= cloneLimits.boots; boot++) heard(boot);
  heard(0);
  assert.equal(events.count('gateway.cloned'), 0, 'the first boot is forgotten');
  heard(7, true, 'gw-0');
  heard(8, true, 'gw-0');
  for (let at = 0; at < cloneLimits.gateways; at++) heard(1, true, `many-${at}`);
  heard(7, true, 'gw-0');
  assert.equal(events.count('gateway.cloned'), 0, 'the gateway is forgotten');
});
