// What the sessions of a table hold in bytes, when their clients send as much as they may.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { weightBound } from '../../src/dm/session-bounds.ts';
import { SessionTable, type SessionTableLimits } from '../../src/dm/session-table.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { Command, SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { HandClock } from '../hand-clock.ts';
import { turn } from '../wire/coap/wire.ts';
import { client, noncePair, server } from './parties.ts';

const share = 16_384;
const pool = 512 * 1024;
const limits: SessionTableLimits = {
  sessions: 64,
  idle: 60_000,
  silent: 10_000,
  bytes: { share, pool, keep: 300_000 },
};
const chunkBytes = 30_000;

/** A table with devices that have proved themselves and then send what they like. */
function desk() {
  const clock = new HandClock();
  const ended: string[] = [];
  const table = new SessionTable<string>({
    events: noEvents,
    clock,
    limits,
    abandoned: (owner, status) => ended.push(`${owner} ${status}`),
  });
  const take = async (name: string, dm: ReturnType<typeof noncePair>['dm'], message: SyncmlMessage) => {
    const body = encodeMessage(message, MediaType.Cbor);
    const arrived = decodeMessage(body, MediaType.Cbor);
    const arrival = { key: name, associations: [name], message: arrived, seal: { body, hmac: undefined } };
    const found = table.find(arrival, () => ({
      session: server(dm, {
        sessionId: '1',
        entropy: seededEntropy(2),
        work: async function* () {
          for (;;) yield [{ name: 'Get', uri: './Site/Name' }];
        },
      }),
      owner: name,
    }));
    assert.notEqual(found.place, 'stranger', name);
    return await table.receive(arrival, found);
  };
  /** Opens a session, in which the device then sends messages. */
  const open = async (name: string) => {
    const { device, dm } = noncePair();
    await take(name, dm, client(device, { sessionId: '1' }).start());
    let msgId = 1;
    const send = async (commands: readonly Command[], final = false) => {
      const header = {
        verDtd: '1.2',
        verProto: 'DM/1.2',
        sessionId: '1',
        msgId: msgId + 1,
        target: { locUri: 'dm.example' },
        source: { locUri: 'urn:dev:1' },
      };
      const answer = await take(name, dm, { header, commands: [...commands], final });
      msgId++;
      return answer;
    };
    /** Sends the next chunk of an object of 1 MiB, or the last one. */
    const chunk = (bytes = chunkBytes, last = false, size = 1_000_000) =>
      send([
        {
          name: 'Alert',
          cmdId: '1',
          data: 1226,
          items: [
            {
              source: { locUri: './Big' },
              meta: { size },
              data: Buffer.alloc(bytes, 'x'),
              ...(!last && { moreData: true as const }),
            },
          ],
        },
      ]);
    return { name, send, chunk };
  };
  const isOpen = (name: string) =>
    [...table.values()].some(({ owner, session }) => owner === name && !session.outcome);
  const held = () => [...table.values()].reduce((sum, { session }) => sum + session.weight, 0);
  return { clock, table, open, ended, isOpen, held };
}

/** Sends chunks until the table takes no more. */
async function fill({ chunk }: Awaited<ReturnType<ReturnType<typeof desk>['open']>>, most = 100) {
  for (let sent = 0; sent < most; sent++)
    try {
      await chunk();
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'unavailable');
      return sent;
    }
  return most;
}

describe('sessions that hold objects which never end', () => {
  test('hold the pool at most, and one with little goes on whatever they do', async () => {
    const it = desk();
    const small = await it.open('small');
    let sent = 0;
    for (let at = 0; at < 40; at++) sent += await fill(await it.open(`big ${at}`), 2);
    assert.ok(sent < 80, 'the pool was met');
    assert.ok(it.table.pooled <= pool && it.table.pooled > pool - 2 * chunkBytes, `${it.table.pooled}`);
    assert.ok(it.held() <= pool + 41 * share);
    for (let at = 0; at < 20; at++) await small.chunk(100);
    assert.equal((await it.open('newcomer')).name, 'newcomer');
    assert.deepEqual(it.ended, [], 'nobody was ended for another one');
  });

  test('a message that was refused is taken later, and its object is complete', async () => {
    const it = desk();
    const device = await it.open('device');
    await device.chunk(20_000, false, 40_000);
    const others = [];
    for (let at = 0; at < 15; at++) others.push(await it.open(`big ${at}`));
    for (const other of others) await fill(other, 2);
    await assert.rejects(device.chunk(20_000, true, 40_000), { code: 'unavailable' });
    assert.ok(it.isOpen('device'));
    it.clock.advance(limits.silent);
    await device.chunk(20_000, true, 40_000);
    await turn();
    assert.ok(it.isOpen('device'));
    assert.ok(it.ended.length > 0 && it.ended.every((one) => /^big \d+ 420$/.test(one)));
  });

  test('of those that are silent the largest gives way, and no more than is needed', async () => {
    const it = desk();
    const names = ['middle', 'largest', 'least'];
    const opened = [];
    for (const name of names) opened.push(await it.open(name));
    const [middle, largest, least] = opened as [(typeof opened)[0], (typeof opened)[0], (typeof opened)[0]];
    await fill(middle, 5);
    await fill(least, 2);
    await fill(largest, 100);
    it.clock.advance(limits.silent);
    const device = await it.open('device');
    await fill(device, 3);
    await turn();
    assert.deepEqual(it.ended, ['largest 420']);
  });

  test('one with more than an eighth of the pool gives way to a smaller one, at once', async () => {
    const it = desk();
    await fill(await it.open('greedy'));
    const device = await it.open('device');
    assert.equal(await fill(device, 2), 2);
    await turn();
    assert.deepEqual(it.ended, ['greedy 420']);
  });

  test('those that keep their bytes for minutes give way, although they are never silent', async () => {
    const it = desk();
    const keepers = [];
    for (let at = 0; at < 12; at++) keepers.push(await it.open(`keeper ${at}`));
    for (const keeper of keepers) await fill(keeper, 2);
    for (let passed = 0; passed < limits.bytes.keep; passed += 5000) {
      it.clock.advance(5000);
      for (const { name, send } of keepers)
        if (it.isOpen(name))
          await send([{ name: 'Alert', cmdId: '1', data: 1222, items: [] }]).catch(() => {});
    }
    const device = await it.open('device');
    assert.equal(await fill(device, 2), 2);
    await turn();
    assert.ok(it.isOpen('device'));
  });

  test('a session that has ended holds nothing of the pool', async () => {
    const it = desk();
    await fill(await it.open('a'));
    await it.table.end(() => true, 514, 'test');
    assert.equal(it.table.pooled, 0);
    await fill(await it.open('b'));
    it.clock.advance(limits.idle);
    await turn();
    assert.equal(it.table.pooled, 0);
  });
});

describe('one session', () => {
  test('that is sent results without end ends with 413, at its own bound', async () => {
    const { device, dm } = noncePair();
    const session = server(dm, {
      sessionId: '1',
      work: async function* () {
        yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    const answer = await session.receive(client(device, { sessionId: '1' }).start());
    const get = answer.commands.find(({ name }) => name === 'Get')!;
    const header = {
      verDtd: '1.2',
      verProto: 'DM/1.2',
      sessionId: '1',
      target: { locUri: 'dm.example' },
      source: { locUri: 'urn:dev:1' },
    };
    let most = 0;
    for (let msgId = 2; msgId < 1000 && !session.outcome; msgId++) {
      const items = Array.from({ length: 60 }, () => ({ source: { locUri: './x' }, data: 'x'.repeat(1000) }));
      await session.receive({
        header: { ...header, msgId },
        commands: [
          {
            name: 'Results',
            cmdId: '1',
            msgRef: 1,
            cmdRef: get.cmdId,
            items,
            targetRefs: [],
            sourceRefs: [],
          },
        ],
        final: false,
      });
      most = Math.max(most, session.weight);
    }
    assert.equal(session.outcome?.status, 413);
    assert.ok(most <= weightBound && most > weightBound / 2, `${most}`);
    assert.ok(session.weight < share, `${session.weight} bytes are left of it`);
  });

  test('that lets statuses pile up by taking small messages ends with 413', async () => {
    const { device, dm } = noncePair();
    const session = server(dm, {
      sessionId: '1',
      work: async function* () {
        for (;;) yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    const first = client(device, { sessionId: '1' }).start();
    await session.receive({ ...first, header: { ...first.header, meta: { maxMsgSize: 600 } } });
    let weight = 0;
    for (let msgId = 2; msgId < 1000 && !session.outcome; msgId++) {
      const commands = Array.from(
        { length: 1000 },
        (_, at): Command => ({ name: 'Alert', cmdId: `${at + 1}`, data: 1226, items: [] }),
      );
      await session.receive({
        header: { ...first.header, msgId, meta: { maxMsgSize: 600 } },
        commands,
        final: false,
      });
      weight = Math.max(weight, session.weight);
    }
    assert.equal(session.outcome?.status, 413);
    assert.ok(weight <= weightBound);
  });

  test('leaves of DevInfo beyond a number, and beyond a length, are not kept', async () => {
    const { device, dm } = noncePair();
    const session = server(dm, {
      sessionId: '1',
      work: async function* ({ devInfo }) {
        assert.equal(Object.keys(devInfo).length, 32);
        assert.equal(devInfo.Man?.length, 5);
        yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    const first = client(device, { sessionId: '1' }).start();
    const items = Array.from({ length: 500 }, (_, at) => ({
      source: { locUri: `./DevInfo/Ext${at}` },
      data: 'x'.repeat(400),
    }));
    await session.receive({
      ...first,
      commands: [...first.commands, { name: 'Replace', cmdId: '99', items }],
    });
    assert.equal(session.outcome, undefined);
    assert.ok(session.weight < share);
  });
});

test('whatever devices do, the bound of all holds', async () => {
  const seed = Number(process.env.SEED ?? Date.now() & 0x7fff_ffff);
  const step = fc.record({
    who: fc.nat(15),
    what: fc.constantFrom('open', 'chunk', 'chunk', 'chunk', 'last', 'ask', 'wait'),
    bytes: fc.integer({ min: 1, max: 60_000 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 50, maxLength: 150 }), async (steps) => {
      const it = desk();
      const devices = new Map<number, Awaited<ReturnType<typeof it.open>>>();
      const refused = (error: { code?: string }) => assert.equal(error.code, 'unavailable');
      for (const { who, what, bytes } of steps) {
        const device = devices.get(who);
        if (what === 'wait') it.clock.advance(bytes);
        else if (!device || what === 'open' || !it.isOpen(device.name)) {
          const opened = await it.open(`device ${who}`).catch(refused);
          if (opened) devices.set(who, opened);
        } else if (what === 'ask')
          await device.send([{ name: 'Alert', cmdId: '1', data: 1222, items: [] }]).catch(refused);
        else await device.chunk(bytes, what === 'last').catch(refused);
        assert.ok(it.table.pooled <= pool, `${it.table.pooled} bytes`);
        assert.ok(it.held() <= pool + devices.size * share);
      }
    }),
    { numRuns: 25, seed },
  );
});
