import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pskSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { clientAt, isOpen, key, once, Pair, type Passing, type Path, pathFaults, serverAt } from './pair.ts';

describe('a handshake in each cipher suite', () => {
  for (const suite of pskSuites)
    for (const wantsCid of [true, false])
      test(`${suite.name}${wantsCid ? ' with connection IDs' : ''}`, async () => {
        const pair = new Pair({ client: { suites: [suite] } });
        const outcome = await pair.connect({ wantsCid });
        assert.ok(isOpen(outcome), JSON.stringify(outcome));
        assert.equal(outcome.association.suite, suite);
        assert.equal(outcome.association.ownCid !== undefined, wantsCid);
        assert.equal(pair.atServerSide?.identity, 'device');
        for (const text of ['a', 'b'.repeat(1000), '']) assert.ok(pair.talk(text), text);
        assert.deepEqual(pair.server.footprint.halfOpen, 0);
        pair.clock.advance(10_000);
        assert.equal(pair.clock.timers, 0, 'no timer is left');
      });
});

test('without a cookie the server keeps nothing, and answers with less than it got', async () => {
  const pair = new Pair({
    path: ({ from, bytes, index }) => (from === 'client' && index > 0 ? [] : [bytes]),
  });
  await pair.connect();
  const [hello, answer] = pair.sent;
  assert.equal(answer?.from, 'server');
  assert.ok(answer.bytes.length < hello!.bytes.length);
  assert.deepEqual(pair.server.footprint, {
    associations: 0,
    sessions: 0,
    halfOpen: 0,
    outgoing: 0,
    lingering: 0,
  });
  // The path let the first flight alone through, so the server's own time-outs were never armed.
  assert.equal(pair.told.length, 0);
});

test('a cookie is of no use at another address, with another hello, or after two lifetimes of the secret', async () => {
  const pair = new Pair({
    path: ({ from, bytes, index }) => (from === 'client' && index > 0 ? [] : [bytes]),
  });
  await pair.connect();
  const second = pair.sent.filter(({ from }) => from === 'client')[1]!;
  const halfOpen = () => pair.server.footprint.halfOpen;
  pair.clock.advance(1000);
  const answers = pair.sent.length;
  pair.inject('client', second.bytes, { ...clientAt, address: '192.0.2.3', port: 40_000 });
  pair.inject('client', second.bytes, { ...clientAt, address: '192.0.2.2', port: 40_001 });
  const other = Buffer.from(second.bytes);
  other[30]! ^= 1; // in the client's random
  pair.inject('client', other);
  assert.equal(halfOpen(), 0);
  assert.equal(pair.sent.length, answers + 3, 'each gets a cookie of its own');
  const fresh = new Pair({
    path: ({ from, bytes, index }) => (from === 'client' && index > 0 ? [] : [bytes]),
  });
  fresh.client.connect(serverAt, { identity: 'device', key }).catch(() => {});
  fresh.settle();
  const greeting = fresh.sent.filter(({ from }) => from === 'client')[1]!;
  fresh.inject('client', greeting.bytes);
  assert.equal(fresh.server.footprint.halfOpen, 1, 'right at its own');
  fresh.clock.advance(120_000);
  assert.equal(fresh.server.footprint.halfOpen, 0);
  fresh.inject('client', greeting.bytes);
  assert.equal(fresh.server.footprint.halfOpen, 0, 'too old');
  fresh.client.stop();
});

describe('a path that loses, doubles, turns round and cuts', () => {
  const flights = [0, 1, 2, 3];
  for (const [name, fault] of Object.entries(pathFaults))
    for (const from of ['client', 'server'] as const)
      for (const index of flights)
        test(`${from}'s datagram ${index} is ${name}`, async () => {
          const pair = new Pair({ path: once((each) => each.from === from && each.index === index, fault) });
          const outcome = await pair.connect();
          assert.ok(isOpen(outcome), JSON.stringify(outcome));
          for (let second = 0; second < 3 && !pair.talk('x'); second++) {
            pair.clock.advance(1000);
            pair.settle();
          }
          assert.ok(pair.talk('y'));
          assert.deepEqual(pair.told, ['opened device']);
        });

  test('each record is a datagram of its own, and arrives in reverse order', async () => {
    let held: Buffer[] = [];
    const pair = new Pair();
    pair.path = ({ bytes }) => {
      held = [];
      for (let at = 0; at < bytes.length; ) {
        const withCid = bytes[at] === 25 ? 6 : 0;
        const end = at + 13 + withCid + bytes.readUInt16BE(at + 11 + withCid);
        held.unshift(bytes.subarray(at, end));
        at = end;
      }
      return held;
    };
    const outcome = await pair.connect();
    assert.ok(isOpen(outcome), JSON.stringify(outcome));
    assert.ok(pair.clock.now() < 2000, 'without a time-out');
    assert.ok(pair.talk('x'));
  });

  test('a random path: lost, doubled and late', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      let state = seed * 7919;
      const random = () => {
        state = (state * 1103515245 + 12345) & 0x7fffffff;
        return state / 0x7fffffff;
      };
      const late: Record<Passing['from'], Buffer[]> = { client: [], server: [] };
      const pair = new Pair({ seed });
      const calm: Path = ({ bytes }) => [bytes];
      pair.path = ({ from, bytes, index }) => {
        if (index > 20 || index % 3 === 2) return [bytes];
        const dice = random();
        if (dice < 0.2) return [];
        if (dice < 0.3) return [bytes, bytes];
        if (dice < 0.4) {
          late[from].push(bytes);
          return [];
        }
        return [bytes, ...late[from].splice(0)];
      };
      const outcome = await pair.connect();
      assert.ok(isOpen(outcome), `seed ${seed}: ${'message' in outcome && outcome.message} ${pair.told}`);
      pair.path = calm;
      for (let second = 0; second < 70 && !pair.talk(`x${second}`); second++) {
        pair.clock.advance(1000);
        pair.settle();
      }
      assert.ok(pair.talk('y'), `seed ${seed}`);
    }
  });
});

test('each byte of each flight flipped: no false success, no throw, and the next handshake succeeds', async () => {
  const plain = new Pair();
  await plain.connect();
  const lengths = plain.sent.map(({ bytes }) => bytes.length);
  for (const [number, length] of lengths.entries())
    for (let at = 0; at < length; at++) {
      let count = 0;
      const pair = new Pair({
        path: ({ bytes }) => {
          if (count++ !== number) return [bytes];
          const flipped = Buffer.from(bytes);
          flipped[at]! ^= 1 << (at % 8);
          return [flipped];
        },
      });
      const outcome = await pair.connect();
      const where = `byte ${at} of datagram ${number}`;
      if (isOpen(outcome)) {
        pair.clock.advance(1100);
        pair.settle();
        assert.ok(pair.talk('x'), where);
        continue;
      }
      const again = await pair.connect();
      assert.ok(isOpen(again), `${where}: ${JSON.stringify(outcome)} then ${JSON.stringify(again)}`);
      assert.ok(pair.talk('x'), where);
    }
});

describe('a wrong key and an unknown identity', () => {
  const attempt = async (credentials: { identity: string; key: Buffer }) => {
    const pair = new Pair();
    const outcome = await pair.connect(credentials);
    assert.ok(!isOpen(outcome));
    const shapes = pair.sent.map(({ from, bytes }) => `${from} ${bytes.length}`);
    return { outcome, shapes, told: pair.told, left: pair.server.footprint };
  };

  test('get the same answers at the same times', async () => {
    const wrong = await attempt({ identity: 'device', key: Buffer.from('0123456789abcdeX') });
    const unknown = await attempt({ identity: 'devicf', key });
    assert.deepEqual(unknown, wrong);
    assert.equal((wrong.outcome as { code: string }).code, 'forbidden');
    assert.equal(wrong.left.associations, 0);
  });

  test('leave the association that there is', async () => {
    const pair = new Pair();
    assert.ok(isOpen(await pair.connect()));
    const before = pair.atServerSide;
    const intruder = pair.connect({ key: Buffer.from('0123456789abcdeX') });
    assert.ok(!isOpen(await intruder));
    assert.equal(pair.atServerSide, before);
    assert.ok(pair.talk('still there'));
  });
});

test('suites that do not meet end with an alert at once', async () => {
  const pair = new Pair({
    client: { suites: pskSuites.slice(0, 1) },
    server: { suites: pskSuites.slice(1) },
  });
  const outcome = await pair.connect();
  assert.ok(!isOpen(outcome));
  assert.equal(outcome.code, 'forbidden');
  assert.match(outcome.message, /alert 40/);
  assert.deepEqual(pair.told, ['refused: no cipher suite suits both']);
});

test('a server without answer is given up after a minute', async () => {
  const pair = new Pair({ path: () => [] });
  const start = pair.clock.now();
  const outcome = await pair.connect();
  assert.equal((outcome as { code: string }).code, 'timeout');
  assert.ok(Math.abs(pair.clock.now() - start - 64_000) < 2000, `${pair.clock.now() - start} ms`);
  assert.equal(pair.sent.length, 6);
  assert.equal(pair.client.footprint.outgoing, 0);
  pair.clock.advance(1000);
  assert.equal(pair.clock.timers, 0, 'no timer is left');
});
