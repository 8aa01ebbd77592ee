import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { blockBytes, writeIndex } from '../../../src/gateway/store/block-index.ts';
import { smallDisk } from '../../small-disk.ts';
import { bundleRig } from './bundle-rig.ts';
import { BundleServer } from './bundle-server.ts';

const head = 96;
const blocks = (count: number) => randomBytes(count * blockBytes);
const oldRoot = blocks(500);
const oldBoot = blocks(100);
const bundleOf = (...images: Buffer[]) => Buffer.concat([randomBytes(head), ...images, randomBytes(1500)]);

/** The image with other bytes in some of its blocks. */
function changed(image: Buffer, ...numbers: number[]): Buffer {
  const copy = Buffer.from(image);
  for (const number of numbers) randomBytes(100).copy(copy, number * blockBytes + 7);
  return copy;
}

const next = () => bundleOf(oldBoot, changed(oldRoot, 3, 4, 5, 200, 499));

async function scene(t: TestContext, bundle = next(), index: Buffer | undefined = writeIndex(bundle, head)) {
  const server = await new BundleServer(bundle, index).start();
  t.after(() => server[Symbol.asyncDispose]());
  const rig = bundleRig(t);
  writeFileSync(join(rig.folder, 'root'), Buffer.concat([oldRoot, blocks(7)]));
  writeFileSync(join(rig.folder, 'boot'), oldBoot);
  const isWhole = () => assert.ok(readFileSync(rig.file).equals(server.bundle), 'the bundle of the server');
  return { ...rig, server, isWhole };
}

describe('an update of which most is there already', { timeout: 60_000 }, () => {
  test('only the blocks that are new are downloaded', async (t) => {
    const { server, fetch, isWhole, events, bundle } = await scene(t);
    assert.equal(await fetch(server.url), true, 'it may have to be downloaded as a whole yet');
    isWhole();
    const delta = await events.until('update.delta');
    assert.deepEqual(delta.fields, { bytes: head + 5 * blockBytes + 1500, total: server.bundle.length });
    assert.equal(server.sent, Number(delta.fields.bytes) + server.index!.length);
    assert.equal(server.requests.length, 4);
    assert.deepEqual(bundle.progress, { received: server.bundle.length, total: server.bundle.length });
    assert.equal(events.count('update.delta-failed'), 0);
  });

  test('blocks that moved, that are there twice, and that are zeros are found', async (t) => {
    const zeros = Buffer.alloc(50 * blockBytes);
    const root = Buffer.concat([
      oldRoot.subarray(100 * blockBytes),
      zeros,
      oldRoot.subarray(0, 9 * blockBytes),
    ]);
    const made = await scene(t, bundleOf(root, oldBoot, oldBoot));
    writeFileSync(join(made.folder, 'boot'), Buffer.concat([oldBoot, Buffer.alloc(blockBytes)]));
    await made.fetch(made.server.url);
    made.isWhole();
    assert.deepEqual((await made.events.until('update.delta')).fields.bytes, head + 1500);
  });

  for (const [distance, requests] of [
    [15, 1],
    [16, 63],
  ] as const)
    test(`blocks ${distance} apart are requested by ${requests} requests`, async (t) => {
      const some = Array.from({ length: Math.ceil(1000 / distance) }, (_, number) => number * distance);
      const root = blocks(1000);
      const made = await scene(t, bundleOf(changed(root, ...some)));
      writeFileSync(join(made.folder, 'root'), root);
      await made.fetch(made.server.url);
      made.isWhole();
      assert.equal(made.server.requests.length, requests);
    });

  test('without an index the bundle comes as a whole, and nothing is told', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t);
    server.index = undefined;
    assert.equal(await fetch(server.url), false);
    isWhole();
    assert.deepEqual(server.requests, [undefined]);
    assert.equal(events.count('update.delta-failed'), 0);
  });

  test('an index that is refused with 403 is none', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t);
    server.fault = ({ url }, response) => {
      if (url?.includes('.blocks')) response.writeHead(403).end();
      return url?.includes('.blocks') ?? false;
    };
    await fetch(server.url);
    isWhole();
    assert.equal(events.count('update.delta-failed'), 0);
  });

  for (const [what, bundle] of [
    ['nothing in common', bundleOf(blocks(300))],
    ['another alignment', bundleOf(Buffer.alloc(50, 1), oldRoot)],
  ] as const)
    test(`with ${what} all of the bundle comes by one request`, async (t) => {
      const { server, fetch, isWhole } = await scene(t, bundle);
      await fetch(server.url);
      isWhole();
      assert.deepEqual(server.requests, [`bytes=0-${bundle.length - 1}`]);
    });

  test('a server without ranges sends the bundle as a whole', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t);
    server.fault = ({ url }, response) => {
      if (url?.includes('.blocks')) return false;
      response.writeHead(200, { etag: '"v1"', 'content-length': server.bundle.length });
      response.end(server.bundle);
      return true;
    };
    await fetch(server.url);
    isWhole();
    const { fields } = await events.until('update.delta-failed');
    assert.equal(fields.reason, 'the download server sent the whole file');
  });

  const good = next();
  const index = writeIndex(good, head);
  for (const [what, bad] of [
    ['empty', Buffer.alloc(0)],
    ['a page of HTML', Buffer.from('<html>'.repeat(100))],
    ['cut off', index.subarray(0, -3)],
    ['too long', Buffer.concat([index, Buffer.alloc(6)])],
    ['larger than any', Buffer.concat([index, Buffer.alloc(2 * 1024 * 1024)])],
    ['of a first block of 0 bytes', patched(index, 48, 0)],
    ['of a first block of 4 GB', patched(index, 48, 0xffffffff)],
    ['of a bundle of 4 GB', patched(index, 52, 0xffffffff)],
    ['of a bundle of 0 bytes', patched(index, 52, 0)],
    ['of another digest', patched(index, 20, 1)],
    ['of another version', writeIndex(bundleOf(oldBoot, changed(oldRoot, 8)), head)],
    ['of another size', writeIndex(bundleOf(oldBoot, oldRoot, oldBoot), head)],
    ['with one block in place of another', exchanged(index, 56 + 6 * 120, 56 + 6 * 150)],
    ['that says of a new block that it is an old one', exchanged(index, 56 + 6 * 301, 56 + 6 * 150)],
  ] as const)
    test(`an index that is ${what} leads to the whole bundle, and is told`, async (t) => {
      const { server, fetch, isWhole, events, folder } = await scene(t, good, Buffer.from(bad));
      await fetch(server.url);
      isWhole();
      assert.equal(server.requests.at(-1), undefined, 'the last request is for all of it');
      assert.equal(events.count('update.delta-failed'), 1);
      assert.deepEqual(
        readdirSync(folder).filter((name) => name.endsWith('.part')),
        [],
      );
    });

  test('whatever an index says, the bundle is that of the server', async (t) => {
    const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 1e6);
    t.diagnostic(`seed ${seed}`);
    const entropy = seededEntropy(seed);
    const { server, fetch, isWhole, bundle } = await scene(t, good);
    for (let round = 0; round < 20; round++) {
      const copy = Buffer.from(index);
      for (let flips = 1 + Math.floor(entropy.uniform() * 4); flips > 0; flips--)
        copy[Math.floor(entropy.uniform() * copy.length)]! ^= 1 << Math.floor(entropy.uniform() * 8);
      server.index = copy;
      bundle.drop();
      await fetch(server.url);
      isWhole();
    }
  });
});

describe('an update by blocks over a bad link', { timeout: 60_000 }, () => {
  const many = () =>
    bundleOf(oldBoot, changed(oldRoot, ...Array.from({ length: 24 }, (_, at) => 9 + at * 20)));

  test('after each break only what is missing is requested', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t, many());
    let breaks = 0;
    server.fault = (_, response, part) => {
      if (breaks >= 12 || breaks++ % 2 === 0) return false;
      response.writeHead(206, { etag: '"v1"' });
      response.destroy();
      return part.length > 0;
    };
    await fetch(server.url);
    isWhole();
    const { fields } = await events.until('update.delta');
    assert.equal(server.sent, Number(fields.bytes) + server.index!.length, 'nothing came twice');
    assert.ok(events.count('update.download-broken') > 0);
    assert.equal(events.count('update.delta-failed'), 0);
  });

  test('a range that breaks off in the middle keeps its whole blocks', async (t) => {
    const root = changed(oldRoot, ...Array.from({ length: 100 }, (_, at) => at));
    const { server, fetch, isWhole, bundle } = await scene(t, bundleOf(oldBoot, root));
    let isBroken = false;
    server.fault = ({ headers }, response, part) => {
      if (isBroken || part.length < 50 * blockBytes) return false;
      isBroken = true;
      const [, from] = /^bytes=(\d+)/.exec(headers.range ?? '') ?? [];
      const end = Number(from) + part.length - 1;
      response.writeHead(206, {
        etag: '"v1"',
        'content-length': part.length,
        'content-range': `bytes ${from}-${end}/${server.bundle.length}`,
      });
      response.write(part.subarray(0, 30 * blockBytes + 5));
      const received = bundle.progress!.received;
      const stored = async () => {
        while (bundle.progress!.received < received + 30 * blockBytes) await turn();
        response.destroy();
      };
      void stored();
      return true;
    };
    await fetch(server.url);
    isWhole();
    const lengths = server.requests.map((range) => {
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
      return Number(to) + 1 - Number(from);
    });
    assert.ok(lengths.includes(70 * blockBytes), `${lengths}`);
  });

  test('after a stop in the middle, a gateway that starts again requests only what is missing', async (t) => {
    const { server, fetch, folder, isWhole } = await scene(t, many());
    const stop = new AbortController();
    server.fault = () => {
      if (server.requests.length === 12) stop.abort(new Error('stop'));
      return stop.signal.aborted;
    };
    await assert.rejects(fetch(server.url, stop.signal), /stop/);
    server.fault = () => false;
    const before = server.requests.length;
    const again = bundleRig(t, { folder });
    await again.fetch(server.url);
    isWhole();
    assert.ok(server.requests.length - before <= 16, `${server.requests.length - before} requests`);
  });

  test('blocks that a power cut has damaged are downloaded again', async (t) => {
    const { server, fetch, folder, isWhole, events } = await scene(t, many());
    const stop = new AbortController();
    server.fault = () => {
      if (server.requests.length === 12) stop.abort(new Error('stop'));
      return stop.signal.aborted;
    };
    await assert.rejects(fetch(server.url, stop.signal));
    server.fault = () => false;
    const part = join(folder, readdirSync(folder).find((name) => name.endsWith('.part'))!);
    const bytes = readFileSync(part);
    bytes.fill(0, 200_000, 300_000);
    writeFileSync(part, bytes);
    const again = bundleRig(t, { folder });
    await again.fetch(server.url);
    isWhole();
    assert.equal(events.count('update.delta-failed') + again.events.count('update.delta-failed'), 0);
  });

  test('a bundle that changes at the server meanwhile comes as a whole, and not in halves', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t, many());
    const other = many();
    server.fault = () => {
      if (server.requests.length === 10) [server.bundle, server.etag] = [other, '"v2"'];
      return false;
    };
    await fetch(server.url);
    isWhole();
    const { fields } = await events.until('update.delta-failed');
    assert.equal(fields.reason, 'the download server sent the whole file');
  });

  test('a bundle that changes at a server without validators comes as a whole', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t, many());
    server.etag = undefined;
    const other = many();
    server.fault = () => {
      if (server.requests.length === 10) server.bundle = other;
      return false;
    };
    await fetch(server.url);
    isWhole();
    assert.equal((await events.until('update.delta-failed')).fields.reason, 'the blocks do not fit together');
  });

  test('a range other than the one that was requested is not taken', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t, many());
    server.fault = ({ url, headers }, response) => {
      if (url?.includes('.blocks') || headers.range === undefined) return false;
      response.writeHead(206, {
        etag: '"v1"',
        'content-length': 10,
        'content-range': `bytes 0-9/${server.bundle.length}`,
      });
      response.end(Buffer.alloc(10));
      return true;
    };
    await fetch(server.url);
    isWhole();
    assert.equal(
      (await events.until('update.delta-failed')).fields.reason,
      'the download server sent a range that was not requested',
    );
  });

  test('an index that comes at the third attempt is used', async (t) => {
    const { server, fetch, isWhole, events } = await scene(t);
    let asked = 0;
    server.fault = ({ url }, response) => {
      if (!url?.includes('.blocks') || ++asked > 2) return false;
      response.writeHead(503).end();
      return true;
    };
    await fetch(server.url);
    isWhole();
    assert.equal(events.count('update.delta'), 1);
    assert.equal(events.count('update.download-broken'), 1, 'one cause is told once');
  });
});

describe('an update by blocks on a small disk', { timeout: 60_000 }, () => {
  test('without room it is refused, and nothing is left; with room it comes', async (t) => {
    const disk = smallDisk(t, 4);
    if (!disk) return;
    const bundle = next();
    const server = await new BundleServer(bundle, writeIndex(bundle, head)).start();
    t.after(() => server[Symbol.asyncDispose]());
    const { folder } = bundleRig(t);
    for (const [name, bytes] of [
      ['root', oldRoot],
      ['boot', oldBoot],
    ] as const)
      writeFileSync(join(folder, name), bytes);
    const sources = [join(folder, 'root'), join(folder, 'boot')];
    const file = join(disk, 'bundle.raucb');
    const keepFree = 1024 * 1024;
    const short = bundleRig(t, { folder: disk, file, sources, disk: new DiskRoom(2 * keepFree) });
    await assert.rejects(short.fetch(server.url), { result: 501 });
    assert.equal(server.requests.length, 0);
    // Others take the room while it is written.
    writeFileSync(join(disk, 'others'), Buffer.alloc(2 * keepFree));
    const full = bundleRig(t, { folder: disk, file, sources, disk: room });
    await assert.rejects(full.fetch(server.url), { result: 501 });
    full.bundle.drop();
    assert.deepEqual(readdirSync(disk), ['others']);
    writeFileSync(join(disk, 'others'), '');
    const ample = bundleRig(t, { folder: disk, file, sources, disk: new DiskRoom(keepFree) });
    await ample.fetch(server.url);
    assert.ok(existsSync(file) && readFileSync(file).equals(bundle));
  });
});

/** A disk that reserves whatever is asked for. */
const room = { reserve: () => {}, release: () => {} } as unknown as DiskRoom;

function patched(index: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(index);
  copy.writeUInt32BE(value, at);
  return copy;
}

function exchanged(index: Buffer, one: number, other: number): Buffer {
  const copy = Buffer.from(index);
  index.copy(copy, one, other, other + 6);
  return copy;
}
