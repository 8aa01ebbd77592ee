import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site, secrets } from './site.ts';

const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const codings = ['xml', 'wbxml', 'cbor'] as const;
/** What XML 1.0 cannot hold, halves of pairs, what terminals obey, what is markup, and what is only unusual. */
const parts = [
  '\u001b',
  '\0',
  '\ud83d',
  '\udc00',
  '\ufffe',
  '\uffff',
  '\u0085',
  '\u009b',
  '\n',
  '\t',
  '&',
  '<',
].concat([']]>', '"', '\u2028', 'é', '🚪', 'a', '.', '/', '\u202e', '\r', '\ufeff', '\u{10ffff}']);

describe(`a device may say anything of itself (POSTERN_SEED=${seed})`, { timeout: 120_000 }, () => {
  for (const upward of codings)
    test(`in each coding, by DM and by LwM2M: it attaches, is listed, and its record can be read; upward in ${upward}`, async () => {
      const chance = seededEntropy(seed);
      const pick = (below: number) => Math.floor(chance.uniform() * below);
      const odd = () =>
        Array.from({ length: 1 + pick(12) }, () => parts[pick(parts.length)]).join('') +
        (pick(5) === 0 ? 'x'.repeat(200) : '');
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      const ids = Array.from({ length: 6 }, (_, at) => `urn:dev:odd:${at}`);
      const clients = ['client-1', 'client-2'];
      const gateway = await site.gateway(ids, {
        'dm-server': {
          id: 'dm.example',
          'client-secret': secrets.gatewayClient,
          'server-secret': secrets.gatewayServer,
          encoding: upward,
        },
        lwm2m: { device: clients.map((id) => ({ id })), 'insecure-no-security': true },
      });
      for (const [at, id] of ids.entries()) {
        const more = { manufacturer: odd(), model: odd(), firmware: odd(), encoding: codings[at % 3] };
        const device = site.device(id, gateway, { factory: true, more });
        await device.start();
        await device.attached;
      }
      for (const id of clients) {
        const client = site.client(id, gateway, {}, { manufacturer: odd(), model: odd() });
        await client.start();
      }
      for (const device of [...ids, ...clients])
        await site.headendEvents.until('alert.device-attach', { device });
      const [inventory] = await headend.manage('gw-1', [
        { name: 'Get', uri: './GwDeviceInventory?list=StructData' },
      ]);
      assert.equal(inventory?.status, 200);
      const read = inventory?.results.map(({ data }) => data);
      for (const id of [...ids, ...clients]) assert.ok(read?.includes(id), id);
      assert.deepEqual(
        site.gatewayEvents.all.filter(({ name }) => name === 'alert.set-aside'),
        [],
      );
    });
});
