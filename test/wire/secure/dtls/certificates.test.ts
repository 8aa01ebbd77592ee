import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { certificateSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { certificatesOf, issue } from './authority.ts';
import {
  credentials,
  device,
  deviceName,
  middle,
  pairOf,
  served,
  serverOwn,
  withDevice,
  withRawKeys,
} from './certificate-pair.ts';
import { isOpen, once, pathFaults } from './pair.ts';

describe('a handshake in each cipher suite', () => {
  for (const suite of certificateSuites)
    for (const wantsCid of [true, false]) {
      test(`${suite.name} with X.509${wantsCid ? ' and connection IDs' : ''}`, async () => {
        const pair = pairOf({ client: { suites: [suite] } });
        const outcome = await pair.connect({ ...credentials(withDevice()), wantsCid });
        assert.ok(isOpen(outcome), JSON.stringify(outcome));
        assert.equal(outcome.association.suite, suite);
        assert.equal(pair.atServerSide?.identity, deviceName);
        for (const text of ['a', 'b'.repeat(1000), '']) assert.ok(pair.talk(text), text);
        assert.equal(pair.server.footprint.halfOpen, 0);
        pair.clock.advance(10_000);
        assert.equal(pair.clock.timers, 0, 'no timer is left');
      });
      test(`${suite.name} with raw public keys${wantsCid ? ' and connection IDs' : ''}`, async () => {
        const pair = pairOf({ client: { suites: [suite] } });
        const outcome = await pair.connect({ ...credentials(withRawKeys, 'gateway'), wantsCid });
        assert.ok(isOpen(outcome), JSON.stringify(outcome));
        assert.equal(pair.atServerSide?.identity, 'raw device');
        assert.ok(pair.talk('hello'));
      });
    }
});

describe('a path that loses, doubles, turns round and cuts', () => {
  // Long enough for two datagrams of the client's flight, and for messages in fragments.
  const long = issue({ uris: [deviceName], padding: 900 }, middle);
  const ends = {
    'X.509': () => credentials(withDevice(long, [long, middle])),
    'raw keys': () => credentials(withRawKeys, 'gateway'),
  };
  for (const [kind, own] of Object.entries(ends))
    for (const [name, fault] of Object.entries(pathFaults))
      for (const from of ['client', 'server'] as const)
        for (const index of [0, 1, 2, 3, 4])
          test(`${kind}: ${from}'s datagram ${index} is ${name}`, async () => {
            const path = once((each) => each.from === from && each.index === index, fault);
            const pair = pairOf({ path });
            const outcome = await pair.connect(own());
            assert.ok(isOpen(outcome), JSON.stringify(outcome));
            for (let second = 0; second < 3 && !pair.talk('x'); second++) {
              pair.clock.advance(1000);
              pair.settle();
            }
            // Data is not repeated by DTLS.
            assert.ok(['y', 'z'].some((text) => pair.talk(text)));
            assert.equal(pair.told.length, 1);
          });

  for (const [kind, own] of Object.entries(ends))
    test(`${kind}: each record is a datagram of its own, and arrives in reverse order`, async () => {
      const pair = pairOf();
      pair.path = ({ bytes }) => {
        const records: Buffer[] = [];
        for (let at = 0; at < bytes.length; ) {
          const end = at + 13 + (bytes[at] === 25 ? 6 : 0);
          const next = end + bytes.readUInt16BE(end - 2);
          records.unshift(bytes.subarray(at, next));
          at = next;
        }
        return records;
      };
      const outcome = await pair.connect(own());
      assert.ok(isOpen(outcome), JSON.stringify(outcome));
      assert.ok(pair.talk('x'));
    });

  for (const [kind, own] of Object.entries(ends))
    test(`${kind}: each byte of each flight flipped: no false success, no throw, and the next handshake succeeds`, async () => {
      const credential = own();
      const plain = pairOf();
      await plain.connect(credential);
      // Every third byte of a long chain, beginning elsewhere in each datagram.
      for (const [number, { bytes: original }] of plain.sent.entries())
        for (let at = number % 3; at < original.length; at += original.length > 400 ? 3 : 1) {
          let count = 0;
          const pair = pairOf({
            path: ({ bytes }) => {
              if (count++ !== number) return [bytes];
              const flipped = Buffer.from(bytes);
              if (at < flipped.length) flipped[at]! ^= 1 << (at % 8);
              return [flipped];
            },
          });
          const outcome = await pair.connect(credential);
          const where = `byte ${at} of datagram ${number}`;
          if (isOpen(outcome)) {
            pair.clock.advance(1100);
            pair.settle();
            assert.ok(pair.talk('x'), where);
            assert.ok([deviceName, 'raw device'].includes(pair.atServerSide?.identity ?? ''), where);
            continue;
          }
          const again = await pair.connect(credential);
          assert.ok(isOpen(again), `${where}: ${JSON.stringify(outcome)} then ${JSON.stringify(again)}`);
          assert.ok(pair.talk('x'), where);
        }
    });
});

describe('resumption and revocation', () => {
  test('a session is resumed in a short handshake, without signatures, as the same device', async () => {
    const pair = pairOf();
    const first = await pair.connect(credentials(withDevice()));
    assert.ok(isOpen(first));
    const before = pair.sent.length;
    const again = await pair.connect({ ...credentials(withDevice()), session: first.session });
    assert.ok(isOpen(again), JSON.stringify(again));
    assert.deepEqual(again.session?.id, first.session?.id);
    assert.equal(pair.atServerSide?.identity, deviceName);
    assert.ok(pair.sent.slice(before).every(({ bytes }) => bytes.length < 400));
    assert.ok(pair.talk('again'));
    const third = await pair.connect({ ...credentials(withDevice()), session: again.session });
    assert.ok(isOpen(third));
    assert.equal(pair.atServerSide?.proof?.split(' ')[0], 'x509');
  });

  for (const [name, later, wall] of [
    ['after its authority was removed', certificatesOf(serverOwn, { rawKeys: { x: serverOwn } }), undefined],
    ['after it has expired', served, Date.UTC(2100)],
  ] as const)
    test(`a session is not resumed ${name}`, async () => {
      let certificates: Certificates = served;
      const pair = pairOf({}, () => certificates);
      const first = await pair.connect(credentials(withDevice()));
      assert.ok(isOpen(first));
      certificates = later;
      if (wall !== undefined) pair.clock.wall = () => wall as never;
      assert.ok(!isOpen(await pair.connect({ ...credentials(withDevice()), session: first.session })));
    });

  test('a raw public key that now has another name resumes nothing under the former one', async () => {
    let certificates: Certificates = served;
    const pair = pairOf({}, () => certificates);
    const first = await pair.connect(credentials(withRawKeys, 'gateway'));
    assert.ok(isOpen(first));
    certificates = certificatesOf(serverOwn, { rawKeys: { renamed: device } });
    const second = await pair.connect({ ...credentials(withRawKeys, 'gateway'), session: first.session });
    assert.ok(isOpen(second));
    assert.equal(pair.atServerSide?.identity, 'renamed');
  });

  test('an authority that is removed between hello and certificate counts no more', async () => {
    let certificates: Certificates = served;
    const pair = pairOf({}, () => certificates);
    pair.path = ({ from, index, bytes }) => {
      if (from === 'server' && index === 1)
        certificates = certificatesOf(serverOwn, { rawKeys: { x: serverOwn } });
      return [bytes];
    };
    assert.ok(!isOpen(await pair.connect(credentials(withDevice()))));
    assert.match(pair.told.join(), /no configured authority/);
  });
});
