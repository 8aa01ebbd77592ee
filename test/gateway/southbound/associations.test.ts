import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../../src/base/database.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { Associations } from '../../../src/gateway/southbound/associations.ts';
import { Children } from '../../../src/gateway/southbound/children.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { deviceAttachAlert } from '../../../src/mo/gateway-alerts.ts';
import { gwConfig, gwConfigDefaults } from '../../../src/mo/gw-config.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

const expiry = 100_000;

function start(alive: ReadonlySet<string>) {
  const database = openDatabase(':memory:', gatewaySchema);
  const clock = new HandClock();
  const events = new EventRecorder();
  const outbox = new Outbox(database, 10);
  const credentials = new Credentials(database, 10);
  const inventory = new Inventory(database, 10);
  const config = new StoredBranch('GwConfig', gwConfig.root, new Nodes(database));
  for (const node of gwConfigDefaults) config.plant([node.name], node);
  const asked: string[] = [];
  const associations = new Associations({
    database,
    inventory,
    credentials,
    outbox,
    gwConfig: config,
    clock,
    events,
    expiryOf: () => expiry,
    isAlive: async (deviceId) => {
      asked.push(deviceId);
      return alive.has(deviceId);
    },
    reported: () => {},
    gone: () => {},
  });
  associations.start();
  const attach = (deviceId: string) => {
    const credential = {
      deviceId,
      clientName: deviceId,
      clientSecret: 's',
      clientNonce: new Uint8Array(),
      serverSecret: 's',
      serverNonce: new Uint8Array(),
      origin: 'local',
      attached: false,
    } as const;
    credentials.put(credential);
    associations.attach({
      deviceId,
      credential,
      mode: 0,
      origin: 'local',
      protocol: 'OMA-DM',
      address: 'coap://192.0.2.1',
      isGateway: false,
    });
  };
  /** Moves the clock by the time between two sweeps, and lets the sweep run. */
  const sweep = async () => {
    clock.advance(30_000);
    for (let i = 0; i < 4; i++) await turn();
  };
  const kinds = () => outbox.peek(10).map(({ kind, deviceId }) => `${kind} ${deviceId}`);
  const bodies = () =>
    outbox
      .peek(10)
      .map(({ kind, deviceId, body }) => [kind, deviceId, (JSON.parse(body) as { via?: string }).via]);
  return { associations, inventory, bodies, clock, events, credentials, config, attach, sweep, asked, kinds };
}

// conforms: GW-6
test('a device that is silent is asked, and is gone only when it does not answer', async () => {
  const { associations, clock, credentials, attach, sweep, asked, kinds } = start(new Set(['lives']));
  for (const device of ['lives', 'silent', 'heard']) attach(device);
  for (let i = 0; i < 3; i++) await sweep();
  assert.deepEqual(asked, [], 'not before its time');
  associations.heard('heard');
  await sweep();
  assert.deepEqual(asked, ['lives', 'silent']);
  assert.equal(credentials.get('silent'), undefined, 'its credential is revoked');
  assert.ok(credentials.get('lives') && credentials.get('heard'));
  assert.deepEqual(kinds(), [
    'device-attach lives',
    'device-attach silent',
    'device-attach heard',
    'device-detach silent',
  ]);
  await associations[Symbol.asyncDispose]();
  assert.equal(clock.timers, 0);
});

// conforms: GW-25
test('alerts are not sent where GwConfig says so', async () => {
  const { associations, attach, config, kinds } = start(new Set());
  config.replace(['DetachAlert'], { format: 'bool', value: 'false' });
  attach('a');
  assert.equal(associations.detach('a', 'left'), true);
  assert.equal(associations.detach('a', 'left'), false, 'once');
  config.replace(['AttachAlert'], { format: 'bool', value: 'false' });
  attach('b');
  assert.deepEqual(kinds(), ['device-attach a']);
  await associations[Symbol.asyncDispose]();
});

describe('what is behind a child gateway', () => {
  const attached = (deviceId: string, isGateway = false) =>
    ({ deviceId, mode: 0, bootstrap: 'local', ...(isGateway && { isGateway }) }) as const;

  // conforms: GW-22
  test('is told of once, is not asked whether it is there, and goes with the child', async () => {
    const { associations, inventory, attach, sweep, asked, bodies } = start(new Set(['gw-2']));
    attach('gw-2');
    associations.attachBehind('gw-2/gw-3', attached('deep'));
    associations.attachBehind('gw-2/gw-3', attached('deep'));
    assert.equal(inventory.get('deep')?.via, 'gw-2/gw-3');
    for (let i = 0; i < 6; i++) await sweep();
    assert.deepEqual(new Set(asked), new Set(['gw-2']));
    associations.detachBehind('gw-9', 'deep', 'left');
    assert.ok(inventory.get('deep'), 'of another child');
    associations.detach('gw-2', 'left');
    assert.equal(inventory.get('deep'), undefined);
    assert.deepEqual(bodies(), [
      ['device-attach', 'gw-2', undefined],
      ['device-attach', 'deep', 'gw-2/gw-3'],
      ['device-detach', 'gw-2', undefined],
      ['device-detach', 'deep', 'gw-2/gw-3'],
    ]);
    await associations[Symbol.asyncDispose]();
  });

  test('a device that went on to a child stays known when the server has this gateway let it go', async () => {
    const { associations, inventory, credentials, attach } = start(new Set());
    attach('moves');
    associations.attachBehind('gw-2', attached('moves'));
    const takeBack = associations.remove('moves');
    assert.deepEqual([inventory.get('moves')?.via, credentials.get('moves')], ['gw-2', undefined]);
    takeBack();
    assert.ok(credentials.get('moves'));
    await associations[Symbol.asyncDispose]();
  });

  test('a device that comes to this gateway itself is its own from then on', async () => {
    const { associations, inventory, attach, bodies } = start(new Set());
    associations.attachBehind('gw-2', attached('moves'));
    attach('moves');
    assert.equal(inventory.get('moves')?.via, undefined);
    associations.detachBehind('gw-2', 'moves', 'expired');
    assert.ok(inventory.get('moves'));
    assert.deepEqual(
      bodies().map(([kind, , via]) => [kind, via]),
      [['device-attach', undefined]],
      'what is known of one device now says all that was told before',
    );
    await associations[Symbol.asyncDispose]();
  });

  // conforms: GW-22
  test('a loop of gateways, and one too deep, are refused', () => {
    const { associations, inventory, events } = start(new Set());
    const children = new Children({
      allowed: new Set(['gw-2', 'child']),
      gatewayId: 'gw-1',
      vocabulary: ownVocabulary,
      associations,
      events,
      fanoutEnded: () => {},
      faulted: () => {},
    });
    const alert = (deviceId: string, via?: string) => ({
      name: 'Alert' as const,
      cmdId: '1',
      ...deviceAttachAlert(ownVocabulary, {
        sequence: 1,
        ...attached(deviceId),
        ...(via !== undefined && { via }),
      }),
      data: 1226,
    });
    assert.equal(children.alerted('gw-2', alert('a', 'gw-3/gw-4/gw-5')), 200);
    for (const [deviceId, via] of [
      ['gw-1', undefined],
      ['b', 'gw-3/gw-1'],
      ['gw-3', 'gw-3'],
      ['gw-2', undefined],
      ['c', 'gw-3/gw-4/gw-5/gw-6'],
    ] as const)
      assert.equal(children.alerted('gw-2', alert(deviceId, via)), 403, `${deviceId} ${via}`);
    assert.equal(inventory.size, 1);
    assert.equal(events.count('hierarchy.refused'), 5);
    assert.equal(children.alerted('gw-2', { name: 'Alert', cmdId: '1', data: 1226, items: [] }), undefined);
  });
});
