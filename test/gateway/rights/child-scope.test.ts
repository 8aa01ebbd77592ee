import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { ChildScope, childIn } from '../../../src/gateway/rights/child-scope.ts';

/** A gateway with the children gw-2 and gw-7. Behind gw-2 are gw-3 and, behind that, gw-4. A device is attached here. */
function start() {
  const records = new Map<string, { via?: string; isGateway: boolean }>([
    ['gw-2', { isGateway: true }],
    ['gw-7', { isGateway: true }],
    ['gw-3', { via: 'gw-2', isGateway: true }],
    ['gw-4', { via: 'gw-2/gw-3', isGateway: true }],
    ['meter', { via: 'gw-2', isGateway: false }],
    ['here', { isGateway: false }],
  ]);
  let verdict: PosternError | undefined;
  const judged: string[] = [];
  const scope = new ChildScope({
    gatewayId: 'gw-1',
    recordOf: (id) => records.get(id),
    judge: (child, device) => {
      judged.push(`${child} ${device}`);
      const record = records.get(device);
      if (verdict && record && childIn(record) !== child) throw verdict;
    },
  });
  const statusOf = (said: Partial<Parameters<ChildScope['refusalOf']>[0]>) =>
    scope.refusalOf({ device: 'meter', via: undefined, identity: undefined, child: undefined, ...said })
      ?.status;
  return { records, scope, statusOf, judged, judgeBy: (error?: PosternError) => (verdict = error) };
}

test('send-packages: a way counts from the child itself, through gateways that are attached behind it in this order', () => {
  const { statusOf, records, judged } = start();
  const child = 'gw-2';
  assert.equal(statusOf({ via: ['gw-2'], child }), undefined);
  assert.equal(statusOf({ via: ['gw-4', 'gw-3', 'gw-2'], child }), undefined);
  assert.equal(statusOf({ via: ['gw-2'], child, identity: 'gw-2' }), undefined, 'over coaps');
  assert.deepEqual(new Set(judged), new Set(['gw-2 meter']));
  for (const [via, why] of [
    [['gw-4', 'gw-2'], 'a gateway is left out'],
    [['gw-3', 'gw-4', 'gw-2'], 'another order'],
    [['meter', 'gw-2'], 'a device is no gateway'],
    [['gw-7', 'gw-2'], 'another child'],
    [['none', 'gw-2'], 'nobody'],
    [['gw-7'], 'in the name of another child'],
    [['gw-2', ''], 'an empty name'],
  ] as const)
    assert.equal(statusOf({ via, child }), 503, why);
  assert.equal(statusOf({ via: ['gw-2'] }), 503, 'not from the child');
  assert.equal(statusOf({ via: ['gw-1', 'gw-2'], child }), 508, 'a loop');
  assert.equal(statusOf({ via: ['a', 'b', 'c', 'd', 'gw-2'], child }), 508, 'too deep');
  records.delete('gw-3');
  assert.equal(statusOf({ via: ['gw-4', 'gw-3', 'gw-2'], child }), 503, 'it has left meanwhile');
});

test('send-packages: a key is for its own device, or for the devices behind its gateway', () => {
  const { statusOf } = start();
  assert.equal(statusOf({ identity: 'meter' }), undefined);
  assert.equal(statusOf({ identity: 'gw-2' }), 403, 'a child says whose package it is by its way');
  assert.equal(statusOf({ identity: 'meter', device: 'here' }), 403);
  assert.equal(statusOf({ identity: 'gw-7', via: ['gw-2'], child: 'gw-2' }), 403, "another child's way");
  assert.equal(statusOf({ identity: 'meter', via: ['gw-2'], child: 'gw-2' }), 403);
});

test('send-packages: a device that is elsewhere is asked; one that is there is not spoken for', () => {
  const { statusOf, judgeBy } = start();
  const said = { device: 'here', via: ['gw-2'], child: 'gw-2', identity: 'gw-2' };
  judgeBy(new PosternError('unavailable', 'it is asked'));
  assert.equal(statusOf(said), 503);
  judgeBy(new PosternError('conflict', 'it is there'));
  assert.equal(statusOf(said), 403);
  assert.equal(statusOf({ ...said, device: 'meter' }), undefined, 'its own device');
  assert.equal(statusOf({ ...said, device: 'meter', via: ['gw-7'], child: 'gw-7', identity: 'gw-7' }), 403);
  judgeBy();
  assert.equal(statusOf(said), undefined, 'it has moved');
});

test('report-attach, report-fault: by the same gateways; what may come true is to be repeated, a fault is not', () => {
  const { scope, judgeBy } = start();
  assert.equal(scope.pathOfReport('gw-2', 'gw-3/gw-4', 'deep'), 'gw-2/gw-3/gw-4');
  assert.equal(scope.pathOfFault('gw-2', 'gw-3'), 'gw-2/gw-3');
  assert.throws(() => scope.pathOfReport('gw-7', 'gw-3', 'deep'), { code: 'unavailable' });
  assert.throws(() => scope.pathOfReport('gw-2', 'gw-4', 'deep'), { code: 'unavailable' });
  assert.throws(() => scope.pathOfFault('gw-7', 'gw-3'), { code: 'forbidden' });
  for (const [via, device] of [
    [undefined, 'gw-1'],
    [undefined, 'gw-2'],
    ['gw-1', 'deep'],
    ['gw-3/gw-4/x/y', 'deep'],
  ] as const)
    assert.throws(() => scope.pathOfReport('gw-2', via, device), { code: 'forbidden' });
  judgeBy(new PosternError('conflict', 'it is there'));
  assert.throws(() => scope.pathOfReport('gw-2', undefined, 'here'), { code: 'conflict' });
});
