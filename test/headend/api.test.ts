import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { apiReference } from '../../src/cli/api-reference.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { Site } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { authorization, startApi } from './api-client.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };

test(
  'journey 3 by the HTTP API: commands on a device return their results, and wrong requests are refused',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([id]);
    await using api = await startApi(headend);
    const gateway = await site.gateway([]);
    const device = site.device(id, gateway, { server: true, more: { encoding: 'cbor' } });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach');

    const ask = async (path: string, body?: unknown, method = body === undefined ? 'GET' : 'POST') => {
      const response = await fetch(`${api.url}${path}`, {
        method,
        headers: { ...authorization, 'content-type': 'application/json' },
        ...(method === 'POST' && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      return { status: response.status, body: (await response.json()) as Record<string, never> };
    };
    assert.deepEqual((await ask('/devices')).body, [{ id, known: true, gateway: 'gw-1', attached: true }]);
    assert.deepEqual((await ask('/gateways')).body, [
      { id: 'gw-1', known: true, online: true, software: '0.1.0' },
    ]);
    assert.deepEqual((await ask('/healthz')).body, { connected: true });

    const looked = await ask(`/devices/${id}/sessions`, '');
    assert.equal(looked.status, 200);
    const operations = looked.body.operations as unknown as {
      uri: string;
      status: number;
      results: { data: string }[];
    }[];
    assert.deepEqual(
      operations.map(({ uri, status, results }) => [uri, status, results[0]?.data]),
      [
        ['./DevInfo', 200, 'DevId/Man/Mod/DmV/Lang'],
        ['./DevInfo/DevId', 200, id],
        ['./DevInfo/Man', 200, 'Maker & Sons'],
        ['./DevInfo/Mod', 200, 'Reference End Device'],
      ],
    );
    const replaced = await ask(`/devices/${encodeURIComponent(id)}/sessions`, {
      operations: [
        { name: 'Replace', uri: './Settings/Label', data: 'north' },
        { name: 'Replace', uri: './Settings/ReportInterval', format: 'int', data: '60' },
        { name: 'Get', uri: './Nothing' },
        { name: 'Get', uri: './Settings/ReportInterval' },
        { name: 'Get', uri: './DevDetail/LrgObj' },
        { name: 'Get', uri: './Settings' },
        { name: 'Get', uri: './DevInfo?list=TNDS' },
      ],
    });
    const outcomes = replaced.body.operations as unknown as {
      status: number;
      results?: { format: string; type?: string; data: string }[];
    }[];
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 404, 200, 200, 200, 200],
    );
    const found = outcomes.slice(3).map(({ results: [result] = [] }) => result);
    assert.deepEqual(
      found.map((result) => result?.format),
      ['int', 'bool', 'node', 'xml'],
    );
    assert.equal(found[3]?.type, 'application/vnd.syncml.dmtnds+xml');
    assert.deepEqual(
      [device.value('Settings', 'Label'), device.value('Settings', 'ReportInterval')],
      ['north', '60'],
    );

    const refused: [string, unknown, number, RegExp][] = [
      ['/devices/urn:dev:nobody/sessions', '', 404, /no account/],
      [`/devices/${id}/sessions`, '{', 400, /no JSON/],
      [
        `/devices/${id}/sessions`,
        { operations: [{ name: 'Dance', uri: './x' }] },
        400,
        /operations\[0\]\.name: expected/,
      ],
      [
        `/devices/${id}/sessions`,
        { operations: [{ name: 'Get', uri: '3/0/9' }] },
        400,
        /operations\[0\]\.uri: expected a node such as .*, found "3\/0\/9"/,
      ],
      [`/devices/${id}/sessions`, { operations: [] }, 400, /operations/],
      [`/devices/${id}/sessions`, 'x'.repeat(1_600_000), 413, /more than/],
      ['/nothing', undefined, 404, /GET \/devices/],
    ];
    for (const [path, body, status, message] of refused) {
      const answer = await ask(path, body);
      assert.equal(answer.status, status, path);
      assert.match(String(answer.body.message), message);
    }
  },
);

test(
  'a job for a device that does not connect ends as timeout after the configured time',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([id], {
      headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 1 },
    });
    const gateway = await site.gateway([]);
    {
      await using device = site.device(id, gateway, { server: true });
      await device.start();
      await device.attached;
    }
    await assert.rejects(headend.manage(id, [{ name: 'Get', uri: './DevInfo' }]), { code: 'timeout' });
    await assert.rejects(headend.manage('urn:dev:nobody', []), { code: 'notFound' });
  },
);

// conforms: SEC-8, NOT-5
test(
  'a server that lost its nonces agrees with the device again after one resynchronisation',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-headend-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const state = join(folder, 'headend.db');
    const headend = { headend: { id: 'dm.example', state, 'session-timeout': 20 } };
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    const first = await site.headend([id], headend);
    const device = site.device(id, gateway, { server: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach');
    await first[Symbol.asyncDispose]();
    const database = openDatabase(state, headendSchema);
    database.prepare("UPDATE party SET server_nonce = x'00', client_nonce = x'00' WHERE id = ?").run(id);
    database.close();
    await using later = new Site(broker.url);
    const second = await later.headend([id], headend);
    const outcomes = await second.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(outcomes[0]?.status, 200);
    assert.equal(later.headendEvents.count('notification.resync'), 1);
    await second.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(later.headendEvents.count('notification.resync'), 1, 'both agree again');
  },
);

test('docs/openapi.json is up to date with the routes (npm run docs)', () => {
  const file = new URL('../../docs/openapi.json', import.meta.url);
  assert.equal(readFileSync(file, 'utf8'), apiReference());
});
