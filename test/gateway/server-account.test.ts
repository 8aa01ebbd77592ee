import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { MemoryNodes } from '../../src/dm/node-store.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { knowServer } from '../../src/gateway/tree.ts';
import { Accounts, accountsDescription } from '../../src/mo/dm-acc.ts';
import { Site } from '../journeys/site.ts';

test('status and events do not show the password of the broker that stands in its URL', async () => {
  await using site = new Site('mqtt://operator:swordfish@127.0.0.1:1');
  const gateway = await site.gateway([], {}, false);
  await site.gatewayEvents.until('mqtt.connect-failed');
  assert.doesNotMatch(JSON.stringify(gateway.status()), /swordfish|operator/);
  assert.match(gateway.status().uplink.url, /^mqtt:\/\/127\.0\.0\.1:1/);
  for (const { name, fields } of site.gatewayEvents.all)
    assert.doesNotMatch(JSON.stringify(fields), /swordfish/, name);
});

test('the account of the DM server, which DM servers read, has the address of the broker without its password', () => {
  const accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, new MemoryNodes()));
  const server = { id: 'dm.example', 'client-secret': 'client-secret', 'server-secret': 'server-secret' };
  const config = checkConfig(
    gatewayConfigSchema,
    { gateway: { id: 'gw-1' }, mqtt: { url: 'mqtts://operator:swordfish@broker:8883' }, 'dm-server': server },
    'test',
  );
  knowServer(accounts, config);
  assert.equal(accounts.find('dm.example')?.address, 'mqtts://broker:8883');
});
