import assert from 'node:assert/strict';
import { EnrolmentSite } from '../journeys/enrolment-site.ts';
import { asker, startApi } from './api-client.ts';

/** Enrols boards by the API: a list, an approval, a refusal, a code. The answers are checked against the OpenAPI document. */
export async function enrolByApi(): Promise<void> {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend();
  await using api = await startApi(headend);
  const ask = asker(api.url);
  const stop = new AbortController();
  const boards = ['gw-1', 'gw-2'].map((name) => site.board(name, { serial: `SN of ${name}` }));
  const enrolled = boards.map((board) => board.enrol(stop.signal));
  for (const board of boards) await board.events.until('enrolment.waiting');
  const list = async () => (await ask('GET', '/enrolments?limit=10')).body;
  const keyOf = async (gateway: string) => (await list()).find((one) => one.gateway === gateway)?.key;
  const approved = await ask('POST', `/enrolments/${await keyOf('gw-1')}/approve`, { gateway: 'gw-1' });
  assert.equal((await ask('POST', `/enrolments/${await keyOf('gw-2')}/approve`, {})).status, 400);
  const other = { gateway: 'gw-1' };
  assert.equal((await ask('POST', `/enrolments/${await keyOf('gw-2')}/approve`, other)).status, 409);
  assert.deepEqual([approved.status, approved.body.state, approved.body.by], [200, 'issued', 'hand']);
  assert.equal(
    (await ask('POST', `/enrolments/${await keyOf('gw-1')}/approve`, { gateway: 'gw-1' })).status,
    409,
  );
  assert.equal((await ask('POST', `/enrolments/${await keyOf('gw-1')}/refuse`, {})).status, 409);
  const refused = await ask('POST', `/enrolments/${await keyOf('gw-2')}/refuse`, { reason: 'stolen' });
  assert.deepEqual([refused.body.state, refused.body.reason], ['refused', 'stolen']);
  await boards[1]!.events.until('enrolment.refused', { reason: 'stolen' });
  assert.equal((await ask('POST', '/enrolments/unknown/approve', { gateway: 'gw-1' })).status, 404);
  assert.equal((await ask('POST', '/enrolment-codes', { hours: 0 })).status, 400);
  const { body: code } = await ask('POST', '/enrolment-codes', { gateway: 'gw-3', hours: 1 });
  await site.board('gw-3', { code: code.code }).enrol();
  assert.equal((await list()).find(({ gateway }) => gateway === 'gw-3')?.by, 'code');
  const batch = { version: 1, batch: 'batch-1', expires: '2099-01-01T00:00:00.000Z' };
  const batched = [{ gateway: 'gw-4', serial: 'SN-4', hash: 'a'.repeat(64) }];
  const taken = await ask('POST', '/enrolment-manifests', { ...batch, boards: batched });
  assert.deepEqual([taken.status, taken.body.taken, taken.body.known], [200, 1, 0]);
  assert.equal((await ask('POST', '/enrolment-manifests', { ...batch, boards: [] })).status, 400);
  const shown = JSON.stringify(await list());
  assert.ok(
    !/secret|chain|PRIVATE|CERTIFICATE/i.test(shown),
    'the list shows neither secrets nor certificates',
  );
  await enrolled[0];
  const ofFirst = '/gateways/gw-1/replacement';
  const { status, body: order } = await ask('POST', ofFirst, { hours: 2, serial: 'SN of the next one' });
  assert.deepEqual([status, order.gateway, order.serial], [200, 'gw-1', 'SN of the next one']);
  assert.equal((await ask('POST', ofFirst, { hours: 0 })).status, 400);
  assert.equal((await ask('POST', '/gateways/gw-9/replacement', {})).status, 404);
  assert.equal((await ask('DELETE', ofFirst)).body.removed, 'gw-1');
  await departByApi(ask);
  stop.abort();
  await assert.rejects(enrolled[1]!);
}

/** Orders that gateways leave: given, listed, taken back, by force. */
async function departByApi(ask: ReturnType<typeof asker>): Promise<void> {
  const leave = '/gateways/gw-1/decommission';
  const given = await ask('POST', leave, { by: 'ann' });
  assert.deepEqual(
    [given.status, given.body.order, given.body.state, given.body.by],
    [202, 'decommission', 'ordered', 'ann'],
  );
  assert.equal((await ask('DELETE', '/gateways/gw-1/transfer')).status, 404);
  assert.equal((await ask('DELETE', leave)).body.state, 'cancelled');
  assert.equal((await ask('DELETE', leave)).status, 404);
  assert.equal((await ask('POST', '/gateways/gw-9/decommission', {})).status, 404);
  assert.equal((await ask('POST', '/gateways/gw-1/transfer', { server: 'dm.next' })).status, 400);
  const half = { server: 'dm.next', code: 'a-secret-code', cert: 'PEM' };
  const refused = await ask('POST', '/gateways/gw-1/transfer', half);
  assert.deepEqual(
    [refused.status, /cert and key belong together/.test(String(refused.body.message))],
    [400, true],
  );
  const passed = await ask('POST', '/gateways/gw-1/transfer', { server: 'dm.next', code: 'a-secret-code' });
  assert.deepEqual([passed.status, passed.body.order, passed.body.by], [202, 'transfer', 'api']);
  assert.equal((await ask('DELETE', '/gateways/gw-1/transfer')).body.state, 'cancelled');
  const forced = await ask('POST', leave, { by: 'bob', force: true });
  assert.deepEqual([forced.status, forced.body.state], [202, 'done']);
  assert.equal((await ask('POST', leave, {})).status, 404);
  const { body: list } = await ask('GET', '/departures?limit=10');
  assert.deepEqual(
    list.map(({ order, state, by }: Record<string, unknown>) => [order, state, by]),
    [
      ['decommission', 'done', 'bob'],
      ['transfer', 'cancelled', 'api'],
      ['decommission', 'cancelled', 'ann'],
    ],
  );
  assert.ok(!JSON.stringify(list).includes('a-secret-code'), 'the list shows no secrets');
}
