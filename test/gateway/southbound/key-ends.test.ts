import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { KeyEnds } from '../../../src/gateway/southbound/key-ends.ts';
import { DeviceKeys } from '../../../src/gateway/store/device-keys.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';

/** Keys of a gateway, and what ends with each of them, in order. */
function rig() {
  const database = openDatabase(':memory:', gatewaySchema);
  const keys = new DeviceKeys(database, { seal: Buffer.from, open: Buffer.from });
  const ended: string[] = [];
  const ends = new KeyEnds({
    credentials: { keys, onEnded: () => {} },
    transport: {
      revoke: (identity) => ended.push(`association ${identity}`),
      retire: (identity) => ended.push(`association ${identity} after its answer`),
    },
    contexts: {
      end: (identity, mayAnswer) => ended.push(`context ${identity}${mayAnswer ? ', may answer' : ''}`),
    },
    sessions: { detached: (deviceId) => ended.push(`sessions of ${deviceId}`) },
  });
  return { database, keys, ends, ended };
}

test('with a key end the association, the context and the open sessions of its device, at once', async () => {
  const { database, keys, ended } = rig();
  keys.add('pump', { identity: 'gw:1', key: 'a key' });
  keys.add('pump', { identity: 'gw:2', key: 'a newer key' });
  assert.deepEqual(ended, []);
  keys.used('gw:2');
  const all = (identity: string) => [`context ${identity}`, `association ${identity}`, 'sessions of pump'];
  assert.deepEqual(ended.splice(0), all('gw:1'));
  keys.remove('pump');
  assert.deepEqual(ended, all('gw:2'));
  await database.close();
});

test('nothing ends with a key whose end is not committed', async () => {
  const { database, keys, ended } = rig();
  keys.add('pump', { identity: 'gw:1', key: 'a key' });
  assert.throws(() =>
    database.transaction(() => {
      keys.remove('pump');
      throw new Error('no commit');
    }),
  );
  assert.deepEqual([ended, keys.size], [[], 1]);
  await database.close();
});

test('a device that leaves still gets the answer to its goodbye', async () => {
  const { database, keys, ends, ended } = rig();
  keys.add('pump', { identity: 'gw:1', key: 'a key' });
  keys.add('valve', { identity: 'gw:2', key: 'another key' });
  ends.goodbye('pump', () => keys.remove('pump'));
  assert.deepEqual(ended.splice(0), ['context gw:1, may answer', 'association gw:1 after its answer']);
  // A goodbye that fails leaves no mark.
  assert.throws(() =>
    ends.goodbye('valve', () => {
      throw new Error('no room');
    }),
  );
  keys.remove('valve');
  assert.deepEqual(ended, ['context gw:2', 'association gw:2', 'sessions of valve']);
  await database.close();
});
