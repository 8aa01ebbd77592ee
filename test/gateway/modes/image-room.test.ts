import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { openDatabase } from '../../../src/base/open-database.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { type Answer, breaksAt, endless, lyingServer, says, serves } from '../../journeys/lying-server.ts';
import { smallDisk } from '../../small-disk.ts';
import { FailingDisk } from '../store/failing-disk.ts';
import { imageRig, sha } from './image-rig.ts';

const mebibyte = 1024 * 1024;
const limit = { timeout: 60_000 };
const keepFree = 4 * mebibyte;
const freeOf = (folder: string) => {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
};
const image = (mebibytes: number) => randomBytes(mebibytes * mebibyte);

/** An order without a digest for a pushed image. */
const named = (name: string) => ({ name, url: undefined, hash: undefined, signature: undefined });

/** Serves a file when the test says so, and only its first half before. */
function gated(file: Uint8Array) {
  const go = Promise.withResolvers<void>();
  const answer: Answer = async (_, response) => {
    response.writeHead(200, { 'content-length': file.length });
    response.write(file.subarray(0, file.length / 2));
    await go.promise;
    response.end(file.subarray(file.length / 2));
  };
  return { answer, go: () => go.resolve() };
}

describe('images on a small disk', limit, () => {
  test('never take the room that is kept for the state, and say so before a byte is written', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    await using server = await imageRig([serves(image(13), '"v1"'), serves(image(11), '"v2"')], {
      ...{ directory: join(folder, 'images'), keepFree, quota: 1000 * mebibyte },
    });
    server.begin('large');
    const end = await server.outcome('large');
    assert.equal(end?.result, 501);
    assert.match(end?.reason ?? '', /^\d+ bytes too few are left for images; remove images/);
    assert.equal(server.events.count('image.coming'), 0);
    server.begin('fits');
    assert.equal((await server.outcome('fits'))?.result, 200);
    assert.ok(freeOf(folder) >= keepFree);
  });

  test('evict each other when the disk is short, as they do for the quota', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    const files = [image(8), image(8)];
    await using server = await imageRig(
      files.map((file, at) => serves(file, `"v${at}"`)),
      { directory: join(folder, 'images'), keepFree, quota: 1000 * mebibyte },
    );
    server.begin('a');
    await server.outcome('a');
    server.begin('b');
    assert.equal((await server.outcome('b'))?.result, 200);
    assert.equal(server.cache.status('a').state, 4);
    assert.ok(freeOf(folder) >= keepFree);
  });

  test('a body without an end stops where the room for the state begins', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    let least = Number.POSITIVE_INFINITY;
    // Not so much ahead of the disk that the download could end unseen.
    const went = (sent: number) => {
      least = Math.min(least, freeOf(folder));
      return server.files.part('a').bytes > sent - mebibyte;
    };
    await using server = await imageRig([endless(200, {}, went)], {
      ...{ directory: join(folder, 'images'), keepFree, quota: 1000 * mebibyte },
    });
    server.begin();
    assert.equal((await server.outcome())?.result, 501);
    assert.ok(least >= keepFree && least < keepFree + 2 * mebibyte, `${least} bytes were free`);
    assert.equal(server.cache.used, 0);
  });

  test('a disk that others fill meanwhile ends the download, and not the image that is there', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    const good = image(2);
    const next = gated(image(8));
    await using server = await imageRig([serves(good, '"v1"'), next.answer], {
      ...{ directory: join(folder, 'images'), keepFree, quota: 1000 * mebibyte },
    });
    server.begin();
    await server.outcome();
    server.begin();
    while (server.files.part('a').bytes < 4 * mebibyte) await turn();
    writeFileSync(join(folder, 'others'), Buffer.alloc(freeOf(folder) - mebibyte));
    next.go();
    assert.equal((await server.outcome())?.result, 501);
    assert.equal(sha(server.stored()!), sha(good));
    assert.ok(freeOf(folder) >= 4 * mebibyte, 'what came of it is given back');
  });

  test('the state is written while images would take more', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    const database = openDatabase(join(folder, 'state.db'), gatewaySchema);
    t.after(() => database.close());
    await using server = await imageRig([endless(200, {})], {
      ...{ directory: join(folder, 'images'), database, keepFree, quota: 1000 * mebibyte },
    });
    const write = database.prepare("INSERT INTO outbox (kind, device_id, body) VALUES ('k', 'd', ?)");
    server.begin();
    while (server.files.part('a').bytes < 2 * mebibyte) await turn();
    for (let row = 0; row < 100; row++) {
      write.run('x'.repeat(10_000));
      await database.settled();
      await turn();
    }
    assert.equal((await server.outcome())?.result, 501);
    assert.equal(database.fault, undefined);
    await database.settled();
  });
});

describe('room is reserved before it is used', limit, () => {
  test('two downloads at once stay below the quota together', async () => {
    const [one, two] = [gated(image(3)), gated(image(3))];
    let most = 0;
    await using server = await imageRig([one.answer, two.answer], { quota: 5 * mebibyte });
    const watch = setInterval(() => (most = Math.max(most, server.files.bytes)), 1);
    server.begin('one');
    while (server.files.part('one').bytes < 1.5 * mebibyte) await turn();
    server.begin('two');
    assert.equal((await server.outcome('two'))?.result, 501, 'while the other one is half there');
    one.go();
    assert.equal((await server.outcome('one'))?.result, 200);
    clearInterval(watch);
    assert.ok(most <= 5 * mebibyte, `${most} bytes`);
    server.begin('two');
    two.go();
    assert.equal((await server.outcome('two'))?.result, 200);
    assert.equal(server.cache.status('one').state, 4, 'what is complete can give way');
  });

  test('what is pushed counts from when it is accepted, until it is stored or taken back', async () => {
    const file = image(1);
    await using server = await imageRig([serves(image(1), '"v1"')], { quota: 2 * mebibyte });
    server.cache.reserve(named('p'), file.length, []);
    server.cache.reserve(named('q'), file.length, ['p']);
    assert.throws(() => server.cache.reserve(named('r'), 1, ['p', 'q']), { code: 'full' });
    server.begin();
    assert.equal((await server.outcome())?.result, 501);
    server.cache.release('q');
    server.begin();
    assert.equal((await server.outcome())?.result, 200);
    server.cache.take({ name: 'p', url: undefined, hash: sha(file), signature: undefined }, file);
    assert.equal(server.cache.used, 2 * mebibyte);
    assert.throws(() => server.cache.reserve(named('r'), mebibyte + 1, []), { code: 'full' });
    server.cache.reserve(named('r'), mebibyte, []);
    assert.equal(server.cache.status('a').state, 2, 'the package of the pushed image may still fail');
    server.cache.take(named('r'), image(1));
    assert.equal(server.cache.status('a').state, 4, 'a downloaded image gives way to a pushed one');
  });
});

describe('background work that fails', limit, () => {
  test('the end of an operation waits until the state can be written again, and is reported once', async () => {
    using disk = new FailingDisk();
    const file = image(1);
    await using server = await imageRig([serves(file, '"v1"')], { quota: 10 * mebibyte });
    server.begin();
    while (server.events.count('image.coming') === 0) await turn();
    disk.failAfter(0, { staysFull: true });
    await server.events.until('background.failed', { work: 'image' });
    for (let look = 0; look < 50; look++) {
      server.clock.advance(100_000);
      await turn();
    }
    assert.equal(server.events.count('background.failed'), 2, 'the first and the tenth failure are said');
    assert.equal(server.cache.status('a').state, 1);
    assert.equal(server.ends.length, 0);
    disk.mend();
    server.clock.advance(100_000);
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(sha(server.stored()!), sha(file));
  });

  const file = image(1);
  for (const [what, more, result] of [
    ['the report', { ended: once() }, undefined],
    ['the order', { order: always }, 410],
    ['the download', { download: always }, 410],
  ] as const)
    test(`an unexpected error of ${what} does not end the gateway`, async () => {
      await using server = await imageRig([serves(file, '"v1"')], { quota: 10 * mebibyte, more });
      server.begin();
      if (result === undefined) {
        await server.events.until('background.failed', { work: 'image' });
        await server.events.until('image.ready');
        assert.equal(sha(server.stored()!), sha(file));
      } else {
        const end = await server.outcome();
        assert.deepEqual([end?.result, end?.reason], [503, 'nobody expects this']);
      }
    });

  test('a file that disappears before it is verified is a failed download', async () => {
    await using server = await imageRig([serves(file, '"v1"')], { quota: 10 * mebibyte });
    const hash = server.files.hash.bind(server.files);
    server.files.hash = (path) => {
      server.files.part('a').drop();
      return hash(path);
    };
    server.begin();
    assert.match((await server.outcome())?.reason ?? '', /ENOENT/);
  });

  test('a push that cannot be stored leaves the image before', async () => {
    using disk = new FailingDisk();
    await using server = await imageRig([serves(file, '"v1"')], { quota: 10 * mebibyte });
    server.begin();
    await server.outcome();
    const pushed = image(1);
    disk.failAfter(0, { staysFull: true });
    server.cache.reserve(named('a'), pushed.length, []);
    server.cache.take({ name: 'a', url: undefined, hash: undefined, signature: undefined }, pushed);
    disk.mend();
    assert.equal(sha(server.stored()!), sha(file));
    assert.equal(readdirSync(server.directory).length, 1, 'the other one holds no room');
    assert.equal(server.events.count('image.failed'), 1);
  });
});

describe('a restart', limit, () => {
  test('between the new file and its record leaves the old image, and the download goes on', async () => {
    const [old, next] = [image(1), image(1)];
    const quota = 10 * mebibyte;
    await using before = await imageRig([serves(old, '"v1"'), serves(next, '"v2"')], { quota });
    before.begin();
    await before.outcome();
    const { directory, database, orders } = before;
    // The power fails when the new file has its name and before the record says so.
    const accept = before.files.accept.bind(before.files);
    const cut = Promise.withResolvers<never>();
    const accepted = Promise.withResolvers<void>();
    before.files.accept = async (...args) => {
      await accept(...args);
      accepted.resolve();
      await cut.promise;
    };
    before.begin();
    await accepted.promise;
    assert.equal(readdirSync(directory).length, 2);
    await using after = await imageRig([serves(next, '"v2"')], { directory, database, orders, quota });
    after.cache.resume();
    assert.equal(sha(after.stored()!), sha(old));
    assert.equal(readdirSync(directory).length, 1, 'the file that no record leads to is gone');
    while (after.ends.length === 0) await turn();
    assert.equal(sha(after.stored()!), sha(next));
    const ending = before.cache[Symbol.asyncDispose]();
    cut.reject(new Error('the power was cut'));
    await ending;
  });

  test('finds an image that is cut off or missing, serves the others, and says so', async () => {
    const settings = { quota: 10 * mebibyte };
    const files = { a: image(1), b: image(1), c: image(1) };
    await using before = await imageRig(
      Object.values(files).map((file, at) => serves(file, `"${at}"`)),
      settings,
    );
    for (const name of Object.keys(files)) {
      before.begin(name);
      await before.outcome(name);
    }
    const { directory, database, orders } = before;
    truncateSync(before.cache.file('a')!, 1000);
    before.files.drop('b', sha(files.b));
    await using after = await imageRig([says(404, {})], { ...settings, directory, database, orders });
    after.cache.resume();
    assert.deepEqual(
      ['a', 'b', 'c'].map((name) => [after.cache.status(name).state, after.stored(name)?.length]),
      [
        [3, undefined],
        [3, undefined],
        [2, mebibyte],
      ],
    );
    assert.equal(after.events.count('image.failed'), 2);
    assert.equal(readdirSync(directory).length, 1);
  });

  for (const [what, isProven] of [
    ['goes on with what came before, when the digest will prove it', true],
    ['begins anew when nothing would notice damage', false],
  ] as const)
    test(what, async () => {
      const file = image(1);
      await using server = await lyingServer(
        breaksAt(file, 500_000, { etag: '"v1"' }, 'silent'),
        serves(file, '"v1"'),
      );
      const settings = { quota: 10 * mebibyte, server };
      await using before = await imageRig([], settings);
      before.begin('a', isProven ? sha(file) : undefined);
      while (before.files.part('a').bytes < 500_000) await turn();
      const { directory, database, orders } = before;
      await before.cache[Symbol.asyncDispose]();
      assert.equal(before.ends.length, 0);
      await using after = await imageRig([], { ...settings, directory, database, orders });
      after.cache.resume();
      while (after.ends.length === 0) await turn();
      assert.equal(after.ends[0]?.result, 200);
      assert.deepEqual(server.requests, [undefined, isProven ? 'bytes=500000-' : undefined]);
    });

  test('with another URL begins anew, even if the validator is the same', async () => {
    const [old, next] = [image(1), image(1)];
    await using server = await lyingServer(
      breaksAt(old, 500_000, { etag: '"v1"' }, 'silent'),
      serves(next, '"v1"'),
    );
    const settings = { quota: 10 * mebibyte, server };
    await using before = await imageRig([], settings);
    before.begin('a', sha(next));
    while (before.files.part('a').bytes < 500_000) await turn();
    const { directory, database, orders } = before;
    await before.cache[Symbol.asyncDispose]();
    orders.set('a', { ...orders.get('a')!, url: `${server.url}?next` });
    await using after = await imageRig([], { ...settings, directory, database, orders });
    after.cache.resume();
    while (after.ends.length === 0) await turn();
    assert.deepEqual([after.ends[0]?.result, server.requests], [200, [undefined, undefined]]);
  });
});

/** Throws whenever it is called. */
function always(): never {
  throw new Error('nobody expects this');
}

/** Throws when it is called for the first time. */
function once(): () => void {
  let calls = 0;
  return () => {
    if (calls++ === 0) always();
  };
}
