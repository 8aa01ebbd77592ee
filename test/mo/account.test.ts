import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { AccountsBranch } from '../../src/mo/accounts-branch.ts';
import {
  Accounts,
  accountNodes,
  accountsDescription,
  type DmAccount,
  readAccount,
} from '../../src/mo/dm-acc.ts';
import { deviceAttachAlert, readDeviceAttach } from '../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { decodeTnds, encodeTnds, type TndsNode } from '../../src/wire/syncml/tnds.ts';

const account: DmAccount = {
  serverId: 'gateway.example',
  name: 'Gateway',
  address: 'coap://192.0.2.1:5683/dm',
  own: { name: 'urn:dev:1', secret: 'c', nonce: Buffer.from([1]) },
  peer: { name: 'gateway.example', secret: 's', nonce: Buffer.from([2]) },
  bootstrapNonce: '00ff',
};

// conforms: OBJ-1
test('an account is the same after encoding and decoding as TNDS', () => {
  const text = encodeTnds({ path: './Inbox', root: accountNodes('x', account) });
  assert.deepEqual(readAccount(decodeTnds(text).root), account);
});

// conforms: OBJ-1
test('the port of an account counts where its address has none', () => {
  const root = accountNodes('x', account);
  const withPort = (address: string, port: string) => ({
    ...root,
    children: root.children?.map((node) =>
      node.name !== 'AppAddr'
        ? node
        : ({
            name: 'AppAddr',
            format: 'node',
            children: [
              {
                name: 'a',
                format: 'node',
                children: [
                  { name: 'Addr', format: 'chr', value: address },
                  {
                    name: 'Port',
                    format: 'node',
                    children: [
                      {
                        name: 'p',
                        format: 'node',
                        children: [{ name: 'PortNbr', format: 'chr', value: port }],
                      },
                    ],
                  },
                ],
              },
            ],
          } as const),
    ),
  });
  for (const [address, port, expected] of [
    ['coap://192.0.2.1/dm', '5690', 'coap://192.0.2.1:5690/dm'],
    ['https://dm.example:444/dm', '8443', 'https://dm.example:444/dm'],
    ['https://dm.example/dm', 'none', 'https://dm.example/dm'],
    ['192.0.2.1', '8443', '192.0.2.1'],
  ] as const)
    assert.equal(readAccount(withPort(address, port) as TndsNode).address, expected);
});

test('an account without credentials is refused', () => {
  const root = accountNodes('x', account);
  const without = { ...root, children: root.children?.filter(({ name }) => name !== 'AppAuth') ?? [] };
  assert.throws(() => readAccount(without), { code: 'malformed' });
});

test('an account of a server that an ACL cannot name is refused, and takes no rights from others when it goes', async () => {
  for (const serverId of ['*', 'a+dm.example', 'a&Exec=b', '/bootstrap', 'a\nb'])
    assert.throws(
      () => readAccount(accountNodes('x', { ...account, serverId })),
      { code: 'malformed' },
      serverId,
    );
  const branch = new AccountsBranch('DMAcc', accountsDescription, new MemoryNodes());
  const accounts = new Accounts(branch);
  accounts.put(account);
  const tree = new ManagementTree(
    { DMAcc: branch },
    new MemoryAcls({ '.': 'Get=*&Replace=owner&Delete=owner' }),
  );
  branch.listen({ lost: (server) => tree.forgetServer(server), gone: () => {} });
  const path = ['DMAcc', 'account1'];
  await tree.replace([...path, 'ServerID'], { format: 'chr', value: '*' }, 'owner');
  await tree.delete(path, 'owner');
  assert.ok(tree.permits(['DMAcc'], 'Get', 'anyone'));
});

// conforms: SEC-8
test('accounts are found by ServerID, replaced in place, and survive a restart', () => {
  const stored = new MemoryNodes();
  const accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, stored));
  const name = accounts.put(account);
  assert.equal(accounts.put({ ...account, address: 'coap://192.0.2.9/dm' }), name);
  accounts.put({ ...account, serverId: 'dm.example' });
  accounts.nonceKeeper('dm.example')({ own: Buffer.from('next') });
  const again = new Accounts(new StoredBranch('DMAcc', accountsDescription, stored));
  assert.equal(again.list().length, 2);
  assert.equal(again.find('gateway.example')?.address, 'coap://192.0.2.9/dm');
  assert.equal(String(again.find('dm.example')?.own.nonce), 'next');
});

// conforms: OBJ-1
test('nonces that a full disk did not take count until the account is another one', () => {
  const stored = new MemoryNodes();
  const branch = new StoredBranch('DMAcc', accountsDescription, stored);
  const accounts = new Accounts(branch);
  accounts.put(account);
  const { apply } = stored;
  stored.apply = () => {
    throw new PosternError('storage', 'full');
  };
  accounts.nonceKeeper(account.serverId)({ own: Buffer.from([9]) });
  stored.apply = apply;
  assert.deepEqual(accounts.find(account.serverId)?.own.nonce, Buffer.from([9]));
  branch.delete(['account1']);
  const given = { ...account, own: { ...account.own, secret: 'another' } };
  branch.plant(['given'], accountNodes('given', given));
  assert.equal(accounts.find(account.serverId)?.own.secret, 'another');
});

test('secrets of an account cannot be read through the tree', () => {
  const branch = new StoredBranch('DMAcc', accountsDescription, new MemoryNodes());
  const name = new Accounts(branch).put(account);
  for (const leaf of ['AAuthSecret', 'AAuthData'])
    assert.equal(branch.view([name, 'AppAuth', 'CLCRED', leaf])?.access.includes('Get'), false);
});

test('a Device Attach Alert with special characters in names is the same after encoding and decoding', () => {
  const attach = {
    sequence: 7,
    deviceId: 'urn:dev:<&">',
    mode: 0,
    bootstrap: 'local',
    manufacturer: 'A&B',
    model: 'M',
  } as const;
  const { code, items } = deviceAttachAlert(ownVocabulary, attach);
  assert.equal(code, 1226);
  assert.deepEqual(readDeviceAttach(ownVocabulary, { name: 'Alert', cmdId: '1', data: code, items }), attach);
});
