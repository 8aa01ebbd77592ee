import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { FirmwareBranch, type FirmwareOrder } from '../../src/mo/firmware-branch.ts';
import { HandClock } from '../hand-clock.ts';

const server = 'dm.example';
const download = ['FwUpdate', 'Download'];

/** A tree with the branch. `stores` says whether the next commit succeeds. */
function tree() {
  const calls: string[] = [];
  const disk = { stores: true };
  const note = (call: string) => (order: FirmwareOrder) => void calls.push(`${call} ${order.operation}`);
  const branch = new FirmwareBranch({
    nodes: new MemoryNodes(),
    clock: new HandClock(),
    runner: { admit: note('admit'), record: note('record'), launch: note('launch') },
  });
  const made = new ManagementTree(
    { FwUpdate: branch },
    new MemoryAcls({ '.': `Get=*&Exec=${server}&Replace=${server}` }),
    (work) => {
      const result = work();
      if (!disk.stores) throw new Error('the disk is full');
      return result;
    },
  );
  const exec = async () => {
    await made.replace([...download, 'PkgURL'], { format: 'chr', value: 'coap://192.0.2.1/x' }, server);
    return await made.exec(download, { format: 'chr' }, 'c', server);
  };
  return { made, exec, calls, disk };
}

test('an update starts when its package is stored', async () => {
  const { made, exec, calls } = tree();
  await made.atomically(async () => {
    assert.equal(await exec(), 202);
    assert.deepEqual(calls, ['admit Download']);
  });
  assert.deepEqual(calls, ['admit Download', 'record Download', 'launch Download']);
});

test('an update is not started by an Atomic that fails, or by a package that cannot be stored', async () => {
  const { made, exec, calls, disk } = tree();
  await made.atomically(async () => {
    made.begin();
    await exec();
    made.rollback();
  });
  assert.deepEqual(calls, ['admit Download']);
  disk.stores = false;
  await assert.rejects(
    made.atomically(async () => void (await exec())),
    /full/,
  );
  assert.equal(calls.includes('launch Download'), false);
  disk.stores = true;
  await made.atomically(async () => {});
  assert.equal(calls.includes('launch Download'), false, 'and not later either');
});

test('a second update in the same package is refused', async () => {
  const { made, exec } = tree();
  await made.atomically(async () => {
    await exec();
    await assert.rejects(exec(), { code: 'conflict' });
  });
});

test('a revocation list is in force at once, also in an Atomic that fails; one that is refused changes nothing', async () => {
  const inForce = ['old'];
  const branch = new FirmwareBranch({
    nodes: new MemoryNodes(),
    clock: new HandClock(),
    runner: {
      ...{ admit: () => {}, record: () => {}, launch: () => {} },
      lists: () => inForce.at(-1)!,
      revoke: async (list) => {
        if (list === 'older') throw new PosternError('conflict', 'a newer one is in force');
        inForce.push(list);
      },
    },
  });
  const made = new ManagementTree(
    { FwUpdate: branch },
    new MemoryAcls({ '.': `Get=*&Exec=${server}&Replace=${server}` }),
    (work) => work(),
  );
  const path = ['FwUpdate', 'Ext', 'RevocationList'];
  const put = (value: string, by = server) => made.replace(path, { format: 'chr', value }, by);
  await made.atomically(async () => {
    made.begin();
    await put('new');
    made.rollback();
  });
  await made.atomically(async () => {
    await assert.rejects(async () => await put('older'), { code: 'conflict' });
    await assert.rejects(async () => await put('newest', 'another.example'));
  });
  assert.equal(made.view(path)?.value, 'new');
});

test('where signers cannot be revoked there is no node for lists', async () => {
  const { made } = tree();
  await made.atomically(async () => {
    await assert.rejects(
      async () =>
        await made.replace(['FwUpdate', 'Ext', 'RevocationList'], { format: 'chr', value: 'x' }, server),
      { status: 404 },
    );
  });
});
