import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Waiting } from '../../src/cli/waiting.ts';
import type { GatewayConfig } from '../../src/gateway/config.ts';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import type { EnrolmentWay } from '../../src/gateway/northbound/enrolment.ts';
import { EventRecorder } from '../event-recorder.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-waiting-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('a gateway that waits says what it waits for, and why it does not reach the broker', async () => {
  const gateway = { id: 'gw-1', 'admin-socket': join(folder, 'admin.sock') };
  await using waiting = new Waiting({ gateway } as GatewayConfig, new EventRecorder());
  const url = 'mqtts://broker.example';
  const failed = { url, reason: 'connect ECONNREFUSED', retryInSeconds: 1, protocol: 5 };
  waiting.emit('enrolment.begun', { gateway: 'gw-1', url });
  assert.equal(waiting.status.waiting, 'enrolment begun');
  waiting.emit('mqtt.connect-failed', failed);
  assert.equal(
    waiting.status.waiting,
    'enrolment begun; NOT CONNECTED to mqtts://broker.example: connect ECONNREFUSED',
  );
  waiting.emit('mqtt.connected', { url, protocol: 5 });
  waiting.emit('enrolment.refused', { gateway: 'gw-1', reason: 'the code is wrong' });
  assert.equal(waiting.status.waiting, 'enrolment refused: the code is wrong');
  const says = { message: 'gw-1 serves nobody: enrolment refused: the code is wrong' };
  let way: EnrolmentWay = { connected: false, url, reason: 'getaddrinfo ENOTFOUND', retryInSeconds: 7 };
  waiting.asks(() => way);
  assert.equal(
    waiting.status.waiting,
    `enrolment refused: the code is wrong; NOT CONNECTED to ${url}: getaddrinfo ENOTFOUND; next attempt in 7 s`,
  );
  way = { connected: true, url };
  await waiting.started;
  await assert.rejects(askGateway(gateway['admin-socket'], '/devices'), says);
  await assert.rejects(askGateway(gateway['admin-socket'], '/join', {}), says);
});
