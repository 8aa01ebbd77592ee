import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PackageAnswers } from '../../src/headend/package-answers.ts';

const limits = { working: 3, workingBytes: 100, kept: 4, keptBytes: 1000 };
const answer = (bytes: number) => async () => Buffer.alloc(bytes);

test('a package that comes again has the same answer, while it is in work and afterwards', async () => {
  const answers = new PackageAnswers(limits);
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  let made = 0;
  const make = () => {
    made++;
    return promise;
  };
  const both = [answers.of('a', 10, make), answers.of('a', 10, make)];
  assert.deepEqual(answers.bytes, { working: 10, kept: 0 });
  resolve(Buffer.from('x'));
  assert.deepEqual([...(await Promise.all(both)), await answers.of('a', 10, make)].join(''), 'xxx');
  assert.equal(made, 1);
});

test('an answer that is kept holds no more memory than its own bytes', async () => {
  const answers = new PackageAnswers(limits);
  const piece = Buffer.alloc(65_536);
  await answers.of('a', 10, async () => piece.subarray(100, 150));
  const kept = await answers.of('a', 10, answer(0));
  assert.deepEqual([kept.length, kept.buffer.byteLength], [50, 50]);
});

test('packages in work have a bound in number and in bytes, and one that was refused is taken later', async () => {
  for (const [bytes, most] of [
    [1, 3],
    [50, 2],
  ] as const) {
    const answers = new PackageAnswers(limits);
    const { promise, resolve } = Promise.withResolvers<Buffer>();
    const running = Array.from({ length: most }, (_, at) => answers.of(`${at}`, bytes, () => promise));
    await assert.rejects(answers.of('further', bytes, answer(1)), { code: 'unavailable' });
    resolve(Buffer.from('x'));
    await Promise.all(running);
    assert.equal((await answers.of('further', bytes, answer(7))).length, 7);
    assert.equal(answers.bytes.working, 0);
  }
});

test('answers that are kept have a bound in number and in bytes; the oldest goes first', async () => {
  const answers = new PackageAnswers(limits);
  const isKept = async (key: string) => {
    let made = false;
    await answers.of(key, 1, async () => {
      made = true;
      return Buffer.alloc(0);
    });
    return !made;
  };
  for (let at = 0; at < 100; at++) {
    await answers.of(`${at}`, 1, answer(400));
    assert.ok(answers.bytes.kept <= limits.keptBytes);
  }
  assert.deepEqual([await isKept('99'), await isKept('98'), await isKept('97')], [true, true, false]);
  await answers.of('huge', 1, answer(2000));
  assert.equal(answers.bytes.kept, 0, 'an answer above the bound is not kept');
});

test('work that fails leaves nothing behind', async () => {
  const answers = new PackageAnswers(limits);
  for (let at = 0; at < 10; at++)
    await assert.rejects(
      answers.of('a', 90, async () => {
        throw new Error('broken');
      }),
      /broken/,
    );
  assert.deepEqual(answers.bytes, { working: 0, kept: 0 });
});
