import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import { startAedes } from '../peers/brokers.ts';
import { slowSync } from '../peers/slow-sync.ts';
import { GatewayProcess, work, writeConfig } from '../powercut/load.ts';
import { fileServer } from './file-server.ts';
import { Site } from './site.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-flash-'));
after(() => rmSync(folder, { recursive: true }));
const devices = Array.from({ length: 10 }, (_, at) => `urn:dev:ops:${at}`);

// How long it all takes is measured by `npm run bench:flash`.
test('devices, orders, downloads and backups: the event loop of a gateway waits for no sync of the disk', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend([]);
  const { env, counts } = slowSync(folder, 50);
  await using gateway = new GatewayProcess(writeConfig(folder, broker.url, devices), env);
  const port = await gateway.coapPort;
  await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
  const before = counts();

  const standstills = () => counts().standstills - before.standstills;
  await work(site, headend, port, devices, []);
  const image = Buffer.alloc(100_000, 'image');
  await using files = await fileServer(image);
  const { correlator } = await headend.stageImage('gw-1', { name: 'fetched', version: '1', url: files.url });
  await site.headendEvents.until('alert.image-operation', { correlator });
  await askGateway(join(folder, 'admin.sock'), '/backup', { target: join(folder, 'backup.db'), key: true });
  assert.equal(standstills(), 0);
  const syncs = counts().syncs - before.syncs;
  assert.ok(syncs > 5, `${syncs} syncs in other threads`);

  // The result of a pushed image is read in the same session, so its file and its folder are synced at once.
  await headend.stageImage('gw-1', { name: 'pushed', version: '1', data: image.subarray(0, 2000) });
  assert.ok(standstills() <= 2, `${standstills()} standstills`);
});
