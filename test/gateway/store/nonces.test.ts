import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Database } from '../../../src/base/database.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Credentials, type GatewayCredential } from '../../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { sealingOf } from '../../state-files.ts';
import { FailingDisk } from './failing-disk.ts';

const ids = ['urn:dev:1', 'urn:dev:2', 'urn:dev:3'];
const credential = (deviceId: string): GatewayCredential => ({
  ...{ deviceId, clientName: deviceId, clientSecret: 'client', serverSecret: 'server' },
  ...{ clientNonce: Uint8Array.of(0), serverNonce: Uint8Array.of(0), origin: 'local', attached: true },
});

/** A store with three credentials in a file. `stored` are the nonces that a start after a crash would find. */
async function rig(work: (database: Database, credentials: Credentials, disk: FailingDisk) => Promise<void>) {
  using disk = new FailingDisk();
  const folder = mkdtempSync(join(tmpdir(), 'postern-nonces-'));
  const file = join(folder, 'state.db');
  const database = openDatabase(file, gatewaySchema);
  const credentials = new Credentials(database, 10, sealingOf(file));
  for (const id of ids) credentials.put(credential(id));
  await database.settled();
  await work(database, credentials, disk);
  await database.close();
  const again = openDatabase(file, gatewaySchema);
  const found = new Credentials(again, 10, sealingOf(file)).list().map(noncesOf);
  await again.close();
  rmSync(folder, { recursive: true });
  return found;
}
const noncesOf = ({ clientNonce, serverNonce }: GatewayCredential) => [...clientNonce, ...serverNonce];
const fresh = (value: number) => ({ clientNonce: Uint8Array.of(value), serverNonce: undefined });

test('nonces of several devices are in memory at once, and in the file when they are promised: in one transaction', async () => {
  await rig(async (database, credentials, disk) => {
    const writes = disk.writes;
    for (const [at, id] of ids.entries()) credentials.keepNonces(id, fresh(at + 1));
    credentials.keepNonces(ids[0]!, fresh(9));
    assert.deepEqual(credentials.list().map(noncesOf), [
      [9, 0],
      [2, 0],
      [3, 0],
    ]);
    assert.deepEqual([database.isSettled, disk.writes], [false, writes]);
    await database.settled();
    // BEGIN, three rows, COMMIT.
    assert.deepEqual([database.isSettled, disk.writes - writes], [true, 5]);
    // Nothing is left for the next sync.
    await database.settled();
    assert.equal(disk.writes - writes, 5);
  });
});

test('a credential that is replaced before its nonces are written has its own, also when the other write fails', async () => {
  const after = await rig(async (database, credentials, disk) => {
    credentials.keepNonces(ids[0]!, fresh(1));
    credentials.put({ ...credential(ids[0]!), clientNonce: Uint8Array.of(5) });
    credentials.keepNonces(ids[1]!, fresh(2));
    disk.failAfter(1);
    assert.throws(() =>
      database.transaction(() => credentials.put({ ...credential(ids[1]!), clientNonce: Uint8Array.of(6) })),
    );
    disk.mend();
    credentials.keepNonces(ids[2]!, fresh(3));
    credentials.delete(ids[2]!);
    await database.settled();
    assert.deepEqual(credentials.list().map(noncesOf), [
      [5, 0],
      [2, 0],
    ]);
  });
  assert.deepEqual(after, [
    [5, 0],
    [2, 0],
  ]);
});

test('nonces that the disk refuses are good in memory, and are in the file once it takes writes again', async () => {
  const after = await rig(async (database, credentials, disk) => {
    disk.failAfter(0, { staysFull: true });
    credentials.keepNonces(ids[0]!, fresh(1));
    await database.settled();
    assert.deepEqual(noncesOf(credentials.get(ids[0]!)!), [1, 0]);
    disk.mend();
    credentials.keepNonces(ids[1]!, fresh(2));
    await database.settled();
  });
  assert.deepEqual(after, [
    [1, 0],
    [2, 0],
    [0, 0],
  ]);
});
