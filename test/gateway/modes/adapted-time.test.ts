import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { refusal, reply } from '../../../src/wire/coap/message.ts';
import { turn } from '../../wire/coap/wire.ts';
import { adaptedRig, atomic, type ClientAnswer, get, replace } from './adapted-rig.ts';

const maker: ClientAnswer = ({ method }) =>
  method === Code.GET
    ? reply(Code.Content, { payload: 'Maker', contentFormat: ContentFormat.TextPlain })
    : reply(Code.Changed);
const gets = (count: number) => get('./3/0/0').repeat(count);
/** Statuses of the commands of the only device. */
const statuses = (result = '') => /Commands="([^"]*)"/.exec(result)?.[1]?.split(' ').map(Number) ?? [];

describe('the time of an order for an LwM2M client', { timeout: 60_000 }, () => {
  // conforms: GW-26
  test('a client that falls silent holds an order no longer than its deadline, and what it has done counts', async () => {
    let answers = 2;
    await using rig = await adaptedRig((request) => (answers-- > 0 ? maker(request) : undefined));
    rig.start('f', gets(64), { deadline: 15_000 });
    assert.equal(await rig.until(() => rig.results.length > 0), 15);
    assert.deepEqual(statuses(rig.results[0]), [200, 200, ...Array<number>(62).fill(408)]);
    assert.match(rig.results[0] ?? '', /Maker/);
  });

  test('64 commands for a client that falls silent wait for one answer and one proof, not for 64', async () => {
    // Its proof before the order, and the first command.
    let answers = 2;
    await using rig = await adaptedRig((request) => (answers-- > 0 ? maker(request) : undefined));
    rig.clock.advance(1000);
    rig.start('f', gets(64));
    const seconds = await rig.until(() => rig.results.length > 0);
    assert.ok(seconds <= 45, `${seconds} s`);
    assert.deepEqual(statuses(rig.results[0]), [200, ...Array<number>(63).fill(408)]);
    assert.ok(new Set(rig.heard).size <= 2, 'the question of the order, and that for a proof');
  });

  test('a client that loses one answer but is there gets the commands behind it', async () => {
    await using rig = await adaptedRig((request) =>
      request.path.join('/') === '3/0/1' ? undefined : maker(request),
    );
    rig.start('f', get('./3/0/0') + get('./3/0/1') + get('./3/0/0') + get('./3/0/1') + get('./3/0/2'));
    await rig.until(() => rig.results.length > 0);
    assert.deepEqual(statuses(rig.results[0]), [200, 408, 200, 408, 200]);
  });

  test('a client that is never there ends at the deadline, without a place among those in progress', async () => {
    await using rig = await adaptedRig(maker, {}, () => true);
    rig.clock.advance(1000);
    rig.start('f', gets(64), { deadline: 40_000 });
    assert.equal(await rig.until(() => rig.results.length > 0), 40);
    assert.match(rig.results[0] ?? '', /Status="408" Commands=""/);
    assert.equal(rig.away(), 1, 'another device has had its turn');
    rig.wake();
    await rig.until(() => false, 60);
    assert.deepEqual(rig.heard, [], 'nothing is sent later');
  });

  test('of two orders for one client each has its own deadline', async () => {
    let until = Number.POSITIVE_INFINITY;
    await using rig = await adaptedRig((request) => (rig.clock.now() < until ? undefined : maker(request)));
    until = rig.clock.now() + 10_000;
    rig.wake();
    rig.start('short', gets(3), { deadline: 10_000 });
    rig.start('long', gets(3));
    assert.equal(await rig.until(() => rig.results.length > 0), 10);
    assert.deepEqual(statuses(rig.results[0]), [408, 408, 408]);
    await rig.until(() => rig.results.length > 1);
    assert.deepEqual(statuses(rig.results[1]), [200, 200, 200]);
  });

  test('the stop of the gateway ends a command without an answer at once', async () => {
    const rig = await adaptedRig(() => undefined);
    rig.start('f', gets(64));
    await rig.until(() => rig.heard.length > 0);
    await rig[Symbol.asyncDispose]();
    assert.deepEqual(rig.results, []);
  });
});

describe('an order for an LwM2M client that sleeps', { timeout: 60_000 }, () => {
  const sleeping = { queueMode: true };

  // conforms: GW-26
  test('waits for it as long as its deadline, and is done when it wakes', async () => {
    await using rig = await adaptedRig(maker, sleeping);
    rig.start('f', gets(2));
    await rig.until(() => false, 3000);
    assert.deepEqual([rig.results.length, rig.away(), rig.heard.length], [0, 1, 0]);
    rig.wake();
    await rig.until(() => rig.results.length > 0, 1);
    assert.deepEqual(statuses(rig.results[0]), [200, 200]);
  });

  test('ends with 408 at its deadline, or at its Timeout where it names one', async () => {
    await using rig = await adaptedRig(maker, sleeping);
    rig.start('deadline', gets(2), { deadline: 600_000 });
    rig.start('timeout', gets(2), { timeout: 30_000 });
    assert.equal(await rig.until(() => rig.results.length > 0), 30);
    assert.equal(await rig.until(() => rig.results.length > 1), 570);
    for (const result of rig.results) assert.match(result, /Status="408" Commands=""/);
    rig.wake();
    for (let at = 0; at < 50; at++) await turn();
    assert.deepEqual(rig.heard, []);
  });
});

describe('an Atomic for an LwM2M client', { timeout: 60_000 }, () => {
  const two = atomic(replace('./3/0/14', '+01:00'), replace('./3/0/15', 'x'));

  // conforms: GW-26
  test('tells a node that is missing, and one that cannot be read, from a client that is silent', async () => {
    let code: number | undefined = Code.NotFound;
    await using rig = await adaptedRig(({ path }) =>
      path.join('/') === '1/0/8' || code === undefined ? undefined : refusal(code, ''),
    );
    const result = async (name: string) => {
      const before = rig.results.length;
      rig.start(name, two);
      await rig.until(() => rig.results.length > before);
      return statuses(rig.results.at(-1));
    };
    assert.deepEqual(await result('missing'), [507, 404, 215]);
    code = Code.MethodNotAllowed;
    assert.deepEqual(await result('unreadable'), [507, 405, 215]);
    code = undefined;
    // It may have done all that it was told in one request.
    assert.deepEqual(await result('silent'), [516, 408, 408]);
  });

  test('of a client that falls silent in the middle the outcome says that the first value was not written back', async () => {
    let writes = 0;
    await using rig = await adaptedRig((request) => {
      if (request.method === Code.iPATCH) return refusal(Code.MethodNotAllowed, '');
      if (writes > 0) return undefined;
      if (request.method === Code.PUT) writes++;
      return maker(request);
    });
    rig.start('f', two);
    assert.ok((await rig.until(() => rig.results.length > 0)) <= 62);
    assert.deepEqual(statuses(rig.results[0]), [516, 516, 408]);
  });
});
