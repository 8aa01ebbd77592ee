import assert from 'node:assert/strict';
import { test } from 'node:test';
import { trafficRows, uplinkText } from '../../src/cli/status.ts';

const uplink = { connected: true, url: 'mqtt://broker.example', protocol: 'MQTT 5', waiting: 0 };

test('the uplink in one line: what is wrong, when the next attempt is, what waits', () => {
  assert.equal(uplinkText(uplink), 'connected to mqtt://broker.example (MQTT 5)');
  assert.equal(
    uplinkText({ ...uplink, connected: false, reason: 'connect ECONNREFUSED', retryInSeconds: 12 }),
    'NOT CONNECTED to mqtt://broker.example (MQTT 5): connect ECONNREFUSED; next attempt in 12 s',
  );
  assert.equal(
    uplinkText({
      ...uplink,
      refused: true,
      reason: 'may not publish on dm/gw-1/state: Not authorized',
      waiting: 30,
    }),
    'REFUSED by mqtt://broker.example (MQTT 5): may not publish on dm/gw-1/state: Not authorized; 30 messages wait',
  );
});

test('what each kind of traffic has moved is a line that fits a terminal', () => {
  const octets = { up: 123_456_789, down: 123_456_789 };
  const kinds = {
    ...{ connection: octets, alerts: octets, orders: octets, telemetry: octets, images: octets },
  };
  const view = { used: 1_234_567_890, limit: 2_000_000_000, kinds };
  const [day, month] = trafficRows({ day: view, month: view, short: [] } as never);
  assert.equal(day?.[0], 'today');
  const lines = day?.[1]?.split('\n') ?? [];
  assert.equal(lines[0], '1234567.9 kB of 2000000.0 kB');
  assert.equal(lines[1], 'connection 123456.8 kB up, 123456.8 kB down');
  assert.equal(lines.length, 6);
  assert.ok(lines.every((line) => line.length < 80));
  assert.equal(month?.[0], 'month');
});
