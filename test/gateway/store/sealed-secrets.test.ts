import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { type Sealer, Sealing } from '../../../src/base/sealing.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { Credentials, type GatewayCredential } from '../../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { accountNodes, accountsDescription } from '../../../src/mo/dm-acc.ts';
import type { TndsNode } from '../../../src/wire/syncml/tnds.ts';
import { freshState, releasedState, testSealing } from '../../state-files.ts';
import { FailingDisk } from './failing-disk.ts';

const secretOf = (part: string) => `very-${part}-secret-that-nobody-reads`;
const credential = (deviceId: string): GatewayCredential => ({
  ...{ deviceId, clientName: deviceId, origin: 'local', attached: false },
  ...{ clientSecret: secretOf('client'), serverSecret: secretOf('server') },
  ...{ clientNonce: Uint8Array.of(1), serverNonce: Uint8Array.of(2) },
});

/** Opens the file, and closes it when the work is done. */
function inState<T>(
  file: string,
  sealing: Sealer,
  work: (parts: { credentials: Credentials; accounts: StoredBranch; nodes: Nodes }) => T,
): T {
  const database = openDatabase(file, gatewaySchema);
  const nodes = new Nodes(database, sealing);
  const accounts = new StoredBranch('DMAcc', accountsDescription, nodes);
  try {
    return work({ credentials: new Credentials(database, 100, sealing), accounts, nodes });
  } finally {
    void database.close();
  }
}

/** Whether one of the texts is in the file or its log. */
const isInClear = (file: string, ...texts: readonly string[]): boolean =>
  [file, `${file}-wal`].some(
    (each) => existsSync(each) && texts.some((text) => readFileSync(each).includes(text)),
  );

const server = accountNodes('other', {
  ...{ serverId: 'other.example', name: 'Other', address: 'https://other.example/dm' },
  own: { name: 'gw-1', secret: secretOf('own'), nonce: Buffer.from('very-secret-nonce-1') },
  peer: { name: 'other.example', secret: secretOf('peer'), nonce: Buffer.from('very-secret-nonce-2') },
});
/** The leaves of a subtree, in the order of their paths. */
const leavesOf = ({ name, value, children = [] }: TndsNode, above = ''): string[] =>
  value === undefined
    ? children.flatMap((child) => leavesOf(child, `${above}/${name}`)).toSorted()
    : [`${above}/${name} ${Buffer.from(value as string).toString()}`];
const secretsOfServer = [secretOf('own'), secretOf('peer'), 'very-secret-nonce-1', 'very-secret-nonce-2'];

/** A state with a credential and an account. */
function filledState(t: TestContext): string {
  const file = freshState(t);
  inState(file, testSealing, ({ credentials, accounts }) => {
    credentials.put(credential('a'));
    credentials.put({ ...credential('a'), attached: true });
    accounts.plant(['other'], server);
  });
  return file;
}

test('no secret of a device or a server is in the file or its log, and all are read again', (t) => {
  const file = filledState(t);
  assert.equal(isInClear(file, secretOf('client'), secretOf('server'), ...secretsOfServer), false);
  assert.equal(isInClear(file, 'other.example'), true, 'what is no secret is in clear');
  inState(file, testSealing, ({ credentials, accounts }) => {
    assert.deepEqual(credentials.get('a'), { ...credential('a'), attached: true });
    assert.deepEqual(leavesOf(accounts.subtree(['other'])), leavesOf(server));
    assert.equal(credentials.lost, 0);
  });
});

test('secrets that an earlier version stored in clear are sealed and overwritten at the first start', (t) => {
  const file = releasedState(t, 'gateway');
  const secrets = ['pi8BaY9nygLpXKljg2Zquw', '869WM_hy7tIJGS9klTSpVQ'];
  assert.equal(isInClear(file, ...secrets), true);
  const before = inState(file, testSealing, ({ credentials }) => credentials.list());
  assert.equal(isInClear(file, ...secrets), false);
  const after = inState(file, testSealing, ({ credentials }) => credentials.list());
  assert.deepEqual(after, before);
  assert.ok(before.some(({ clientSecret }) => clientSecret === secrets[0]));
});

test('on a disk that takes no writes they are read all the same, and sealed at a later start', (t) => {
  const file = releasedState(t, 'gateway');
  openDatabase(file, gatewaySchema).close();
  {
    using disk = new FailingDisk();
    disk.failAfter(0, { staysFull: true });
    const list = inState(file, testSealing, ({ credentials }) => credentials.list());
    assert.ok(list.some(({ clientSecret }) => clientSecret === 'pi8BaY9nygLpXKljg2Zquw'));
    assert.ok(disk.mend());
  }
  assert.equal(isInClear(file, 'pi8BaY9nygLpXKljg2Zquw'), true);
  inState(file, testSealing, () => {});
  assert.equal(isInClear(file, 'pi8BaY9nygLpXKljg2Zquw'), false);
});

test('with another key nothing is read and nothing deleted; with the right one all is there again', (t) => {
  const file = filledState(t);
  inState(file, new Sealing(systemEntropy.bytes(32), systemEntropy), ({ credentials, accounts, nodes }) => {
    assert.deepEqual([credentials.lost, credentials.size, nodes.lost], [1, 0, 4]);
    assert.equal(accounts.text('other', 'ServerID'), 'other.example');
    credentials.put(credential('b'));
  });
  inState(file, testSealing, ({ credentials, accounts }) => {
    assert.deepEqual([credentials.lost, credentials.get('a')?.clientSecret], [1, secretOf('client')]);
    assert.deepEqual(leavesOf(accounts.subtree(['other'])), leavesOf(server));
  });
});

test('a device whose secrets cannot be read is given new ones', (t) => {
  const file = filledState(t);
  const other = new Sealing(systemEntropy.bytes(32), systemEntropy);
  inState(file, other, ({ credentials }) => credentials.put(credential('a')));
  inState(file, other, ({ credentials }) => {
    assert.deepEqual([credentials.lost, credentials.get('a')?.attached], [0, false]);
  });
});

test('the secrets of one device are not read as those of another', (t) => {
  const file = filledState(t);
  inState(file, testSealing, ({ credentials }) =>
    credentials.put({ ...credential('b'), clientSecret: 'of b' }),
  );
  using database = new DatabaseSync(file);
  database.exec(
    "UPDATE credential SET client_secret = (SELECT client_secret FROM credential WHERE device_id = 'a') WHERE device_id = 'b'",
  );
  database.close();
  inState(file, testSealing, ({ credentials }) => {
    assert.deepEqual([credentials.lost, credentials.get('b')], [1, undefined]);
  });
});

test('while the key cannot be written, new secrets are refused and memory stays as it is', (t) => {
  const file = freshState(t);
  const folder = `${file}.folder`;
  writeFileSync(folder, '');
  const keyless: Sealer = {
    open: () => undefined,
    seal: () => {
      throw Object.assign(new Error('the key cannot be written'), { code: 'storage' });
    },
  };
  inState(file, keyless, ({ credentials, accounts }) => {
    assert.throws(() => credentials.put(credential('a')), { message: /key cannot be written/ });
    assert.throws(() => accounts.plant(['other'], server), { message: /key cannot be written/ });
    assert.deepEqual([credentials.size, accounts.names([])], [0, []]);
  });
});
