import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const look = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>';

// Node's timers take at most 2^31 - 1 ms, which are 24.8 days, and fire at once for more.
test('a fan-out with a deadline of 25 days is not over at once', { timeout: 60_000 }, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend([]);
  const gateway = await site.gateway(['urn:dev:1']);
  const device = site.device('urn:dev:1', gateway, { factory: true });
  await device.start();
  await device.attached;
  const started = await headend.manage('gw-1', [
    { name: 'Add', uri: './GwFanout/Fanout/long/Command', format: 'xml', data: look },
    { name: 'Add', uri: './GwFanout/Fanout/long/Deadline', format: 'int', data: String(25 * 86_400) },
    { name: 'Exec', uri: './GwFanout/Fanout/long/Start', correlator: 'long' },
  ]);
  assert.deepEqual(
    started.map(({ status }) => status),
    [200, 200, 202],
  );
  await site.headendEvents.until('alert.command-fanout', { correlator: 'long' });
  const [{ result } = { result: '' }] = headend.fanouts();
  assert.match(result, /^<CampaignResult Total="1" Done="1" Failed="0" Pending="0">/);
});
