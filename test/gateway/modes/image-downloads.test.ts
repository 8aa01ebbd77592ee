import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { ImageFiles } from '../../../src/gateway/store/image-files.ts';
import { type Answer, breaksAt, type Ending, endless, says, serves } from '../../journeys/lying-server.ts';
import { imageRig, sha } from './image-rig.ts';

const size = 50_000;
/** Where the first attempt breaks off. */
const cut = 30_000;
const [v1, v2] = [randomBytes(size), randomBytes(size)];
/** Another version that is shorter. */
const short = randomBytes(20_000);
const quota = 200_000;

/** Whether the client has stored so many bytes of image `a`. */
const stored: { files?: ImageFiles } = {};
const received = (bytes: number) => () => (stored.files?.part('a').bytes ?? 0) >= bytes;
const breaksAtCut = (file: Uint8Array, headers: Record<string, string>, ending: Ending = 'reset') =>
  breaksAt(file, cut, headers, ending, received(cut));

/** An image cache with a real download server, on a real disk. */
async function rig(...answers: readonly Answer[]) {
  const made = await imageRig(answers, { quota });
  stored.files = made.files;
  return made;
}

const dates = {
  old: 'Mon, 05 Jan 2026 10:00:00 GMT',
  new: 'Tue, 06 Jan 2026 10:00:00 GMT',
};
const part = (
  body: Uint8Array,
  range: string,
  more: Record<string, string | number> = { etag: '"v1"' },
  length: number | undefined = body.length,
) =>
  says(
    206,
    { 'content-range': range, ...(length !== undefined && { 'content-length': length }), ...more },
    body,
  );

describe('a resumed download from a server that lies', { timeout: 30_000 }, () => {
  /** What the server says to a request for the rest; which file is complete in the end; and the requests for it. */
  const rest = `bytes=${cut}-`;
  const cases: readonly (readonly [what: string, second: Answer, file: Uint8Array, requests: unknown[]])[] = [
    [
      'is of another version by its ETag',
      part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size}`, { etag: '"v2"' }),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'has a weak ETag',
      part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size}`, { etag: 'W/"v1"' }),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'has no ETag',
      part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size}`, {}),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'is of a file of another size',
      part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size + 1}`),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'is of a file of unknown size',
      part(v1.subarray(cut), `bytes ${cut}-${size - 1}/*`),
      v1,
      [undefined, rest],
    ],
    ['begins earlier', part(v1.subarray(10_000), `bytes 10000-${size - 1}/${size}`), v1, [undefined, rest]],
    ['begins at the start', part(v1, `bytes 0-${size - 1}/${size}`), v1, [undefined, rest]],
    [
      'begins later',
      part(v1.subarray(40_000), `bytes 40000-${size - 1}/${size}`),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'ends before it begins',
      part(v1.subarray(0, 100), `bytes 0-99/${size}`),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'is less than was asked for',
      part(v1.subarray(cut, 40_000), `bytes ${cut}-39999/${size}`),
      v1,
      [undefined, rest, 'bytes=40000-'],
    ],
    ['has no range', part(v1.subarray(cut), ''), v2, [undefined, rest, undefined]],
    [
      'has a range that is none',
      part(v1.subarray(cut), `bytes ${cut}-${size}/${size}`),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'has another length than its range',
      part(v1.subarray(cut), `bytes ${cut}-${size - 1}/${size}`, { etag: '"v1"' }, 100),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'is in several parts',
      part(Buffer.from('--x\r\n'), '', { etag: '"v1"', 'content-type': 'multipart/byteranges; boundary=x' }),
      v2,
      [undefined, rest, undefined],
    ],
    ['is the whole file of this version', serves(v1, '"other"'), v1, [undefined, rest]],
    ['is the whole of another version', serves(short, '"short"'), short, [undefined, rest]],
    [
      'is beyond the end',
      says(416, { 'content-range': `bytes */${short.length}` }),
      v2,
      [undefined, rest, undefined],
    ],
    [
      'is longer than its range',
      part(
        v1.subarray(cut),
        `bytes ${cut}-39999/${size}`,
        { etag: '"v1"', 'transfer-encoding': 'chunked' },
        undefined,
      ),
      v1,
      [undefined, rest, rest],
    ],
    ['is at another place', says(302, { location: '/other' }), v2, [undefined, rest, rest, undefined]],
  ];
  for (const [what, second, file, requests] of cases)
    test(`the answer ${what}`, async () => {
      const third: Answer[] =
        what === 'is at another place'
          ? [part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size}`, { etag: '"v2"' }), serves(v2, '"v2"')]
          : [serves(Buffer.from(file), file === v1 ? '"v1"' : '"v2"')];
      await using server = await rig(breaksAtCut(v1, { etag: '"v1"' }), second, ...third);
      server.begin();
      assert.deepEqual(await server.outcome(), {
        name: 'a',
        result: 200,
        size: file.length,
        hash: sha(file),
      });
      assert.equal(sha(server.stored()!), sha(file));
      assert.deepEqual(server.requests, requests);
      assert.equal(readdirSync(server.directory).length, 1, 'nothing else holds room');
    });

  const byDate = (date: string, more = {}) => ({ 'last-modified': date, date: dates.new, ...more });
  for (const [what, first, second, requests] of [
    ['the same date', byDate(dates.old), byDate(dates.old), [undefined, rest]],
    ['another date', byDate(dates.old), byDate(dates.new), [undefined, rest, undefined]],
    [
      'the date of the same second, so the file may have changed since',
      byDate(dates.new),
      byDate(dates.new),
      [undefined, undefined],
    ],
  ] as const)
    test(`a server without ETags gives ${what}`, async () => {
      const isSame = requests.length === 2 && requests[1] === rest;
      const answer = part((isSame ? v1 : v2).subarray(cut), `bytes ${cut}-${size - 1}/${size}`, second);
      const then: Answer = (request, response) =>
        request.headers.range === undefined
          ? says(200, { 'content-length': size, ...second }, v2)(request, response)
          : answer(request, response);
      await using server = await rig(breaksAtCut(v1, first), then);
      server.begin();
      assert.equal((await server.outcome())?.result, 200);
      assert.equal(sha(server.stored()!), sha(isSame ? v1 : v2));
      assert.deepEqual(server.requests, requests);
    });

  test('a server gives another file the same ETag: the digest reveals it, and the file is downloaded once more', async () => {
    const tail = part(v2.subarray(cut), `bytes ${cut}-${size - 1}/${size}`);
    await using server = await rig(breaksAtCut(v1, { etag: '"v1"' }), tail, serves(v1, '"v1"'));
    server.begin('a', sha(v1));
    assert.equal((await server.outcome())?.result, 200);
    assert.deepEqual(server.requests, [undefined, rest, undefined]);
    await using worse = await rig(
      ...[breaksAtCut(v1, { etag: '"v1"' }), tail, breaksAtCut(v1, { etag: '"v1"' }), tail],
    );
    worse.begin('a', sha(v1));
    assert.equal((await worse.outcome())?.result, 402);
    assert.equal(worse.requests.length, 4, 'but not for ever');
  });

  test('a server gives another version at each attempt: the download ends after the attempts without progress', async () => {
    let version = 0;
    await using server = await rig((request, response) =>
      breaksAtCut(v1, { etag: `"${version++}"` })(request, response),
    );
    server.begin();
    assert.equal((await server.outcome())?.result, 503);
    assert.ok(server.requests.length < 20, `${server.requests.length} requests`);
    assert.deepEqual(readdirSync(server.directory), []);
  });
});

describe('a download from a server that misbehaves', { timeout: 30_000 }, () => {
  test('a file without a length is downloaded', async () => {
    await using server = await rig(says(200, { 'transfer-encoding': 'chunked' }, v1));
    server.begin();
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(sha(server.stored()!), sha(v1));
  });

  for (const ending of ['closed', 'reset'] as const)
    test(`the connection is ${ending} in the middle, and after the last byte`, async () => {
      await using server = await rig(
        breaksAtCut(v1, { etag: '"v1"' }, ending),
        says(
          206,
          { etag: '"v1"', 'content-range': `bytes ${cut}-${size - 1}/${size}` },
          v1.subarray(cut),
          ending,
          received(size),
        ),
        serves(v2, '"v2"'),
      );
      server.begin();
      assert.equal((await server.outcome())?.result, 200);
      assert.equal(sha(server.stored()!), sha(v1));
      assert.equal(server.requests.length, 2, 'what is complete is not asked for again');
    });

  for (const status of [200, 206])
    test(`a ${status} without an end never takes more than the quota`, async () => {
      let most = 0;
      const [from, limit] = status === 200 ? [0, quota] : [cut, size];
      const chunk = 3000;
      const went = (sent: number) => {
        most = Math.max(most, server.files.bytes);
        return server.files.part('a').bytes >= from + sent;
      };
      const range = { etag: '"v1"', 'content-range': `bytes ${cut}-${size - 1}/${size}` };
      const forEver = endless(status, status === 200 ? {} : range, went, chunk);
      const first = status === 200 ? [] : [breaksAtCut(v1, { etag: '"v1"' })];
      await using server = await rig(...first, forEver);
      server.begin();
      assert.equal((await server.outcome())?.result, status === 200 ? 405 : 503);
      assert.ok(most > limit - chunk && most <= limit, `${most} bytes`);
      assert.deepEqual(readdirSync(server.directory), []);
    });

  for (const [where, silent] of [
    ['before its answer', () => {}],
    ['after the head', says(200, { 'content-length': size }, Buffer.alloc(0), 'silent')],
    ['in the middle', breaksAtCut(v1, { etag: '"v1"' }, 'silent')],
  ] as const)
    test(`a server that is silent ${where} is given up after 30 s, and asked again`, async () => {
      await using server = await rig(silent, serves(v1, '"v1"'));
      server.begin();
      const bytes = where === 'in the middle' ? cut : 0;
      while (server.requests.length === 0 || server.files.part('a').bytes < bytes) await turn();
      if (where !== 'before its answer') await server.events.until('image.coming');
      // The client waits for more.
      while (server.clock.timers === 0) await turn();
      server.clock.advance(29_000);
      assert.equal(server.events.count('image.broke-off'), 0);
      const broken = server.events.next('image.broke-off');
      server.clock.advance(2000);
      assert.match(String((await broken).fields.reason), /silent or too slow/);
      assert.equal((await server.outcome())?.result, 200);
      assert.equal(server.requests[1], bytes > 0 ? `bytes=${cut}-` : undefined);
    });

  test('a server that sends one byte now and then is given up as well', async () => {
    let drop: () => void = () => {};
    const drips: Answer = (_, response) => {
      response.writeHead(200, { 'content-length': size, etag: '"v1"' });
      drop = () => response.write(v1.subarray(0, 1));
      drop();
    };
    await using server = await rig(drips, serves(v1, '"v1"'));
    server.begin();
    const isGivenUp = () => server.events.count('image.broke-off') > 0;
    for (let dropped = 1; !isGivenUp(); dropped++) {
      assert.ok(dropped < 10, 'it is given up');
      // It may be given up some turns after the clock has moved. No byte comes then.
      while (!isGivenUp() && (server.files.part('a').bytes < dropped || server.clock.timers === 0))
        await turn();
      server.clock.advance(10_000);
      await turn();
      drop();
    }
    assert.equal((await server.outcome())?.result, 200);
  });

  test('a file in a content coding is refused', async () => {
    await using server = await rig(says(200, { 'content-encoding': 'gzip' }, v1));
    server.begin();
    const end = await server.outcome();
    assert.deepEqual(
      [end?.result, end?.reason],
      [500, 'the download server sent the file in a content coding'],
    );
  });

  test('after a redirection to no URL and an answer that is not HTTP, the next attempt succeeds', async () => {
    await using server = await rig(
      says(302, { location: 'http://[' }),
      (_, response) => {
        response.socket?.end('no HTTP\r\n\r\n');
      },
      serves(v1, '"v1"'),
    );
    server.begin();
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(server.events.count('image.broke-off'), 2);
  });
});

describe('the last good image', { timeout: 30_000 }, () => {
  test('is served while another version comes, and after it failed; then the new one', async () => {
    let go: () => void = () => {};
    const bad = randomBytes(size);
    await using server = await rig(
      serves(v1, '"v1"'),
      (request, response) => {
        go = () => serves(bad, '"bad"')(request, response);
      },
      says(404, {}),
      serves(v2, '"v2"'),
    );
    server.begin('a', sha(v1));
    await server.outcome();
    server.begin('a', sha(v2));
    while (server.requests.length < 2) await turn();
    assert.equal(sha(server.stored()!), sha(v1), 'while the next one comes');
    assert.deepEqual([server.cache.status('a').state, server.cache.status('a').received], [1, 0]);
    go();
    const failed = await server.outcome();
    assert.equal(failed?.result, 402);
    assert.match(failed?.reason ?? '', /^the SHA-256 is [0-9a-f]{64}$/);
    assert.equal(sha(server.stored()!), sha(v1), 'after a wrong one');
    const { state, result, reason, size: bytes } = server.cache.status('a');
    assert.deepEqual([state, result, reason, bytes], [2, 402, failed?.reason, size]);
    assert.equal(server.cache.used, size, 'the failed one holds no room');
    server.begin('a', sha(v2));
    assert.equal((await server.outcome())?.result, 500);
    assert.equal(sha(server.stored()!), sha(v1), 'after one that is not there');
    server.begin('a', sha(v2));
    assert.equal((await server.outcome())?.result, 200);
    assert.equal(sha(server.stored()!), sha(v2));
    assert.equal(server.cache.used, size, 'the old one holds no room');
    assert.deepEqual([server.cache.status('a').result, server.cache.status('a').reason], [200, '']);
  });

  test('makes room for others, also when the order to replace it failed', async () => {
    await using server = await rig(serves(v1, '"v1"'), says(404, {}), serves(randomBytes(180_000), '"big"'));
    server.begin('a');
    await server.outcome();
    server.begin('a');
    assert.equal((await server.outcome())?.result, 500);
    server.begin('big');
    assert.equal((await server.outcome('big'))?.result, 200);
    assert.deepEqual([server.cache.status('a').state, server.stored('a')], [4, undefined]);
  });

  test('stays when there is no room for its successor', async () => {
    const big = randomBytes(120_000);
    await using server = await rig(serves(big, '"v1"'), serves(randomBytes(120_000), '"v2"'));
    server.begin('a');
    await server.outcome();
    server.begin('a');
    assert.equal((await server.outcome())?.result, 501);
    assert.equal(sha(Buffer.from(server.cache.ready('a')!.read(0, big.length))), sha(big));
  });

  test('a cancelled download and the next order of the same image do not meet', async () => {
    await using server = await rig(breaksAtCut(v1, { etag: '"v1"' }, 'silent'), serves(v2, '"v2"'));
    server.begin('a');
    while (server.files.part('a').bytes < cut) await turn();
    server.cache.remove('a');
    server.begin('a');
    await server.events.until('image.ready');
    assert.equal(sha(server.stored()!), sha(v2));
    assert.deepEqual(server.requests, [undefined, undefined]);
    assert.equal(server.ends.length, 1, 'of the cancelled one nobody hears');
    server.cache.forget('a');
    assert.deepEqual(readdirSync(server.directory), []);
  });
});
