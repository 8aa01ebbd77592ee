import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { asker, startApi } from '../headend/api-client.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-telemetry-'));
after(() => rmSync(folder, { recursive: true }));
const id = 'urn:dev:ops:meter-1';

test(
  'an OMA DM device is observed by polling: ordered, told, listed and ended by the API',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await using api = await startApi(headend);
    const ask = asker(api.url);
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    const ordered = await ask('POST', '/gateways/gw-1/observations', {
      name: 'makers',
      paths: ['./DevInfo/Man', 'DevInfo/Missing'],
      reportPeriod: 1,
    });
    assert.equal(ordered.status, 200, JSON.stringify(ordered.body));
    assert.equal(ordered.body.state, 'running');
    await site.headendEvents.until('telemetry.received');
    const { body: values } = await ask('GET', `/devices/${id}/values`);
    assert.deepEqual(
      values.map(({ path, value, type, gateway: by }) => [path, value, type, by]),
      [['/DevInfo/Man', 'Maker & Sons', 'string', 'gw-1']],
    );
  },
);
