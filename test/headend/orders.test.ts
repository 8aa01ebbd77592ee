import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { Records, recordLimits } from '../../src/headend/records.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { HandClock } from '../hand-clock.ts';
import { Site, secrets } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { asker, startApi } from './api-client.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];
const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

describe('orders by the HTTP API', limit, () => {
  test('a fan-out to a group, a trigger and an image are ordered, and their results and alerts are listed', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend(ids);
    await using api = await startApi(headend);
    const ask = asker(api.url);
    const gateway = await site.gateway([]);
    for (const id of ids) {
      const device = site.device(id, gateway, { server: true });
      await device.start();
      await device.attached;
      await site.headendEvents.until('alert.device-attach', { device: id });
    }
    const grouped = await ask('PUT', '/groups/north', { gateway: 'gw-1', devices: [ids[0]] });
    assert.equal(grouped.status, 200);
    const started = await ask('POST', '/fanouts', {
      gateway: 'gw-1',
      name: 'label',
      group: 'north',
      returnFormat: 2,
      operations: [
        { name: 'Atomic', operations: [{ name: 'Replace', uri: './Settings/Label', data: 'a & b' }] },
        { name: 'Get', uri: './Settings/Label' },
      ],
    });
    assert.equal(started.status, 202);
    await site.headendEvents.until('alert.command-fanout', { correlator: started.body.correlator as string });
    const ended = await ask('GET', '/fanouts/gw-1/label');
    assert.match(
      String(ended.body.result),
      /Total="1" Done="1".*<Group Status="200" Commands="200 200 200" Count="1"><Device ID="urn:dev:ops:1"\/>/,
    );
    assert.equal((await ask('GET', '/fanouts/gw-1/none')).status, 404);
    const taken = await ask('POST', '/fanouts', { gateway: 'gw-1', name: 'label', command: 'x' });
    assert.deepEqual(
      [
        taken.status,
        taken.body.error,
        /label exists at gw-1.*state is done/.test(String(taken.body.message)),
      ],
      [409, 'conflict', true],
    );
    assert.deepEqual((await ask('DELETE', '/fanouts/gw-1/label')).body, { removed: 'label' });
    assert.equal((await ask('GET', '/fanouts/gw-1/label')).status, 404);
    const again = await ask('POST', '/fanouts', {
      gateway: 'gw-1',
      name: 'label',
      command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./Nothing</LocURI></Target></Item></Get>',
    });
    await site.headendEvents.until('alert.command-fanout', { correlator: again.body.correlator as string });
    assert.match(
      String((await ask('GET', '/fanouts/gw-1/label')).body.result),
      /Total="2" Done="0" Failed="2"/,
      'in place of the first, though deleted and made in one package',
    );

    const triggered = await ask('POST', '/triggers', {
      gateway: 'gw-1',
      name: 'look',
      devices: ids,
      operations: [{ name: 'Get', uri: './Settings/Label' }],
    });
    assert.equal(triggered.status, 202);
    await site.headendEvents.until('alert.device-trigger');
    while (headend.triggered('gw-1', 'look')?.some(({ status }) => status === 0))
      await site.headendEvents.next('session.ended');
    const sessions = await ask('GET', '/triggers/gw-1/look');
    assert.deepEqual(
      (sessions.body.sessions as { device: string; status: number }[]).map(({ device, status }) => [
        device,
        status,
      ]),
      ids.map((id) => [id, 200]),
    );

    const staged = await ask('POST', '/images', {
      gateway: 'gw-1',
      name: 'conf',
      data: Buffer.from('settings').toString('base64'),
    });
    assert.deepEqual([staged.status, staged.body.state, staged.body.status], [202, 'done', 200]);
    const alerts = await ask('GET', '/alerts?limit=4');
    assert.deepEqual(
      alerts.body.map(({ kind }) => kind),
      ['DeviceTrigger', 'CommandFanout', 'CommandFanout', 'DeviceAttach'],
    );
    const before = await ask('GET', `/alerts?before=${alerts.body[3]?.number}`);
    assert.deepEqual(
      before.body.map(({ kind, device }) => [kind, device]),
      [['DeviceAttach', ids[0]]],
    );
    assert.deepEqual((await ask('GET', '/sessions')).body, []);
    assert.deepEqual(
      (await ask('GET', '/images')).body.map(({ name, state }) => [name, state]),
      [['conf', 'done']],
    );
    // A device of which this server knows nothing has a status of its own.
    const lost = {
      gateway: 'gw-1',
      name: 'lost',
      devices: ['nobody'],
      operations: [{ name: 'Get', uri: './x' }],
    };
    assert.equal((await ask('POST', '/triggers', lost)).status, 202);
    await site.headendEvents.until('alert.device-trigger', { name: 'lost' });
    const { body: found } = await ask('GET', '/triggers/gw-1/lost');
    assert.match(String(found.result), /<Group Status="412" Commands="" Count="1"><Device ID="nobody"/);
    assert.deepEqual(found.sessions, [{ device: 'nobody', status: 404, operations: [] }]);
    const refused: [string, string, object | undefined, number, RegExp][] = [
      ['POST', '/fanouts', { gateway: 'gw-1', name: 'x' }, 400, /operations or command/],
      ['POST', '/fanouts', { gateway: 'gw-1', name: 'a/b', command: 'x' }, 400, /name/],
      ['POST', '/fanouts', { gateway: 'gw-9', name: 'x', command: 'x' }, 404, /no gateway gw-9 .*are gw-1$/],
      ['POST', '/fanouts', { gateway: 'gw-1', name: 'x', command: '<Dance/>' }, 409, /400/],
      ['POST', '/images', { gateway: 'gw-1', name: 'x' }, 400, /url or data/],
      ['POST', '/triggers', { ...lost, gateway: 'gw-9' }, 404, /gw-9/],
      ['PUT', '/policies/x', { gateway: 'gw-9' }, 404, /gw-9/],
      ['GET', '/alerts?limit=x', undefined, 400, /limit/],
      ['PATCH', '/devices', undefined, 405, /GET/],
      ['GET', '/triggers/gw-1/none', undefined, 404, /none/],
      ['GET', '/devices/%ff/x', undefined, 400, /percent-encoding/],
    ];
    for (const [method, path, body, status, message] of refused) {
      const answer = await ask(method, path, body);
      assert.equal(answer.status, status, `${method} ${path}: ${JSON.stringify(answer.body)}`);
      assert.match(String(answer.body.message), message);
    }
    const description = await ask('GET', '/openapi.json');
    assert.equal((description.body as Record<string, unknown>).openapi, '3.1.0');
  });

  test('the policy assigns a device to a gateway, even if the device comes through another one', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await using second = new Site(broker.url);
    const headend = await site.headend(ids, {
      gateway: [party('gw-1'), party('gw-2')],
      policy: { assign: [{ device: 'urn:dev:ops:2*', gateway: 'gw-2' }] },
    });
    await using api = await startApi(headend);
    const ask = asker(api.url);
    const through = await site.gateway([]);
    const belongs = await second.gateway([], { gateway: { id: 'gw-2', state: ':memory:' } });
    await ask('PUT', `/policies/${ids[0]}`, { gateway: 'gw-2' });
    assert.deepEqual(
      (await ask('GET', '/policies')).body.map(({ device, gateway }) => [device, gateway]),
      [[ids[0], 'gw-2']],
    );
    for (const id of ids) {
      const device = site.device(id, through, { server: true });
      await device.start();
      await site.headendEvents.until('bootstrap.assisted', { device: id, gateway: 'gw-2', status: 200 });
      assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-2']);
    }
    assert.equal(belongs.status().counts['device.expected'], 2);
    await ask('DELETE', `/policies/${ids[0]}`);
    assert.deepEqual((await ask('GET', '/policies')).body, []);
  });
});

test('the number of stored results is bounded, and the oldest are deleted', () => {
  const records = new Records(openDatabase(':memory:', headendSchema), new HandClock());
  for (let at = 0; at <= recordLimits.results; at++)
    records.putResult({
      kind: 'CommandFanout',
      gateway: 'g',
      name: `f${at}`,
      correlator: undefined,
      result: '',
    });
  const kept = records.results('CommandFanout');
  assert.deepEqual(
    [kept.length, kept.at(-1)?.name],
    [Math.floor((recordLimits.results * 31) / 32), `f${recordLimits.results}`],
  );
  records.putResult({ kind: 'CommandFanout', gateway: 'g', name: 'f5', correlator: 'c', result: 'new' });
  assert.equal(records.results('CommandFanout').at(-1)?.result, 'new');
});
