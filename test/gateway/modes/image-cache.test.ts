import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { ImageCache } from '../../../src/gateway/modes/image-cache.ts';
import type { Download, DownloadRequest } from '../../../src/gateway/northbound/download.ts';
import { ImageFiles } from '../../../src/gateway/store/image-files.ts';
import { Images } from '../../../src/gateway/store/images.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { ImageOrder } from '../../../src/mo/image-branch.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-cache-'));
after(() => rmSync(folder, { recursive: true }));
let folders = 0;
const sha = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
const bytes = (length: number, fill = 7) => Buffer.alloc(length, fill);

interface Settings {
  readonly quota?: number;
  readonly count?: number;
  readonly signingKeys?: readonly KeyObject[];
  readonly directory?: string;
  readonly database?: ReturnType<typeof openDatabase>;
  readonly answers: readonly ((wanted: DownloadRequest) => Download)[];
}

/** A cache whose download server is a list of answers, the last for all that come after. */
function rig(settings: Settings) {
  const { quota = 1000, count = 8, signingKeys = [], answers } = settings;
  const directory = settings.directory ?? join(folder, String(++folders));
  const database = settings.database ?? openDatabase(':memory:', gatewaySchema);
  const clock = new HandClock();
  const events = new EventRecorder();
  const orders = new Map<string, ImageOrder>();
  const asked: DownloadRequest[] = [];
  const ended: [string, number][] = [];
  const reasons: (string | undefined)[] = [];
  const waiting = new Map<string, () => void>();
  const files = new ImageFiles(directory);
  const cache = new ImageCache({
    images: new Images(database),
    files,
    disk: new DiskRoom(0),
    quota,
    count,
    signingKeys,
    download: async (wanted) => {
      const answer = answers[Math.min(asked.length, answers.length - 1)];
      asked.push(wanted);
      if (!answer) throw new PosternError('unavailable', 'nothing');
      return answer(wanted);
    },
    order: (name) => orders.get(name) ?? { name, url: undefined, hash: undefined, signature: undefined },
    pathOf: (name) => `/img/${name}`,
    clock,
    entropy: seededEntropy(3),
    events,
    ended: ({ name }, { result, reason }) => {
      ended.push([name, result]);
      reasons.push(reason);
      waiting.get(name)?.();
    },
  });
  /** Asks for an image, moves the clock over its pauses, and resolves with what it came to. */
  const get = async (name: string, more: Partial<ImageOrder> = {}) => {
    const order = { name, url: 'http://files.example/x', hash: undefined, signature: undefined, ...more };
    orders.set(name, order);
    const { promise, resolve } = Promise.withResolvers<void>();
    waiting.set(name, resolve);
    const status = cache.admit(order, false, []);
    if (status !== 202) return status;
    cache.begin(order, 'dm.example', undefined);
    let done = false;
    void promise.then(() => {
      done = true;
    });
    while (!done) {
      clock.advance(100_000);
      await new Promise(setImmediate);
    }
    return ended.at(-1)?.[1];
  };
  return { cache, clock, database, directory, events, files, orders, asked, ended, reasons, get };
}

async function* chunks(data: Uint8Array, breaksAt?: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += 10) {
    if (breaksAt !== undefined && at >= breaksAt)
      throw new PosternError('unavailable', 'the connection broke');
    yield data.subarray(at, at + 10);
  }
}

const whole = (data: Uint8Array, breaksAt?: number) => (): Download => ({
  from: 0,
  total: data.length,
  validator: '"v1"',
  body: chunks(data, breaksAt),
});
const rest =
  (data: Uint8Array, breaksAt?: number) =>
  ({ from }: DownloadRequest): Download => ({
    from,
    total: data.length,
    validator: '"v1"',
    body: chunks(data.subarray(from), breaksAt),
  });
const fails = (code: 'notFound' | 'forbidden' | 'malformed' | 'timeout' | 'unavailable') => (): Download => {
  throw new PosternError(code, 'no');
};

describe('downloads of images', () => {
  test('a download that breaks off continues where it stopped, and the image can be read at any offset', async () => {
    const data = bytes(95).map((_, at) => at);
    const { cache, get, asked } = rig({ answers: [whole(data, 40), rest(data, 50), rest(data)] });
    assert.equal(await get('a', { hash: sha(data) }), 200);
    assert.deepEqual(
      asked.map(({ from, validator }) => [from, validator]),
      [
        [0, undefined],
        [40, '"v1"'],
        [90, '"v1"'],
      ],
    );
    const image = cache.ready('a');
    assert.equal(image?.size, 95);
    assert.deepEqual([...(image?.read(90, 100) ?? [])], [90, 91, 92, 93, 94]);
    assert.equal(await get('a', { hash: sha(data) }), 200, 'what is there is not fetched again');
    assert.equal(asked.length, 3);
    await cache[Symbol.asyncDispose]();
  });

  for (const [what, answers, order, result] of [
    ['with a wrong digest', [whole(bytes(20))], { hash: 'ab'.repeat(32) }, 402],
    ['that does not exist', [fails('notFound')], {}, 500],
    ['that is forbidden', [fails('forbidden')], {}, 500],
    ['with an invalid URL', [fails('malformed')], {}, 411],
    ['from a server that does not answer', [fails('timeout')], {}, 412],
    ['from a server that cannot be reached', [fails('unavailable')], {}, 503],
    ['larger than the quota', [whole(bytes(1001))], {}, 405],
    [
      'of unknown size that grows beyond the quota',
      [(): Download => ({ from: 0, total: undefined, validator: undefined, body: chunks(bytes(1200)) })],
      {},
      405,
    ],
  ] as const)
    test(`an image ${what} ends with ${result}, and no file remains`, async () => {
      const { cache, get, directory, reasons, events } = rig({ answers });
      assert.equal(await get('a', order), result);
      assert.equal(reasons[0], events.all.find(({ name }) => name === 'image.failed')?.fields.reason);
      assert.equal(cache.status('a').reason, reasons[0]);
      assert.deepEqual(readdirSync(directory), []);
      assert.deepEqual([cache.status('a').state, cache.status('a').result], [3, result]);
      await cache[Symbol.asyncDispose]();
    });

  test('a download ends with 501 if the flash is full', async () => {
    const { cache, get, files } = rig({ answers: [whole(bytes(50))] });
    const part = files.part('a');
    symlinkSync('/dev/full', part.path('http://files.example/x', '"v1"'));
    assert.equal(await get('a'), 501);
    await cache[Symbol.asyncDispose]();
  });

  test('if there are signing keys, an image needs a signature by one of them', async () => {
    const data = bytes(30);
    const digest = Buffer.from(sha(data), 'hex');
    const ed = generateKeyPairSync('ed25519');
    const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const other = generateKeyPairSync('ed25519');
    const signingKeys = [ed.publicKey, ec.publicKey];
    const { cache, get } = rig({ answers: [whole(data)], signingKeys });
    assert.equal(await get('none'), 404);
    assert.equal(
      await get('other', { signature: sign(null, digest, other.privateKey).toString('base64') }),
      404,
    );
    assert.equal(await get('ed', { signature: sign(null, digest, ed.privateKey).toString('base64') }), 200);
    assert.equal(
      await get('ec', { signature: sign('sha256', digest, ec.privateKey).toString('base64') }),
      200,
    );
    await cache[Symbol.asyncDispose]();
  });

  test('after a power cut the gateway continues a download at its next start', async () => {
    const data = bytes(95);
    const cut = Promise.withResolvers<void>();
    const stuck = (): Download => ({
      from: 0,
      total: 95,
      validator: '"v1"',
      body: (async function* () {
        yield data.subarray(0, 30);
        await cut.promise;
      })(),
    });
    const before = rig({ answers: [stuck] });
    const order = { name: 'a', url: 'http://files.example/x', hash: undefined, signature: undefined };
    before.orders.set('a', order);
    before.cache.begin(order, 'dm.example', 'c-1');
    while (before.files.part('a').bytes < 30) await new Promise(setImmediate);
    // A power cut: nothing is disposed of before the next start.
    const { directory, database } = before;
    const after = rig({ answers: [rest(data)], directory, database });
    after.orders.set('a', {
      name: 'a',
      url: 'http://files.example/x',
      hash: sha(data),
      signature: undefined,
    });
    after.cache.resume();
    while (after.ended.length === 0) await new Promise(setImmediate);
    assert.deepEqual([after.asked[0]?.from, after.ended], [30, [['a', 200]]]);
    assert.equal(after.cache.ready('a')?.size, 95);
    await after.cache[Symbol.asyncDispose]();
    const ended = before.cache[Symbol.asyncDispose]();
    cut.resolve();
    await ended;
  });
});

describe('bounds of the image cache', () => {
  // conforms: GW-18
  test('the image that was used longest ago is evicted, but never a pushed one', async () => {
    const { cache, clock, get, events } = rig({ answers: [whole(bytes(300))] });
    const push = { url: undefined, hash: undefined, signature: undefined };
    cache.take({ name: 'pushed', ...push }, bytes(300));
    for (const name of ['old', 'new']) {
      await get(name);
      clock.advance(1000);
    }
    cache.ready('old')?.read(0, 1);
    clock.advance(1000);
    assert.equal(await get('third'), 200);
    assert.equal(cache.status('new').state, 4, 'old was asked for later');
    assert.deepEqual(
      ['pushed', 'old', 'third'].map((name) => cache.status(name).state),
      [2, 2, 2],
    );
    assert.equal(events.count('image.evicted'), 1);
    assert.throws(
      () => cache.reserve({ name: 'more', url: undefined, hash: undefined, signature: undefined }, 800, []),
      { code: 'full' },
    );
    assert.throws(
      () => cache.reserve({ name: 'more', url: undefined, hash: undefined, signature: undefined }, 1001, []),
      { code: 'tooLarge' },
    );
    assert.equal(cache.status('third').state, 2, 'nothing is evicted when that is not enough');
    await cache[Symbol.asyncDispose]();
  });

  test('an image beyond the bound, and a second download of the same image, are refused', async () => {
    const { cache, get } = rig({ answers: [whole(bytes(10))], count: 2 });
    await get('a');
    await get('b');
    await assert.rejects(get('c'), { code: 'full' });
    cache.forget('a');
    const order = { name: 'c', url: 'http://files.example/x', hash: undefined, signature: undefined };
    cache.begin(order, 'dm.example', undefined);
    assert.throws(() => cache.admit(order, false, []), { code: 'conflict' });
    assert.equal(cache.admit(order, true, []), 202, 'unless it was deleted in the same package');
    assert.throws(() => cache.admit({ ...order, name: 'b', url: undefined }, false, []), {
      code: 'malformed',
    });
    await cache[Symbol.asyncDispose]();
  });
});
