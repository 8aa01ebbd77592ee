import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { ServedImage } from '../../../src/gateway/southbound/image-resource.ts';
import { readIndex, writeIndex } from '../../../src/gateway/store/block-index.ts';
import { serves } from '../../journeys/lying-server.ts';
import { imageRig, type RigSettings } from './image-rig.ts';

const limit = { timeout: 30_000 };
const [first, second] = [randomBytes(50_000), randomBytes(60_000)];
const bytesOf = async (image: ServedImage | undefined) => {
  const index = await image?.index?.();
  return index && Buffer.from(index.read(0, index.size));
};

/** An image cache with the images a and b, on a disk. */
async function stored(t: TestContext, settings: RigSettings = {}) {
  const rig = await imageRig([serves(first, '"1"'), serves(second, '"2"')], settings);
  t.after(() => rig[Symbol.asyncDispose]());
  for (const name of ['a', 'b']) {
    rig.begin(name);
    assert.equal((await rig.outcome(name))?.result, 200);
  }
  const indexes = () => readdirSync(rig.directory).filter((name) => name.includes('.blocks'));
  return { ...rig, indexes };
}

describe('the index of an image', limit, () => {
  test('is made when somebody asks, once for all who ask, and is kept', async (t) => {
    const { cache, files, indexes } = await stored(t);
    assert.deepEqual(indexes(), []);
    let made = 0;
    const make = files.makeIndex.bind(files);
    files.makeIndex = async (...image) => {
      made++;
      await make(...image);
    };
    const all = await Promise.all([1, 2, 3].map(() => bytesOf(cache.ready('a'))));
    for (const index of all) assert.ok(index?.equals(writeIndex(first)));
    assert.equal(readIndex(all[0]!, 100_000).sha256, cache.ready('a')?.hash);
    await bytesOf(cache.ready('a'));
    assert.deepEqual([made, indexes().length], [1, 1]);
  });

  test('waits for that of another image: one is made at a time', async (t) => {
    const { cache } = await stored(t);
    const one = bytesOf(cache.ready('a'));
    await assert.rejects(bytesOf(cache.ready('b')), { code: 'unavailable' });
    await one;
    assert.ok((await bytesOf(cache.ready('b')))?.equals(writeIndex(second)));
    assert.ok((await bytesOf(cache.ready('a')))?.equals(writeIndex(first)), 'both are kept');
  });

  test('is none without room, and no image gives way to it', async (t) => {
    const { cache, indexes, events } = await stored(t, { quota: first.length + second.length + 100 });
    assert.equal(await bytesOf(cache.ready('a')), undefined);
    assert.deepEqual([indexes(), events.count('image.evicted')], [[], 0]);
    const full = await stored(t);
    const left = full.cache.ready('a');
    t.mock.method(full.files, 'makeIndex', () => Promise.reject(new Error('the disk is broken')));
    await assert.rejects(bytesOf(left), /broken/);
    t.mock.restoreAll();
    assert.ok(await bytesOf(left), 'a failure is not kept');
  });

  test('goes with its image, also when the image goes while it is made', async (t) => {
    const { cache, indexes } = await stored(t);
    await bytesOf(cache.ready('a'));
    cache.forget('a');
    assert.deepEqual(indexes(), []);
    const making = bytesOf(cache.ready('b'));
    cache.forget('b');
    await making.catch(() => {});
    assert.deepEqual(indexes(), []);
  });

  test('a new version has an index of its own', async (t) => {
    const { cache, begin, outcome, indexes } = await stored(t);
    await bytesOf(cache.ready('a'));
    begin('a');
    await outcome('a');
    assert.equal(indexes().length, 0);
    assert.ok((await bytesOf(cache.ready('a')))?.equals(writeIndex(second)));
  });

  test('a start keeps the index of an image that is there, and deletes what a power cut left', async (t) => {
    const { cache, files, directory, indexes } = await stored(t);
    await bytesOf(cache.ready('a'));
    const [kept] = indexes();
    const orphan = `${'0'.repeat(16)}-${'1'.repeat(16)}.blocks`;
    for (const name of [orphan, `${kept}.new`]) writeFileSync(join(directory, name), '');
    writeFileSync(join(directory, 'notes.blocks'), '');
    cache.resume();
    assert.deepEqual(indexes().toSorted(), [kept!, 'notes.blocks'].toSorted());
    // What is on the disk is served, and not made again.
    const other = readFileSync(join(directory, kept!)).fill(7);
    renameSync(join(directory, kept!), join(directory, 'away'));
    writeFileSync(join(directory, kept!), other);
    const { hash } = cache.ready('a')!;
    files.drop('none', hash);
    assert.ok((await bytesOf(cache.ready('a')))?.equals(other));
    rmSync(join(directory, 'away'));
  });
});
