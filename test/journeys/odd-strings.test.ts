import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { readResult } from '../../src/mo/campaign-result.ts';
import { startAedes } from '../peers/brokers.ts';
import { childTables, Site, secrets } from './site.ts';

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

const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

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

  for (const upward of codings)
    test(`a fan-out brings each value back as it is, from devices of a gateway and of its child; upward in ${upward}`, async () => {
      const chance = seededEntropy(seed);
      const pick = (below: number) => Math.floor(chance.uniform() * below);
      const odd = () => Array.from({ length: 1 + pick(12) }, () => parts[pick(parts.length)]).join('');
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await using lower = new Site(broker.url);
      const headend = await site.headend([], { gateway: [party('gw-1'), party('gw-2')] });
      const said = new Map<string, string>();
      const ids = (where: string) => codings.map((coding) => `urn:dev:${where}:${coding}`);
      const lwm2m = (where: string) => ({
        device: [{ id: `client:${where}` }],
        'insecure-no-security': true,
      });
      const gateway = await site.gateway(['gw-2', ...ids('gw-1')], {
        'dm-server': { ...party('dm.example'), encoding: upward },
        lwm2m: lwm2m('gw-1'),
        coaps: { port: 0 },
      });
      const child = await lower.gateway(
        ids('gw-2'),
        {
          gateway: { id: 'gw-2', state: ':memory:' },
          ...childTables('gw-2', gateway),
          lwm2m: lwm2m('gw-2'),
        },
        false,
      );
      await site.headendEvents.until('alert.device-attach', { device: 'gw-2' });
      for (const [where, at] of [
        ['gw-1', gateway],
        ['gw-2', child],
      ] as const) {
        for (const [which, id] of ids(where).entries()) {
          said.set(id, odd());
          const more = { manufacturer: said.get(id), encoding: codings[which] };
          await site.device(id, at, { factory: true, more }).start();
        }
        said.set(`client:${where}`, odd());
        await site.client(`client:${where}`, at, {}, { manufacturer: said.get(`client:${where}`) }).start();
      }
      for (const device of said.keys()) await site.headendEvents.until('alert.device-attach', { device });
      const { correlator } = await headend.fanOut('gw-1', {
        name: 'all',
        command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>',
        targets: {},
        returnFormat: 0,
      });
      await site.headendEvents.until('alert.command-fanout', { correlator });
      const brought = readResult(headend.fanouts()[0]?.result ?? '').map(({ device, parts: [part] }) => {
        const { data = '', format, type } = part?.results[0] ?? {};
        assert.equal(type, format && 'text/plain', 'octets that are a text');
        return [device, format ? Buffer.from(data, 'base64').toString() : data] as const;
      });
      // Half of a surrogate pair has no form in UTF-8: an encoder writes one U+FFFD, or three octets that are none.
      const plain = (values: Iterable<readonly [string, string]>) =>
        Object.fromEntries(
          [...values].map(([device, text]) => [device, text.toWellFormed().replace(/\ufffd+/g, '\ufffd')]),
        );
      assert.deepEqual(plain(brought), plain(said));
    });
});
