import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { DataBudget } from '../../../src/gateway/northbound/data-budget.ts';
import { UplinkTraffic } from '../../../src/gateway/northbound/metered-uplink.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { TrafficRecords } from '../../../src/gateway/store/traffic.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const minutes = 60_000;
const session = { device: 'urn:dev:1', server: 'dm.example' };
const device = { ...session, peer: '10.0.0.5' };
const stranger = { ...session, peer: '10.6.6.6' };

function trafficWith(address: string | undefined) {
  const clock = new HandClock();
  const records = new TrafficRecords(openDatabase(':memory:', gatewaySchema));
  const budget = new DataBudget({ limits: () => ({}), records, clock, events: new EventRecorder() });
  return { clock, traffic: new UplinkTraffic(budget, clock, () => address) };
}

test('a stranger who names a device that a server asked for is telemetry, and does not prolong its order', () => {
  const { clock, traffic } = trafficWith('10.0.0.5');
  traffic.ordered(session);
  assert.deepEqual([traffic.kindOf(device), traffic.kindOf(stranger)], ['orders', 'telemetry']);
  clock.advance(9 * minutes);
  traffic.answered(stranger);
  clock.advance(minutes);
  assert.equal(traffic.kindOf(device), 'telemetry');
});

test('the session of the device stays an order while it is answered, for an hour at most', () => {
  const { clock, traffic } = trafficWith('10.0.0.5');
  traffic.ordered(session);
  for (let passed = 0; passed < 60; passed += 5) {
    assert.equal(traffic.kindOf(device), 'orders', `${passed} min`);
    clock.advance(5 * minutes);
    traffic.answered(device);
  }
  assert.equal(traffic.kindOf(device), 'telemetry');
  traffic.ordered(session);
  assert.equal(traffic.kindOf(device), 'orders');
});

test('packages that are not answered prolong nothing; where the address is not known, an hour is the bound', () => {
  const { clock, traffic } = trafficWith(undefined);
  traffic.ordered(session);
  clock.advance(9 * minutes);
  traffic.moved(stranger, { up: 40_000, down: 0 });
  clock.advance(minutes);
  assert.equal(traffic.kindOf(stranger), 'telemetry');
  traffic.ordered(session);
  for (let passed = 0; passed < 60; passed += 5) {
    clock.advance(5 * minutes);
    traffic.answered(stranger);
  }
  assert.equal(traffic.kindOf(stranger), 'telemetry');
});

test('devices behind a child gateway are known by the child, whatever their address', () => {
  const { traffic } = trafficWith('10.0.0.2');
  traffic.ordered(session);
  assert.equal(traffic.kindOf({ ...device, via: 'gw-2' }), 'orders');
});
