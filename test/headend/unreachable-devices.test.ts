import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { Parties } from '../../src/headend/parties.ts';
import { Reachability } from '../../src/headend/reachability.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { UnreachableDevices } from '../../src/headend/unreachable-devices.ts';
import { freshState } from '../state-files.ts';

// conforms: GW-6
test('the report of a gateway about its device survives a restart; a report of another gateway is ignored', async (t) => {
  const file = freshState(t);
  const open = () => {
    const database = openDatabase(file, headendSchema);
    const parties = new Parties({ gateway: [], device: [] }, database);
    return { database, parties, devices: new UnreachableDevices(database, parties) };
  };
  const { database, parties, devices } = open();
  parties.associate('a', 'gw-1');
  devices.add('a', 'gw-2', 'a lie', 5);
  devices.add('nobody', 'gw-1', 'not attached', 5);
  assert.deepEqual(['a', 'nobody'].map(devices.reasons()), [undefined, undefined]);
  devices.add('a', 'gw-1', 'it is off', 5);
  devices.add('a', 'gw-1', 'nothing answers', 6);
  await database.close();
  const again = open();
  t.after(() => again.database.close());
  assert.deepEqual(again.devices.reasons()('a'), { reason: 'nothing answers', lastHeard: 6 });
  again.devices.remove('a');
  assert.equal(again.devices.reasons()('a'), undefined);
});

// conforms: GW-22
test('a device behind an unreachable gateway is unreachable; a loop of gateways does no harm', (t) => {
  const database = openDatabase(':memory:', headendSchema);
  t.after(() => database.close());
  const parties = new Parties({ gateway: [], device: [] }, database);
  const devices = new UnreachableDevices(database, parties);
  for (const [device, gateway] of [
    ['gw-2', 'gw-1'],
    ['gw-3', 'gw-2'],
    ['deep', 'gw-3'],
    ['x', 'y'],
    ['y', 'x'],
  ] as const)
    parties.associate(device, gateway);
  devices.add('gw-2', 'gw-1', 'it is off', 7);
  const reason = 'its gateway gw-2 is unreachable: it is off';
  assert.deepEqual(['gw-2', 'gw-3', 'deep', 'x'].map(devices.reasons()), [
    { reason: 'it is off', lastHeard: 7 },
    { reason },
    { reason },
    undefined,
  ]);
});

test('devices of a gateway that went offline show that; without a state, or for others, nothing is said', (t) => {
  const database = openDatabase(':memory:', headendSchema);
  t.after(() => database.close());
  const parties = new Parties({ gateway: [], device: [] }, database);
  const unreachable = new UnreachableDevices(database, parties);
  const reachability = new Reachability(parties, unreachable);
  for (const [device, gateway] of [
    ['a', 'gw-1'],
    ['b', 'gw-2'],
    ['c', 'gw-1'],
  ] as const)
    parties.associate(device, gateway);
  unreachable.add('c', 'gw-1', 'it is off', 7);
  const reasons = () => reachability.devices().map((view) => view.unreachable);
  assert.deepEqual(reasons(), [undefined, undefined, 'it is off'], 'no state was published yet');
  const state = { software: '1', bootId: Buffer.alloc(8) };
  reachability.setState('gw-1', { ...state, online: false });
  assert.deepEqual(reasons(), ['its gateway gw-1 is offline', undefined, 'it is off']);
  reachability.setState('gw-1', { ...state, online: true });
  assert.deepEqual(reasons(), [undefined, undefined, 'it is off']);
});
