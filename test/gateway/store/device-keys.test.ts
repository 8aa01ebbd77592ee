import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import { DeviceKeys } from '../../../src/gateway/store/device-keys.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';

import { freshState } from '../../state-files.ts';

const sealing = new Sealing(new Uint8Array(32), seededEntropy(1));
const keyOf = (identity: string) => ({ identity, key: `secret of ${identity}` });
const names = (keys: DeviceKeys, device: string) => keys.of(device).map(({ identity }) => identity);

/** The key of this identity as text. */
const textAt = (keys: DeviceKeys, identity: string) => {
  const key = keys.at(identity)?.key;
  return key && Buffer.from(key).toString();
};

test('a device has the key that it used and the newest one, until it uses that; also after a restart', (t) => {
  const file = freshState(t);
  const database = openDatabase(file, gatewaySchema);
  const keys = new DeviceKeys(database, sealing);
  const ended: string[] = [];
  keys.onEnded((identity) => ended.push(identity));
  for (const identity of ['a', 'b', 'c']) keys.add('device', keyOf(identity));
  assert.deepEqual(names(keys, 'device'), ['a', 'c']);
  assert.deepEqual(ended.splice(0), ['b']);
  keys.used('a');
  keys.used('unknown');
  assert.deepEqual(names(keys, 'device'), ['a', 'c']);

  const again = new DeviceKeys(database, sealing);
  assert.deepEqual(names(again, 'device'), ['a', 'c']);
  assert.equal(textAt(again, 'c'), 'secret of c');
  again.onEnded((identity) => ended.push(identity));
  again.used('c');
  again.used('c');
  assert.deepEqual(ended.splice(0), ['a']);
  assert.equal(again.at('a'), undefined);
  assert.deepEqual(names(new DeviceKeys(database, sealing), 'device'), ['c']);
  again.remove('device');
  assert.deepEqual(ended, ['c']);
  assert.equal(new DeviceKeys(database, sealing).size, 0);
  database.close();
  assert.ok(!readFileSync(file).includes('secret of'), 'keys are sealed');
});

test('a change that is not committed did not happen, and nothing ends by it', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const keys = new DeviceKeys(database, sealing);
  keys.onEnded(() => assert.fail('nothing ended'));
  keys.add('device', keyOf('a'));
  assert.throws(() =>
    database.transaction(() => {
      keys.remove('device');
      keys.add('device', keyOf('b'));
      throw new Error('not committed');
    }),
  );
  assert.deepEqual(names(keys, 'device'), ['a']);
  assert.equal(keys.at('b'), undefined);
});

test('an identity is of one key', () => {
  const keys = new DeviceKeys(openDatabase(':memory:', gatewaySchema), sealing);
  keys.add('one', keyOf('a'));
  assert.throws(() => keys.add('two', keyOf('a')), { code: 'conflict' });
});

test('a key that another platform has sealed is unknown', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  new DeviceKeys(database, sealing).add('device', keyOf('a'));
  const other = new Sealing(new Uint8Array(32).fill(1), seededEntropy(2));
  assert.equal(new DeviceKeys(database, other).at('a'), undefined);
});
