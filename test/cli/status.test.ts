import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uplinkText } from '../../src/cli/status.ts';

const uplink = { connected: true, url: 'mqtt://broker.example', protocol: 'MQTT 5', waiting: 0 };

test('the uplink in one line: what is wrong, when the next attempt is, what waits', () => {
  assert.equal(uplinkText(uplink), 'connected to mqtt://broker.example (MQTT 5)');
  assert.equal(
    uplinkText({ ...uplink, connected: false, reason: 'connect ECONNREFUSED', retryInSeconds: 12 }),
    'NOT CONNECTED to mqtt://broker.example (MQTT 5): connect ECONNREFUSED; next attempt in 12 s',
  );
  assert.equal(
    uplinkText({ ...uplink, reason: 'may not publish on dm/gw-1/state: Not authorized', waiting: 30 }),
    'connected to mqtt://broker.example (MQTT 5): may not publish on dm/gw-1/state: Not authorized; 30 messages wait',
  );
});
