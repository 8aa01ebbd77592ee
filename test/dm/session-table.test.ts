import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { noEvents } from '../../src/base/events.ts';
import type { Account, Scheme, Seal } from '../../src/dm/authentication.ts';
import { Challenges, challengeLifetime } from '../../src/dm/challenges.ts';
import type { ClientSession } from '../../src/dm/client-session.ts';
import { statusOf } from '../../src/dm/replies.ts';
import { SessionTable, type SessionTableLimits } from '../../src/dm/session-table.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { HandClock } from '../hand-clock.ts';
import { turn } from '../wire/coap/wire.ts';
import { client, clientAccount, noncePair, server, serverAccount, statusesOf } from './parties.ts';

const limits: SessionTableLimits = {
  sessions: 3,
  idle: 60_000,
  silent: 10_000,
  bytes: { share: 16_384, pool: 1_048_576, keep: 300_000 },
};
/** The session ID that all sessions of the device have. */
const sessionId = '5';
const home = '192.0.2.7|5683';
const elsewhere = '192.0.2.66|5683';

const withSchemes = (account: Account, schemes: readonly Scheme[]): Account => ({
  own: { ...account.own, schemes },
  peer: { ...account.peer, schemes },
});

/** A DM server with a table, and what goes into it. */
function desk(schemes: readonly Scheme[] = ['md5'], bounds = limits) {
  const clock = new HandClock();
  const { device, dm } = noncePair();
  const abandoned: string[] = [];
  const done: string[] = [];
  let broken = 0;
  const table = new SessionTable<string>({
    events: noEvents,
    clock,
    limits: bounds,
    abandoned: (owner, status) => abandoned.push(`${owner} ${status}`),
  });
  let count = 0;
  const challenges = new Challenges(clock, seededEntropy(7));
  const begin = (key: string, firstMsgId: number) => () => ({
    session: server(dm, {
      sessionId,
      challenge: challenges.of(key, dm.peer),
      firstMsgId,
      entropy: seededEntropy(100 + count),
      account: withSchemes(serverAccount(dm), schemes),
      work: async function* () {
        let isWhole = false;
        try {
          yield [{ name: 'Get', uri: './Site/Name' }];
          done.push('asked');
          yield [{ name: 'Replace', uri: './Site/Name', data: 'south' }];
          done.push('written');
          isWhole = true;
        } finally {
          if (!isWhole) broken++;
        }
      },
    }),
    owner: `${key} ${++count}`,
  });
  /** Gives the server a message. `place` is where the table put it. */
  const take = async (
    message: SyncmlMessage,
    { sender = home, hmacOf, key = 'device' }: Way = {},
  ): Promise<Taken> => {
    const body = encodeMessage(message, MediaType.Cbor);
    const seal = { body, hmac: hmacOf?.seal(body) };
    const arrived = decodeMessage(body, MediaType.Cbor);
    const arrival = { key, associations: [sender], message: arrived, seal };
    const found = table.find(arrival, begin(key, arrived.header.msgId));
    const { session, owner, place } = found;
    const answer = place === 'stranger' ? session.refuse(arrived, seal) : await table.receive(arrival, found);
    const coded = encodeMessage(answer, MediaType.Cbor);
    return {
      answer: decodeMessage(coded, MediaType.Cbor),
      seal: { body: coded, hmac: session.seal(coded) },
      status: statusesOf(answer).find((status) => status.startsWith('SyncHdr')) ?? '',
      owner,
      place,
    };
  };
  /** The device as it is after power came back: with its stored nonces, or with none. */
  const powerUp = (nonces = device) =>
    client(nonces, {
      sessionId,
      account: withSchemes(clientAccount(nonces), schemes),
      // A device that sends its password at once.
      isPeerVerified: true,
    });
  return {
    clock,
    table,
    take,
    powerUp,
    device,
    dm,
    abandoned,
    done,
    made: () => count,
    broken: () => broken,
  };
}

interface Way {
  readonly sender?: string;
  readonly hmacOf?: ClientSession;
  readonly key?: string;
}
interface Taken {
  readonly answer: SyncmlMessage;
  readonly seal: Seal;
  /** Status of the message's header, such as `SyncHdr 212`. */
  readonly status: string;
  readonly owner: string;
  readonly place: 'new' | 'next' | 'repeated' | 'stranger';
}

/** Carries a session on from a message of the device until it ends, or until a number of messages went. */
async function goOn(
  { take }: Pick<ReturnType<typeof desk>, 'take'>,
  device: ClientSession,
  from: SyncmlMessage,
  messages = 20,
): Promise<{ next: SyncmlMessage | undefined; last: Taken | undefined }> {
  let next: SyncmlMessage | undefined = from;
  let last: Taken | undefined;
  for (let sent = 0; next && sent < messages; sent++) {
    last = await take(next, { hmacOf: device });
    next = await device.receive(last.answer, last.seal);
  }
  return { next, last };
}

/** What someone without a credential may send. */
const forged = (msgId: number, more: Partial<SyncmlMessage['header']> = {}): SyncmlMessage => ({
  header: {
    verDtd: '1.2',
    verProto: 'DM/1.2',
    sessionId,
    msgId,
    target: { locUri: 'dm.example' },
    source: { locUri: 'urn:dev:1' },
    ...more,
  },
  commands: [{ name: 'Alert', cmdId: '1', data: 1201, items: [] }],
  final: true,
});
const wrongCredential = {
  cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: 'AAAAAAAAAAAAAAAAAAAAAA==' },
};

describe('a device with one session ID loses its power in a session', () => {
  for (const scheme of ['md5', 'basic', 'mac'] as const)
    for (const messages of [1, 2, 3])
      test(`${scheme}, after message ${messages}: the session begins anew at once`, async () => {
        const it = desk([scheme]);
        const first = it.powerUp();
        await goOn(it, first, first.start(), messages);
        const again = it.powerUp();
        await goOn(it, again, again.start());
        assert.equal(again.outcome?.status, 200);
        await turn();
        const live = [...it.table.values()].filter(({ session }) => !session.outcome);
        assert.deepEqual(it.done.slice(-2), ['asked', 'written']);
        assert.equal(live.length, 0, 'the broken session is not open any more');
      });

  test('md5, and its nonces are lost too: the open session goes on until the device has proved itself', async () => {
    const it = desk();
    const first = it.powerUp();
    const { next } = await goOn(it, first, first.start(), 1);
    const blank = it.powerUp({ own: Buffer.from('none'), peer: Buffer.from('none') });
    const challenged = await it.take(blank.start());
    assert.equal(challenged.status, 'SyncHdr 401');
    assert.deepEqual(it.abandoned, [], 'nothing is ended by a message without a proof');
    // The first session could still go on.
    assert.equal((await it.take(next!, { hmacOf: first })).owner, 'device 1');
    const proof = await blank.receive(challenged.answer, challenged.seal);
    await goOn(it, blank, proof!);
    assert.equal(blank.outcome?.status, 200);
    await turn();
    assert.deepEqual(it.abandoned, ['device 1 514']);
  });

  test('its work of the broken session ends, and that of the new one is whole', async () => {
    const it = desk();
    const first = it.powerUp();
    await goOn(it, first, first.start(), 2);
    const again = it.powerUp();
    await goOn(it, again, again.start());
    await turn();
    assert.deepEqual([it.broken(), it.abandoned], [1, ['device 1 514']]);
  });

  test('it retries for minutes while its proof is wrong: the open session ends at its own time', async () => {
    const it = desk();
    const first = it.powerUp();
    await goOn(it, first, first.start(), 2);
    for (let second = 0; second < 59; second++) {
      await it.take(forged(1, wrongCredential));
      await it.take(forged(2, wrongCredential));
      it.clock.advance(1000);
    }
    assert.ok(!it.abandoned.includes('device 1 408'));
    it.clock.advance(1000);
    await turn();
    assert.ok(it.abandoned.includes('device 1 408'), 'no retry has prolonged it');
  });
});

describe('a device changes its address in a session', () => {
  for (const [scheme, place] of [
    ['mac', 'next'],
    ['md5', 'stranger'],
  ] as const)
    test(`${scheme}: ${place === 'next' ? 'each message proves itself, so the session goes on' : 'it is challenged, and the session begins anew'}`, async () => {
      const it = desk([scheme]);
      const device = it.powerUp();
      const { next } = await goOn(it, device, device.start(), 1);
      const moved = await it.take(next!, { sender: elsewhere, hmacOf: device });
      assert.equal(moved.place, place);
      if (place === 'stranger') assert.equal(moved.status, 'SyncHdr 407');
    });
});

test('a device changes its address while it is challenged: the session goes on from there', async () => {
  const it = desk();
  const device = it.powerUp({ own: Buffer.from('none'), peer: Buffer.from('none') });
  let taken = await it.take(device.start());
  for (let message = 2; message < 10 && !device.outcome; message++) {
    const next = await device.receive(taken.answer, taken.seal);
    if (next) taken = await it.take(next, { sender: elsewhere });
  }
  assert.equal(device.outcome?.status, 200);
  assert.deepEqual(it.done, ['asked', 'written']);
});

describe('someone without a credential', () => {
  const attempts = [
    ['MsgID 900', forged(900)],
    ['MsgID 1', forged(1)],
    ['MsgID 1 with a wrong credential', forged(1, wrongCredential)],
    ['MsgID 0', forged(0)],
    ['the last MsgID', forged(2)],
    ['the next MsgID', forged(3)],
    ['the next MsgID with a wrong credential', forged(3, wrongCredential)],
  ] as const;
  for (const [what, message] of attempts)
    for (const scheme of ['md5', 'basic', 'mac'] as const)
      test(`${scheme}: ${what} from elsewhere changes nothing in a session`, async () => {
        const it = desk([scheme]);
        const device = it.powerUp();
        const { next } = await goOn(it, device, device.start(), 2);
        const nonces = { ...it.dm };
        for (let times = 0; times < 10; times++) {
          const { status } = await it.take(message, { sender: elsewhere });
          assert.match(status, /^SyncHdr 40[17]$/);
        }
        assert.deepEqual(it.dm, nonces);
        await goOn(it, device, next!);
        assert.equal(device.outcome?.status, 200);
        assert.deepEqual(it.done, ['asked', 'written']);
        assert.ok(!it.abandoned.includes('device 1 420'));
      });

  test('even from the address of the device, only the very next MsgID gets into a session, and none with MAC', async () => {
    for (const [what, message] of attempts.filter(([what]) => !what.startsWith('the next'))) {
      const it = desk();
      const device = it.powerUp();
      const { next } = await goOn(it, device, device.start(), 2);
      await it.take(message);
      await goOn(it, device, next!);
      assert.equal(device.outcome?.status, 200, what);
    }
    for (const [what, message] of attempts) {
      const it = desk(['mac']);
      const device = it.powerUp();
      const { next } = await goOn(it, device, device.start(), 2);
      await it.take(message);
      await goOn(it, device, next!);
      assert.equal(device.outcome?.status, 200, what);
    }
  });

  test('from the address of a device that is being challenged: the proof finds its challenge', async () => {
    const it = desk();
    const device = it.powerUp({ own: Buffer.from('none'), peer: Buffer.from('none') });
    const { answer, seal } = await it.take(device.start());
    await it.take(forged(1));
    await it.take(forged(1, wrongCredential));
    const proof = await device.receive(answer, seal);
    assert.equal((await it.take(proof!)).status, 'SyncHdr 212');
  });

  test('a repetition from elsewhere gets no answer of the session', async () => {
    const it = desk();
    const device = it.powerUp();
    const opening = device.start();
    await it.take(opening);
    const own = await it.take(opening);
    assert.deepEqual([own.place, own.owner], ['repeated', 'device 1']);
    const replayed = await it.take(opening, { sender: elsewhere });
    assert.deepEqual([replayed.place, replayed.status], ['stranger', 'SyncHdr 401']);
    assert.equal([...it.table.values()].filter(({ session }) => session.authenticated).length, 1);
  });

  test('an acceptance without a proof does not change the nonce of the server', async () => {
    const it = desk();
    const before = Buffer.from(it.dm.own);
    await it.take(forged(1), { sender: elsewhere });
    const acceptance: SyncmlMessage = {
      ...forged(2),
      commands: [
        {
          ...statusOf(1, '0', 'SyncHdr', 212, {
            chal: { meta: { format: 'b64', type: 'syncml:auth-md5', nextNonce: Buffer.from('theirs') } },
          }),
          cmdId: '1',
        },
      ],
    };
    await it.take(acceptance, { sender: elsewhere });
    assert.deepEqual(Buffer.from(it.dm.own), before);
  });
});

describe('bounds', () => {
  const keyOf = (number: number) => `key ${number}`;

  test('messages that prove nothing take no place, whatever they are and however many', async () => {
    const it = desk();
    const gets = Array.from({ length: 1000 }, (_, at) => ({
      name: 'Get' as const,
      cmdId: String(at + 1),
      items: [{ target: { locUri: './DevInfo' } }],
    }));
    for (let number = 0; number < 300; number++) {
      const message = { ...forged(1 + (number % 3)), commands: gets };
      const { answer } = await it.take(message, { sender: `198.51.100.${number}|1` });
      assert.ok(answer.commands.length <= 18, 'no work for each command');
    }
    assert.deepEqual([[...it.table.values()].length, it.abandoned.length, it.clock.timers], [0, 0, 0]);
    const device = it.powerUp();
    await goOn(it, device, device.start());
    assert.equal(device.outcome?.status, 200);
  });

  test('the more are refused within a second, the later they shall come again, and not all at once', async () => {
    const it = desk();
    const refusedFor = async (number: number) => {
      try {
        await it.take(it.powerUp().start(), { key: keyOf(number) });
      } catch (thrown) {
        return thrown instanceof PosternError ? thrown.retryAfter : undefined;
      }
      return undefined;
    };
    for (let number = 0; number < limits.sessions; number++) {
      const device = it.powerUp();
      const first = await it.take(device.start(), { key: keyOf(number) });
      const next = await device.receive(first.answer, first.seal);
      await it.take(next!, { key: keyOf(number) });
    }
    const waits: (number | undefined)[] = [];
    for (let number = 0; number < 20; number++) waits.push(await refusedFor(100 + number));
    // Three places: three may have them after a second, the next three after two.
    assert.deepEqual(waits, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, ...Array(8).fill(5)]);
    it.clock.advance(1000);
    assert.equal(await refusedFor(200), 1, 'another second');
  });

  test('session IDs that are predicted, and opened ahead with any MsgID, do not shut out the device', async () => {
    for (const scheme of ['md5', 'basic', 'mac'] as const) {
      const it = desk([scheme]);
      for (const sender of [home, elsewhere])
        for (const msgId of [900, 2, 1, 1023]) await it.take(forged(msgId, wrongCredential), { sender });
      const blank = it.powerUp({ own: Buffer.from('none'), peer: Buffer.from('none') });
      await goOn(it, blank, blank.start());
      assert.equal(blank.outcome?.status, 200, scheme);
    }
  });

  test('a challenge is good for one proof, and not longer than two minutes', async () => {
    const it = desk();
    const proofOf = async () => {
      const blank = it.powerUp({ own: Buffer.from('none'), peer: Buffer.from('none') });
      const { answer, seal } = await it.take(blank.start());
      return { blank, proof: (await blank.receive(answer, seal))! };
    };
    const { blank, proof } = await proofOf();
    assert.equal((await it.take(proof)).status, 'SyncHdr 212');
    await it.table.end(() => true, 514, 'test');
    assert.deepEqual((await it.take(proof, { sender: elsewhere })).place, 'stranger', 'overheard');
    assert.ok(!blank.outcome);
    const late = await proofOf();
    it.clock.advance(2 * challengeLifetime);
    assert.equal((await it.take(late.proof)).place, 'stranger');
    const intime = await proofOf();
    it.clock.advance(challengeLifetime);
    assert.equal((await it.take(intime.proof)).place, 'new');
  });

  test('a session gives way to one with a proof only, and only after a silence', async () => {
    const it = desk();
    const open = async (number: number) => {
      const device = it.powerUp();
      const first = await it.take(device.start(), { key: keyOf(number) });
      const next = await device.receive(first.answer, first.seal);
      const second = await it.take(next!, { key: keyOf(number) });
      await device.receive(second.answer, second.seal);
      return first;
    };
    for (let number = 0; number < limits.sessions; number++)
      assert.equal((await open(number)).status, 'SyncHdr 212');
    const made = it.made();
    await assert.rejects(open(10), { code: 'unavailable', retryAfter: 1 });
    assert.equal(it.made(), made, 'no session is made for a message that is refused');
    it.clock.advance(limits.silent);
    for (let number = 20; number < 40; number++) {
      await it.take(forged(1), { sender: `198.51.100.${number}|1`, key: keyOf(number) }).catch(() => {});
      await turn();
    }
    assert.ok(!it.abandoned.some((one) => one.startsWith('key 0')), 'not for one that proved nothing');
    assert.equal((await open(10)).status, 'SyncHdr 212');
    await turn();
    assert.ok(it.abandoned.includes('key 0 1 420'));
  });

  test('a session that has ended is kept for its idle time, whatever comes', async () => {
    const it = desk();
    const device = it.powerUp();
    await goOn(it, device, device.start());
    for (let msgId = 4; msgId < 10; msgId++) {
      it.clock.advance(limits.idle / 6 - 1);
      assert.equal((await it.take(forged(msgId))).owner, 'device 1');
    }
    it.clock.advance(6);
    assert.deepEqual([[...it.table.values()].length, it.clock.timers], [0, 0]);
  });

  test('every session ends at a stop, a message that comes later begins none, and no timer stays', async () => {
    const it = desk();
    const device = it.powerUp();
    await it.take(device.start());
    await it.table.stop('the server stops');
    await assert.rejects(it.take(it.powerUp().start()), { code: 'unavailable', message: 'the server stops' });
    assert.deepEqual([[...it.table.values()].length, it.clock.timers], [0, 0]);
    assert.deepEqual(it.abandoned.toSorted(), ['device 1 514']);
  });

  test('work that fails at its end does not stop the others from ending', async () => {
    const clock = new HandClock();
    const reasons: string[] = [];
    const { device, dm } = noncePair();
    const table = new SessionTable<number>({
      events: noEvents,
      clock,
      limits,
      abandoned: (_owner, _status, reason) => reasons.push(reason),
    });
    const body = encodeMessage(client(device).start(), MediaType.Cbor);
    const message = decodeMessage(body, MediaType.Cbor);
    const { session } = table.find({ key: 'a', associations: ['a'], message, seal: { body } }, () => ({
      session: server(dm, {
        work: async function* () {
          try {
            yield [{ name: 'Get', uri: './Site/Name' }];
          } finally {
            // biome-ignore lint/correctness/noUnsafeFinally: this is the fault
            throw new Error('the disk is full');
          }
        },
      }),
      owner: 1,
    }));
    await session.receive(message, { body });
    clock.advance(limits.idle);
    await turn();
    assert.deepEqual(reasons, ['the disk is full']);
  });
});

test('whatever is sent from elsewhere, and however often the power fails, the device gets its session', async () => {
  const intrusion = fc.record({
    msgId: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.constant(900)),
    isTried: fc.boolean(),
    sender: fc.constantFrom(elsewhere, '198.51.100.1|1'),
  });
  const scheme = fc.constantFrom<Scheme>('md5', 'basic', 'mac');
  /** Messages until the power fails, and how many intrusions come before each. */
  const lives = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(scheme, lives, fc.array(intrusion, { maxLength: 40 }), async (one, failures, others) => {
      const it = desk([one]);
      const intrude = async () => {
        for (const { msgId, isTried, sender } of others.splice(0, 4))
          await it
            .take(forged(msgId, isTried ? wrongCredential : {}), { sender })
            .catch((thrown) => assert.equal(thrown.code, 'unavailable'));
      };
      for (const life of [...failures, 20]) {
        const device = it.powerUp();
        let next: SyncmlMessage | undefined = device.start();
        for (let sent = 0; next && sent < life; sent++) {
          await intrude();
          const { answer, seal } = await it.take(next, { hmacOf: device });
          await intrude();
          next = await device.receive(answer, seal);
        }
        if (life === 20) assert.equal(device.outcome?.status, 200);
      }
    }),
    { numRuns: 300 },
  );
});
