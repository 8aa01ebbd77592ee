import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { composeGateway } from '../../src/gateway/composition.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { EventRecorder } from '../event-recorder.ts';
import { FailingDisk } from '../gateway/store/failing-disk.ts';
import { HandClock } from '../hand-clock.ts';
import { lyingServer, serves } from '../journeys/lying-server.ts';

const server = 'dm.example';
const at = (...path: string[]) => ['GwImageInventory', 'Images', ...path];

/** The tree of a gateway whose images may take 1 MiB, and 3 at most. */
function gateway(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-branch-'));
  const config = checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1', state: join(folder, 'state.db') },
      coap: { port: 0, interfaces: ['lo'], 'insecure-plain-coap': true },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      'dm-server': { id: server, 'client-secret': 'a-secret-of-gw', 'server-secret': 'a-secret-of-dm' },
      images: { quota: 1, count: 3 },
      limits: { 'keep-free': 0 },
    },
    'test',
  );
  const events = new EventRecorder();
  const { tree, objects, state } = composeGateway(config, {
    events,
    clock: new HandClock(),
    entropy: seededEntropy(1),
  });
  t.after(async () => {
    await objects[Symbol.asyncDispose]();
    await state.database.close();
    rmSync(folder, { recursive: true });
  });
  const { images } = objects;
  const push = (name: string, data: Uint8Array) =>
    tree.add(at(name, 'PkgData'), { format: 'bin', value: data }, server);
  const order = async (name: string, value = 'http://127.0.0.1:1/x') => {
    await tree.add(at(name, 'PkgURL'), { format: 'chr', value }, server);
    return await tree.exec(at(name, 'Operations', 'Download'), { format: 'chr' }, 'c', server);
  };
  const stateOf = (name: string) => images.status(name).state;
  return { tree, images, events, push, order, stateOf };
}

const kilobytes = (count: number) => randomBytes(count * 1024);

describe('a package that changes images', { timeout: 20_000 }, () => {
  test('and fails, begins no download and takes no room', async (t) => {
    const { tree, images, events, push, order, stateOf } = gateway(t);
    await tree.atomically(async () => await push('good', kilobytes(100)));
    const fails = tree.atomically(async () => {
      assert.equal(await order('a'), 202);
      await push('b', kilobytes(800));
      await tree.exec(at('good', 'Operations', 'Remove'), { format: 'chr' }, undefined, server);
      throw new Error('a later command fails');
    });
    await assert.rejects(fails, /a later command/);
    assert.deepEqual([stateOf('a'), stateOf('b'), stateOf('good')], [0, 0, 2]);
    assert.equal(events.count('image.coming') + events.count('image.failed'), 0);
    await tree.atomically(async () => await push('c', kilobytes(900)));
    assert.equal(images.used, 1000 * 1024, 'the room of what failed is free');
  });

  test('is written once: a disk that refuses cannot make one of its commands fail and keep what it did', async (t) => {
    const { tree } = gateway(t);
    using disk = new FailingDisk();
    await tree.atomically(async () => {
      disk.failAfter(0, { staysFull: true });
      const { writes } = disk;
      await tree.atomically(async () => {
        await tree.add(at('a', 'Version'), { format: 'chr', value: '2' }, server);
      });
      assert.equal(disk.writes, writes);
      disk.mend();
    });
    assert.equal(tree.view(at('a', 'Version'))?.value, '2');
  });

  test('and cannot be stored, does neither', async (t) => {
    const { tree, images, push, order, stateOf } = gateway(t);
    using disk = new FailingDisk();
    const fails = tree.atomically(async () => {
      await order('a');
      await push('b', kilobytes(800));
      disk.failAfter(0, { staysFull: true });
    });
    await assert.rejects(fails, { code: 'storage' });
    disk.mend();
    assert.deepEqual([stateOf('a'), stateOf('b'), images.used], [0, 0, 0]);
    await tree.atomically(async () => await push('c', kilobytes(900)));
    assert.equal(stateOf('c'), 2);
  });

  test('and fails, evicts no image for the one that it brought', async (t) => {
    const { tree, images, events, push, order, stateOf } = gateway(t);
    const file = kilobytes(700);
    await using files = await lyingServer(serves(file, '"v1"'));
    await tree.atomically(async () => assert.equal(await order('a', files.url), 202));
    await events.until('image.ready');
    const fails = tree.atomically(async () => {
      await push('b', kilobytes(800));
      throw new Error('a later command fails');
    });
    await assert.rejects(fails, /a later command/);
    assert.equal(stateOf('a'), 2);
    assert.deepEqual(Buffer.from(images.ready('a')!.read(0, file.length)), file);
    await tree.atomically(async () => await push('b', kilobytes(800)));
    assert.deepEqual([stateOf('a'), stateOf('b')], [4, 2]);
  });

  test('pushes a version that does not fit beside the earlier one: refused, unless that one may go', async (t) => {
    const { tree, images, push, stateOf } = gateway(t);
    const [earlier, next] = [kilobytes(600), kilobytes(600)];
    const replace = (value: Uint8Array) => tree.replace(at('a', 'PkgData'), { format: 'bin', value }, server);
    await tree.atomically(async () => await push('a', earlier));
    await assert.rejects(
      async () => tree.atomically(async () => await replace(next)),
      /beside the earlier version; set DropEarlier of this image, or remove the earlier version first/,
    );
    assert.deepEqual(Buffer.from(images.ready('a')!.read(0, earlier.length)), earlier);
    await tree.atomically(async () => {
      await tree.add(at('a', 'DropEarlier'), { format: 'bool', value: 'true' }, server);
      await replace(next);
    });
    assert.deepEqual([stateOf('a'), images.used], [2, next.length]);
    assert.deepEqual(Buffer.from(images.ready('a')!.read(0, next.length)), next);
  });

  test('replaces an image, and devices get the one before until there is another', async (t) => {
    const { tree, images, push, order, stateOf } = gateway(t);
    await tree.atomically(async () => await push('a', kilobytes(100)));
    const { hash } = images.ready('a')!;
    await tree.atomically(async () => {
      await tree.delete(at('a'), server);
      assert.equal(await order('a'), 202);
    });
    assert.deepEqual([stateOf('a'), images.ready('a')?.hash], [1, hash]);
    assert.equal(
      await tree
        .exec(at('a', 'Operations', 'Download'), { format: 'chr' }, 'c', server)
        .catch(({ code }) => code),
      'conflict',
    );
    await tree.atomically(async () => {
      await tree.delete(at('a'), server);
      assert.equal(await order('a'), 202, 'what is under way is no obstacle to its successor');
    });
    await tree.delete(at('a'), server);
    assert.deepEqual([stateOf('a'), images.ready('a'), images.used], [0, undefined, 0]);
  });

  test('takes no more room, and brings no more images, than there may be', async (t) => {
    const { tree, images, push, order, stateOf } = gateway(t);
    await tree.atomically(async () => {
      await push('a', kilobytes(600));
      await assert.rejects(push('b', kilobytes(600)), { code: 'full' });
      await push('b', kilobytes(400));
    });
    assert.deepEqual([stateOf('a'), stateOf('b'), images.used], [2, 2, 1000 * 1024]);
    await tree.atomically(async () => {
      await order('c');
      await assert.rejects(order('d'), { code: 'full' });
      await assert.rejects(push('e', kilobytes(1)), { code: 'full' });
    });
    assert.deepEqual([stateOf('c'), stateOf('d'), stateOf('e')], [1, 0, 0]);
  });

  test('sees what it does: states and room are as if it were stored', async (t) => {
    const { tree, images, push, order } = gateway(t);
    await tree.atomically(async () => {
      await push('a', kilobytes(100));
      await push('b', kilobytes(100));
    });
    const value = (...path: string[]) => tree.view(['GwImageInventory', ...path])?.value;
    const state = (name: string) => value('Images', name, 'State');
    await tree.atomically(async () => {
      await tree.exec(at('a', 'Operations', 'Remove'), { format: 'chr' }, undefined, server);
      assert.deepEqual([state('a'), value('Used')], ['0', String(100 * 1024)]);
      assert.equal(await order('a'), 202);
      assert.deepEqual([state('a'), value('Images', 'a', 'Received')], ['1', '0']);
      await assert.rejects(
        async () => tree.exec(at('a', 'Operations', 'Download'), { format: 'chr' }, undefined, server),
        { code: 'conflict' },
      );
      await tree.delete(at('b'), server);
      assert.equal(value('Used'), String(100 * 1024));
    });
    assert.deepEqual([images.status('a').state, images.ready('a'), images.used], [1, undefined, 0]);
  });

  test('says in a node why an image failed', async (t) => {
    const { tree, push } = gateway(t);
    await tree.atomically(async () => {
      await tree.add(at('a', 'Hash'), { format: 'chr', value: 'ab'.repeat(32) }, server);
      await push('a', kilobytes(1));
    });
    const value = (leaf: string) => tree.view(at('a', leaf))?.value;
    assert.deepEqual([value('State'), value('Result')], ['3', '402']);
    assert.match(String(value('Reason')), /^the SHA-256 is [0-9a-f]{64}$/);
  });
});
