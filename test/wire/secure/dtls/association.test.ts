import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../../../src/base/entropy.ts';
import { ContentType, plainRecord } from '../../../../src/wire/secure/dtls/record.ts';
import { pskSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { clientAt, isOpen, key, Pair, type PairOptions, type Passing, serverAt } from './pair.ts';

async function opened(options: PairOptions = {}, credentials = {}): Promise<Pair> {
  const pair = new Pair(options);
  const outcome = await pair.connect(credentials);
  assert.ok(isOpen(outcome), JSON.stringify(outcome));
  return pair;
}
const lastOf = (pair: Pair, from: Passing['from']) => pair.sent.findLast((each) => each.from === from)!.bytes;

for (const suite of [pskSuites[0]!, pskSuites.at(-1)!])
  for (const wantsCid of [true, false])
    describe(`records of ${suite.name}${wantsCid ? ' with connection IDs' : ''}`, () => {
      const options = { client: { suites: [suite] } };

      test('a repeated record is dropped, also far behind', async () => {
        const pair = await opened(options, { wantsCid });
        assert.ok(pair.talk('first'));
        const first = lastOf(pair, 'client');
        pair.inject('client', first);
        for (let count = 0; count < 100; count++) {
          assert.ok(pair.talk(`more ${count}`));
          pair.inject('client', first);
          pair.inject('client', lastOf(pair, 'client'));
        }
        assert.equal(pair.atServer.length, 101);
      });

      test('records out of order arrive once each', async () => {
        const pair = await opened(options, { wantsCid });
        const held: Buffer[] = [];
        pair.path = ({ bytes, from }) => {
          if (from === 'client') held.push(bytes);
          return from === 'client' ? [] : [bytes];
        };
        for (let count = 0; count < 60; count++) pair.talk(`${count}`);
        for (const bytes of [...held.toReversed(), ...held]) pair.inject('client', bytes);
        assert.deepEqual(
          pair.atServer.toSorted((a, b) => Number(a) - Number(b)),
          held.map((_, count) => `${count}`),
        );
      });

      test('each byte flipped: nothing arrives, and what follows does', async () => {
        const pair = await opened(options, { wantsCid });
        pair.path = () => [];
        pair.talk('secret');
        const record = lastOf(pair, 'client');
        pair.path = ({ bytes }) => [bytes];
        for (let at = 0; at < record.length; at++)
          for (const bit of [0, 7]) {
            const flipped = Buffer.from(record);
            flipped[at]! ^= 1 << bit;
            pair.inject('client', flipped);
          }
        for (let length = 0; length < record.length; length++)
          pair.inject('client', record.subarray(0, length));
        assert.deepEqual(pair.atServer, []);
        pair.inject('client', record);
        assert.deepEqual(pair.atServer, ['secret']);
      });
    });

test('records without protection from the place of the peer bring no data and end nothing', async () => {
  const pair = await opened();
  const before = pair.sent.length;
  const { ChangeCipherSpec, Alert, ApplicationData } = ContentType;
  for (const [type, content] of [
    [ApplicationData, 'forged'],
    [Alert, '\u0001\u0000'],
    [Alert, '\u0002\u0028'],
    [ChangeCipherSpec, '\u0001'],
  ] as const)
    for (const sequence of [0, 5, 2 ** 40]) {
      pair.inject('client', plainRecord(type, sequence, Buffer.from(content)));
      pair.inject('server', plainRecord(type, sequence, Buffer.from(content)));
    }
  assert.deepEqual([pair.atServer, pair.atClient, pair.sent.length], [[], [], before]);
  assert.ok(pair.talk('goes on'));
});

test('renegotiation is refused by a warning', async () => {
  const pair = await opened();
  const association = pair.client.at(serverAt.address, serverAt.port)!;
  const before = pair.sent.length;
  const hello = Buffer.from('0100000000020000000000000000', 'hex');
  pair.inject(
    'client',
    association.seal(22, hello, { bytes: (length) => new Uint8Array(length), uniform: () => 0 }),
  );
  assert.equal(pair.sent.length, before + 1);
  assert.ok(pair.talk('goes on'));
});

test('close_notify ends both ends, and is answered once', async () => {
  const pair = await opened();
  pair.client.close(pair.client.at(serverAt.address, serverAt.port)!);
  pair.settle();
  assert.deepEqual(pair.told, ['opened device', 'closed device: the peer closed it']);
  assert.equal(pair.server.footprint.associations, 0);
  assert.equal(pair.client.footprint.associations, 0);
  assert.equal(pair.server.footprint.lingering, 0);
});

test('a record size limit of the peer holds', async () => {
  const pair = await opened();
  const association = pair.atServerSide!;
  assert.equal(association.peerLimit, 2 ** 14);
  assert.throws(() => pair.server.send(association, Buffer.alloc(2 ** 14 + 1)), /16384/);
});

describe('resumption', () => {
  test('a session with a fatal alert is not resumed', async () => {
    const pair = new Pair();
    const first = await pair.connect();
    assert.ok(isOpen(first));
    const fatalAlert = Buffer.from([2, 40]);
    const entropy = { bytes: (length: number) => new Uint8Array(length), uniform: () => 0 };
    pair.inject('client', first.association.seal(21, fatalAlert, entropy));
    assert.equal(pair.told.at(-1), 'closed device: the peer sent alert 40');
    assert.equal(pair.server.footprint.sessions, 0);
    const second = await pair.connect({ session: first.session });
    assert.ok(isOpen(second));
    assert.notDeepEqual(second.session?.id, first.session?.id);
  });

  test('a session is resumed in a short handshake, with connection IDs of its own', async () => {
    const pair = new Pair();
    const first = await pair.connect();
    assert.ok(isOpen(first));
    const long = pair.sent.length;
    const second = await pair.connect({ session: first.session });
    assert.ok(isOpen(second), JSON.stringify(second));
    assert.equal(pair.sent.length - long, long - 1);
    assert.notEqual(second.association.ownCid, first.association.ownCid);
    assert.ok(pair.talk('again'));
    assert.deepEqual(pair.server.footprint, {
      associations: 1,
      sessions: 1,
      halfOpen: 0,
      outgoing: 0,
      lingering: 0,
    });
    const third = await pair.connect({ session: second.session });
    assert.ok(isOpen(third));
    assert.ok(pair.talk('and again'));
  });

  test('each datagram of a short handshake lost', async () => {
    for (const from of ['client', 'server'] as const)
      for (const index of [0, 1, 2]) {
        const pair = new Pair();
        const first = await pair.connect();
        assert.ok(isOpen(first));
        let count = 0;
        pair.path = (passing) => (passing.from === from && count++ === index ? [] : [passing.bytes]);
        const second = await pair.connect({ session: first.session });
        assert.ok(isOpen(second), `${from} ${index} ${JSON.stringify(second)}`);
        for (let second = 0; second < 5 && !pair.talk('x'); second++) {
          pair.clock.advance(1000);
          pair.settle();
        }
        assert.ok(pair.talk('y'), `${from} ${index}`);
      }
  });

  test('a session that the server forgot leads to a whole handshake', async () => {
    const pair = new Pair();
    const first = await pair.connect();
    assert.ok(isOpen(first));
    pair.server.revoke('device');
    assert.equal(pair.server.footprint.sessions, 0);
    const second = await pair.connect({ session: first.session });
    assert.ok(isOpen(second), JSON.stringify(second));
    assert.notDeepEqual(second.session?.id, first.session?.id);
  });

  test('after revocation neither session nor association nor key is of use', async () => {
    const keys: Record<string, Buffer> = { device: key };
    const pair = new Pair({ keys });
    const first = await pair.connect();
    assert.ok(isOpen(first));
    delete keys.device;
    pair.server.revoke('device');
    pair.settle();
    assert.equal(pair.talk('hello'), false);
    assert.ok(!isOpen(await pair.connect({ session: first.session })));
  });
});

describe('bounds', () => {
  test('the association that was silent for longest gives way, is told so, and can be resumed', async () => {
    const keys = Object.fromEntries(Array.from({ length: 5 }, (_, count) => [`d${count}`, key]));
    const pair = new Pair({ keys, server: { limits: { associations: 3 } } });
    const sessions = [];
    for (let count = 0; count < 5; count++) {
      pair.place = { ...clientAt, port: 41_000 + count };
      const outcome = await pair.connect({ identity: `d${count}` });
      assert.ok(isOpen(outcome));
      sessions.push(outcome.session);
      assert.ok(pair.talk('hello'));
      if (count === 2) {
        const first = pair.server.at(clientAt.address, 41_000)!;
        assert.equal(first.identity, 'd0');
      }
    }
    assert.equal(pair.server.footprint.associations, 3);
    assert.deepEqual(
      pair.told.filter((each) => each.startsWith('closed')),
      ['closed d0: there are too many', 'closed d1: there are too many'],
    );
    const again = await pair.connect({ identity: 'd0', session: sessions[0] });
    assert.ok(isOpen(again));
    assert.deepEqual(again.session?.id, sessions[0]?.id);
  });

  test('the association that was opened first stays when it was heard after the others', async () => {
    const keys = Object.fromEntries(Array.from({ length: 4 }, (_, count) => [`d${count}`, key]));
    const pair = new Pair({ keys, server: { limits: { associations: 3 } } });
    const opened = [];
    for (let count = 0; count < 4; count++) {
      if (count === 3) {
        pair.place = { ...clientAt, port: 41_000 };
        pair.client.send(opened[0]!, Buffer.from('still there'));
        pair.settle();
        assert.equal(pair.atServer.at(-1), 'still there');
      }
      pair.place = { ...clientAt, port: 41_000 + count };
      const outcome = await pair.connect({ identity: `d${count}` });
      assert.ok(isOpen(outcome));
      opened.push(outcome.association);
    }
    assert.deepEqual(
      pair.told.filter((each) => each.startsWith('closed')),
      ['closed d1: there are too many'],
    );
  });

  test('half-open handshakes are bounded in all and of one address; an honest client gets in', async () => {
    const limits = { halfOpen: { entries: 100, perAddress: 10, perPrefix: 50 } };
    const pair = new Pair({ server: { limits } });
    const flood = (place: typeof clientAt) => {
      const attacker = new Pair({
        seed: place.port,
        path: ({ from, bytes }) => {
          if (from === 'client') pair.inject('client', bytes, place);
          return [];
        },
      });
      void attacker.client.connect(serverAt, { identity: 'x', key }).catch(() => {});
      const answer = pair.sent.findLast(({ from }) => from === 'server')!.bytes;
      attacker.inject('server', answer);
      attacker.client.stop();
    };
    for (let count = 0; count < 60; count++)
      flood({ ...clientAt, address: '192.0.2.66', port: 1000 + count });
    assert.equal(pair.server.footprint.halfOpen, 10);
    for (let count = 0; count < 400; count++)
      flood({ ...clientAt, address: `198.51.${Math.floor(count / 100)}.${count % 100}`, port: 2000 + count });
    assert.equal(pair.server.footprint.halfOpen, 100);
    assert.ok(isOpen(await pair.connect()));
    pair.clock.advance(70_000);
    assert.equal(pair.server.footprint.halfOpen, 0, 'all are given up after a minute');
    assert.equal(pair.clock.timers, 0, 'no timer is left');
  });

  test('what admission refuses leads to no state', async () => {
    const pair = new Pair({ server: { server: { keyOf: () => key, admits: () => false } } });
    assert.ok(!isOpen(await pair.connect()));
    assert.equal(pair.sent.filter(({ from }) => from === 'server').length, 1, 'the cookie alone');
  });
});

describe('an association without a sequence number that it may use, as on a full disk', () => {
  const exhausted = async (options: PairOptions = {}): Promise<Pair> => {
    const pair = await opened(options);
    pair.atServerSide!.reserved = pair.atServerSide!.used;
    return pair;
  };

  test('ends when its key does, at once', async () => {
    const pair = await exhausted();
    pair.server.revoke('device');
    assert.deepEqual(pair.told.slice(1), ['closed device: what it was opened with is no longer valid']);
    assert.equal(pair.server.footprint.associations, 0);
    pair.atServer.length = 0;
    assert.equal(pair.talk('after the end'), false);
    assert.deepEqual(pair.atServer, []);
  });

  test('ends by a close_notify of its peer, and makes no datagram throw', async () => {
    const pair = await exhausted();
    pair.client.close(pair.client.at(serverAt.address, serverAt.port)!);
    pair.settle();
    assert.equal(pair.server.footprint.associations, 0);
  });

  test('gives way to a new one, and its peer may ask for what it likes', async () => {
    const keys = { device: key, other: key };
    const pair = await exhausted({ keys, server: { limits: { associations: 1 } } });
    const hello = Buffer.from('0100000000020000000000000000', 'hex');
    pair.inject('client', pair.client.at(serverAt.address, serverAt.port)!.seal(22, hello, systemEntropy));
    pair.place = { ...clientAt, port: 40_001 };
    assert.ok(isOpen(await pair.connect({ identity: 'other' })));
    assert.ok(pair.talk('goes on'));
    assert.equal(pair.server.footprint.associations, 1);
  });
});
