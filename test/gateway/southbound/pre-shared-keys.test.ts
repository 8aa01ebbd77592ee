import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import { PreSharedKeys } from '../../../src/gateway/southbound/pre-shared-keys.ts';
import { DeviceKeys } from '../../../src/gateway/store/device-keys.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { factoryIdentity, factoryKey, isIssuedIdentity } from '../../../src/wire/secure/transport-keys.ts';

const id = 'urn:dev:ops:1';
const secret = 'factory secret';

function keysOf() {
  const database = openDatabase(':memory:', gatewaySchema);
  const issued = new DeviceKeys(database, new Sealing(new Uint8Array(32), seededEntropy(1)));
  issued.add(id, { identity: 'gw:issued', key: 'issued key' });
  return new PreSharedKeys({
    configured: () => new Map([['configured', Buffer.from('configured key')]]),
    factory: () => new Map([[factoryIdentity(id), { deviceId: id, secret }]]),
    issued,
  });
}

test('an identity names a key, its device, and what kind of key it is', () => {
  const keys = keysOf();
  assert.equal(String(keys.keyOf('configured')), 'configured key');
  assert.equal(String(keys.keyOf('gw:issued')), 'issued key');
  assert.deepEqual(keys.keyOf(factoryIdentity(id)), factoryKey(secret, id));
  assert.equal(keys.keyOf('unknown'), undefined);
  assert.equal(keys.keyOf(id), undefined, 'a name of a device is no identity');
  const kinds = ['configured', factoryIdentity(id), 'gw:issued', 'unknown'].map((identity) =>
    keys.ownerOf(identity, undefined),
  );
  assert.deepEqual(kinds, [
    { identity: 'configured', credential: 'configuration' },
    { identity: id, credential: 'factory' },
    { identity: id, credential: 'gateway' },
    { identity: 'unknown', credential: 'none' },
  ]);
});

test('a certificate whose name is the identity of a key is not taken for the owner of that key', () => {
  const keys = keysOf();
  for (const identity of ['gw:issued', factoryIdentity(id)])
    assert.deepEqual(keys.ownerOf(identity, 'proof'), { identity, credential: 'configuration' });
});

test('the keys of two devices with one factory secret differ, and no issued key has the identity of a factory key', () => {
  assert.notDeepEqual(factoryKey(secret, id), factoryKey(secret, 'urn:dev:ops:2'));
  assert.equal(isIssuedIdentity(factoryIdentity(id)), false);
  assert.equal(isIssuedIdentity('a b'), false);
  assert.equal(isIssuedIdentity('x'.repeat(129)), false);
  assert.equal(isIssuedIdentity('gw:x'), true);
});
