import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type Answer, endless, says, serves } from '../../journeys/lying-server.ts';
import { smallDisk } from '../../small-disk.ts';
import { imageRig, sha } from './image-rig.ts';

const mebibyte = 1024 * 1024;
const limit = { timeout: 60_000 };
const image = (mebibytes: number) => randomBytes(mebibytes * mebibyte);

/** Announces a size, sends the first bytes, and goes on when the test says so, with the file or with nothing. */
function announces(announced: number, file: Uint8Array, first: number) {
  const go = Promise.withResolvers<boolean>();
  const answer: Answer = async (_, response) => {
    response.writeHead(200, { 'content-length': announced, etag: '"lie"' });
    response.flushHeaders();
    if (first > 0) response.write(file.subarray(0, first));
    if (await go.promise) response.end(file.subarray(first));
    else response.socket?.resetAndDestroy();
  };
  return { answer, goesOn: () => go.resolve(true), breaks: () => go.resolve(false) };
}

/** Waits until bytes of an image are on the disk. */
async function arrived(
  { files, ends }: Awaited<ReturnType<typeof imageRig>>,
  name: string,
  bytes: number,
): Promise<void> {
  const before = ends.length;
  while (files.part(name).bytes < bytes) {
    assert.equal(ends.length, before, `the download of ${name} goes on`);
    await turn();
  }
}

/** Two images of 3 MiB with a quota of 8. */
async function twoStored(...then: Answer[]) {
  const files = [image(3), image(3)] as const;
  const answers = [...files.map((file, at) => serves(file, `"v${at}"`)), ...then];
  const server = await imageRig(answers, { quota: 8 * mebibyte });
  for (const name of ['a', 'b']) {
    server.begin(name);
    assert.equal((await server.outcome(name))?.result, 200);
  }
  const states = () => ['a', 'b'].map((name) => server.cache.status(name).state);
  return { server, files, states };
}

describe('a size that a download server announces', limit, () => {
  test('evicts nothing: an image goes when bytes need its room', async () => {
    const file = image(7);
    const slow = announces(file.length, file, 2 * mebibyte - 1);
    const { server: rig, states } = await twoStored(slow.answer);
    await using server = rig;
    server.begin('c');
    await arrived(server, 'c', 2 * mebibyte - 1);
    assert.deepEqual(states(), [2, 2], 'what came has room');
    slow.goesOn();
    assert.equal((await server.outcome('c'))?.result, 200);
    assert.deepEqual(states(), [4, 4]);
    assert.ok(server.cache.used <= 8 * mebibyte);
  });

  for (const [what, announced, result] of [
    ['ten gigabytes', 10 * 1024 ** 3, 405],
    ['all of the quota', 8 * mebibyte, 404],
  ] as const)
    test(`of ${what} with nothing behind it costs no image`, async () => {
      const liar = announces(announced, Buffer.alloc(0), 0);
      const { server: rig, files, states } = await twoStored(liar.answer, says(404, {}));
      await using server = rig;
      server.begin('c');
      if (result === 404) {
        await server.events.until('image.coming', { image: 'c' });
        liar.breaks();
      }
      assert.equal((await server.outcome('c'))?.result, result === 404 ? 500 : result);
      assert.deepEqual(states(), [2, 2]);
      assert.deepEqual([sha(server.stored('a')!), sha(server.stored('b')!)], files.map(sha));
      assert.equal(server.events.count('image.evicted'), 0);
    });

  test('of one byte with a gigabyte behind it costs no image, and takes no room', async () => {
    let most = 0;
    const { server: rig, states } = await twoStored(
      endless(200, { 'content-length': 1 }, () => {
        most = Math.max(most, rig.files.bytes);
        return true;
      }),
    );
    await using server = rig;
    server.begin('c');
    await server.outcome('c');
    assert.deepEqual(states(), [2, 2]);
    assert.ok(most <= 6 * mebibyte + 1, `${most} bytes`);
  });

  test('of nothing: a body without a length has room as it comes, and ends at the quota', async () => {
    const file = image(1);
    const { server: rig, states } = await twoStored(says(200, {}, file), endless(200, {}));
    await using server = rig;
    server.begin('c');
    assert.equal((await server.outcome('c'))?.result, 200);
    assert.deepEqual(states(), [2, 2], 'there was room for it');
    server.begin('d');
    assert.equal((await server.outcome('d'))?.result, 405);
    assert.ok(server.cache.used <= 8 * mebibyte);
  });

  test('keeps no room from other downloads, but for as much as came already', async () => {
    const other = image(1);
    const liar = announces(8 * mebibyte, image(1), 1000);
    await using server = await imageRig([liar.answer, serves(other, '"v"'), serves(image(7), '"w"')], {
      quota: 8 * mebibyte,
    });
    server.begin('liar');
    await arrived(server, 'liar', 1000);
    server.begin('other');
    assert.equal((await server.outcome('other'))?.result, 200);
    server.begin('big');
    const big = await server.outcome('big');
    assert.deepEqual([big?.result, server.cache.status('other').state], [200, 4]);
    liar.breaks();
    assert.ok(server.cache.used <= 8 * mebibyte);
  });

  test('two servers that announce the whole quota and send it: one image is stored, the other has result 501', async () => {
    const files = [image(6), image(6)] as const;
    const two = files.map((file) => announces(file.length, file, mebibyte));
    let most = 0;
    await using server = await imageRig(
      two.map(({ answer }) => answer),
      { quota: 8 * mebibyte },
    );
    const look = setInterval(() => (most = Math.max(most, server.files.bytes)), 1);
    for (const name of ['x', 'y']) {
      server.begin(name);
      await arrived(server, name, mebibyte);
    }
    for (const { goesOn } of two) goesOn();
    const results = [(await server.outcome('x'))?.result, (await server.outcome('y'))?.result];
    clearInterval(look);
    assert.deepEqual(results.toSorted(), [200, 501]);
    assert.ok(most <= 8 * mebibyte, `${most} bytes`);
  });

  test('on a small disk evicts nothing either', async (t) => {
    const folder = smallDisk(t, 16);
    if (!folder) return;
    const good = image(6);
    const liar = announces(10 * mebibyte, image(1), mebibyte);
    await using server = await imageRig([serves(good, '"v1"'), liar.answer, says(404, {})], {
      ...{ directory: join(folder, 'images'), keepFree: 4 * mebibyte, quota: 1000 * mebibyte },
    });
    server.begin('a');
    await server.outcome('a');
    server.begin('b');
    await arrived(server, 'b', mebibyte);
    liar.breaks();
    assert.equal((await server.outcome('b'))?.result, 500);
    assert.equal(sha(server.stored('a')!), sha(good));
  });
});

describe('a new version that does not fit beside the earlier one', limit, () => {
  const [earlier, next] = [image(5), image(5)];
  const quota = 8 * mebibyte;

  test('is refused with what to do, and devices get the earlier one', async () => {
    await using server = await imageRig([serves(earlier, '"v1"'), serves(next, '"v2"')], { quota });
    server.begin();
    await server.outcome();
    server.begin();
    const end = await server.outcome();
    assert.deepEqual(
      [end?.result, end?.reason],
      [
        501,
        `${2 * mebibyte} bytes too few are left beside the earlier version; set DropEarlier of this image, or remove the earlier version first`,
      ],
    );
    assert.equal(sha(server.stored()!), sha(earlier));
    assert.equal(server.events.count('image.coming'), 1, 'no byte of the new one was loaded');
  });

  test('takes its place when the server allowed it, once bytes need the room', async () => {
    const slow = announces(next.length, next, 3 * mebibyte - 1);
    await using server = await imageRig([serves(earlier, '"v1"'), slow.answer], { quota });
    server.begin();
    await server.outcome();
    server.begin('a', sha(next), '', true);
    await arrived(server, 'a', 3 * mebibyte - 1);
    assert.equal(sha(server.stored()!), sha(earlier), 'while there is room for both');
    slow.goesOn();
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(sha(server.stored()!), sha(next));
    assert.equal(server.cache.used, next.length);
  });

  test('does not cost the earlier one when its server only announces it', async () => {
    const liar = announces(next.length, next, 1000);
    await using server = await imageRig([serves(earlier, '"v1"'), liar.answer, says(404, {})], { quota });
    server.begin();
    await server.outcome();
    server.begin('a', sha(next), '', true);
    await arrived(server, 'a', 1000);
    liar.breaks();
    assert.equal((await server.outcome())?.result, 500);
    assert.equal(sha(server.stored()!), sha(earlier));
  });

  test('and fails after the earlier one went, leaves a state that says so, also after a restart', async () => {
    const wrong = image(5);
    await using server = await imageRig([serves(earlier, '"v1"'), serves(wrong, '"v2"')], { quota });
    server.begin();
    await server.outcome();
    server.begin('a', sha(next), '', true);
    const end = await server.outcome();
    assert.equal(end?.result, 402);
    assert.deepEqual([server.cache.status('a').state, server.stored()], [3, undefined]);
    while (readdirSync(server.directory).length > 0) await turn();
    const { database, directory, orders } = server;
    await using again = await imageRig([], { quota, database, directory, orders });
    again.cache.resume();
    assert.deepEqual([again.cache.status('a').state, again.cache.status('a').result], [3, 402]);
  });

  test('lets other images go first', async () => {
    const other = image(2);
    await using server = await imageRig(
      [serves(earlier, '"v1"'), serves(other, '"o"'), serves(image(3), '"v2"')],
      { quota },
    );
    server.begin();
    await server.outcome();
    server.begin('other');
    await server.outcome('other');
    server.begin('a', undefined, '', true);
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(server.cache.status('other').state, 4);
    assert.deepEqual(
      server.events.all.filter(({ name }) => name === 'image.evicted').map(({ fields }) => fields.image),
      ['other'],
      'then there was room for both versions',
    );
  });
});
