import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { gwConfig, gwConfigDefaults } from '../../src/mo/gw-config.ts';
import { Associations } from '../../src/southbound/associations.ts';
import { Credentials } from '../../src/store/credentials.ts';
import { openDatabase } from '../../src/store/database.ts';
import { Inventory } from '../../src/store/inventory.ts';
import { Nodes } from '../../src/store/nodes.ts';
import { Outbox } from '../../src/store/outbox.ts';
import { turn } from '../coap/wire.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const expiry = 100_000;

function start(alive: ReadonlySet<string>) {
  const database = openDatabase(':memory:');
  const clock = new HandClock();
  const events = new EventRecorder();
  const outbox = new Outbox(database, 10);
  const credentials = new Credentials(database, 10);
  const config = new StoredBranch('GwConfig', gwConfig.root, new Nodes(database));
  for (const node of gwConfigDefaults) config.plant([node.name], node);
  const asked: string[] = [];
  const associations = new Associations({
    database,
    inventory: new Inventory(database, 10),
    credentials,
    outbox,
    gwConfig: config,
    clock,
    events,
    expiry,
    isAlive: async (deviceId) => {
      asked.push(deviceId);
      return alive.has(deviceId);
    },
    reported: () => {},
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
    associations.attach({ deviceId, credential, address: 'coap://192.0.2.1', isGateway: false });
  };
  /** Moves the clock by a sweep's time, and lets the sweep run. */
  const sweep = async () => {
    clock.advance(expiry / 4);
    for (let i = 0; i < 4; i++) await turn();
  };
  const kinds = () => outbox.peek(10).map(({ kind, deviceId }) => `${kind} ${deviceId}`);
  return { associations, clock, events, credentials, config, attach, sweep, asked, kinds };
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
