import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Presence,
  type PresenceEvent,
  presenceAfter,
  silenceOf,
  silences,
} from '../../../src/gateway/southbound/presence.ts';

const hour = 3_600_000;

// conforms: GW-6
test('each event in each state leads to the state in the table', () => {
  const states: Record<string, Presence> = {
    'not attached': undefined,
    attached: { state: 'attached' },
    unreachable: { state: 'unreachable', reason: 'old' },
  };
  const events: readonly PresenceEvent[] = [
    { name: 'attached' },
    { name: 'heard' },
    { name: 'missing', reason: 'new' },
    { name: 'gone' },
  ];
  const table = Object.entries(states).map(([name, before]) => [
    name,
    ...events.map((event) => {
      const now = presenceAfter(before, event);
      return now?.reason ?? now?.state ?? 'not attached';
    }),
  ]);
  assert.deepEqual(table, [
    ['not attached', 'attached', 'not attached', 'not attached', 'not attached'],
    ['attached', 'attached', 'attached', 'new', 'not attached'],
    ['unreachable', 'attached', 'attached', 'new', 'not attached'],
  ]);
});

// conforms: GW-6
test('the allowed silence depends on the kind of device', () => {
  const device = { isGateway: false, address: 'coap://192.0.2.1' };
  const client = (lifetime: number, queueMode: boolean) =>
    silenceOf({ record: device, registration: { lifetime: lifetime / 1000, queueMode }, configured: 1 });
  assert.equal(silenceOf({ record: device }), silences.usual);
  assert.equal(silenceOf({ record: { ...device, isGateway: true } }), silences.gateway);
  assert.equal(silenceOf({ record: { ...device, address: 'http://192.0.2.1' } }), silences.http);
  assert.equal(silenceOf({ record: device, period: hour }), 3 * hour);
  assert.equal(silenceOf({ record: device, period: 1 }), silences.period.least);
  assert.equal(silenceOf({ record: device, period: 1000 * hour }), silences.period.most);
  assert.equal(silenceOf({ record: device, period: hour, configured: 5 }), 5, 'the operator decides');
  assert.equal(silenceOf({ record: device, configured: 0 }), Number.POSITIVE_INFINITY);
  assert.equal(client(60_000, false), 60_000 + silences.grace, 'a client: by its lifetime');
  assert.equal(client(48 * hour, false), silences.usual, 'but a long one is asked before');
  assert.equal(client(48 * hour, true), 48 * hour + silences.grace, 'unless it sleeps');
  assert.equal(client(0, false), silences.usual, '0 is for ever');
  assert.equal(client(0, true), Number.POSITIVE_INFINITY);
});
