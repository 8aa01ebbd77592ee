import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { certifiedTokens } from '../../../../src/wire/secure/dtls/acceptor.ts';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { fragmentBytes, MessageType } from '../../../../src/wire/secure/dtls/messages.ts';
import { Reassembly } from '../../../../src/wire/secure/dtls/reassembly.ts';
import { plainRecord } from '../../../../src/wire/secure/dtls/record.ts';
import { issue } from './authority.ts';
import { credentials, deviceName, pairOf, root, served, withDevice } from './certificate-pair.ts';
import { clientAt, isOpen, type Pair, serverAt } from './pair.ts';

describe('order and bounds of messages', () => {
  test('a client that leaves out its CertificateVerify gets in nowhere', async () => {
    for (const left of [MessageType.CertificateVerify, MessageType.Certificate]) {
      const pair = pairOf();
      pair.path = ({ from, bytes }) => [from === 'client' ? without(left, bytes) : bytes];
      assert.ok(!isOpen(await pair.connect(credentials(withDevice()))));
      assert.equal(pair.server.footprint.associations, 0);
    }
  });

  /** Begins a handshake, and gives the datagrams that follow to `more` instead of the server. */
  const begun = async (more: (pair: Pair) => void) => {
    const pair = pairOf();
    pair.path = ({ from, index, bytes }) => {
      if (from === 'client' && index >= 2) return [];
      return [bytes];
    };
    const outcome = pair.client.connect(serverAt, credentials(withDevice())).catch(() => {});
    pair.settle();
    assert.equal(pair.server.footprint.halfOpen, 1);
    more(pair);
    pair.client.stop();
    await outcome;
    return pair;
  };
  let record = 1000;
  const fragment = (type: number, sequence: number, length: number, offset: number, bytes: Buffer) =>
    plainRecord(22, record++, fragmentBytes({ type, sequence, length, offset, bytes }));

  test('a chain of fragments without end takes bounded memory, and the handshake ends after a minute', async () => {
    const inbox = new Reassembly(0);
    const bytes = Buffer.alloc(1);
    for (let sequence = 0; sequence < 8; sequence++)
      for (const length of [8193, 8192, 4096]) inbox.add({ type: 11, sequence, length, offset: 0, bytes });
    assert.equal(inbox.bytes, 12_288);
    const pair = await begun((each) => {
      for (let offset = 0; offset < 20_000; offset++)
        each.inject('client', fragment(11, 2 + (offset % 8), 8192, (offset * 7) % 8000, Buffer.alloc(50)));
    });
    assert.equal(pair.server.footprint.halfOpen, 1);
    pair.clock.advance(70_000);
    assert.equal(pair.server.footprint.halfOpen, 0);
    assert.equal(pair.clock.timers, 0, 'no timer is left');
    assert.deepEqual(pair.told, ['refused: the peer does not answer']);
  });

  test('a Certificate of more than 8192 bytes is dropped, and a smaller one of that size is taken', async () => {
    const pair = await begun((each) => {
      for (let offset = 0; offset < 9000; offset += 1000)
        each.inject('client', fragment(11, 2, 9000, offset, Buffer.alloc(1000)));
    });
    assert.equal(pair.server.footprint.halfOpen, 1);
    pair.server.stop();
    const large = issue({ commonNames: ['d'], padding: 7600 }, root);
    const other = pairOf();
    assert.ok(large.der.length > 7800 && large.der.length < 8180, `${large.der.length}`);
    assert.ok(isOpen(await other.connect(credentials(withDevice(large)))));
  });

  test('1000 half-open handshakes of certificates end after a minute; an honest client gets in meanwhile', async () => {
    const pair = pairOf();
    for (let count = 0; count < 1000; count++) {
      const place = {
        ...clientAt,
        address: `198.51.${Math.floor(count / 100)}.${count % 100}`,
        port: 2000 + count,
      };
      const attacker = pairOf({
        seed: count + 10,
        path: ({ from, bytes }) => {
          if (from === 'client') pair.inject('client', bytes, place);
          return [];
        },
      });
      void attacker.client.connect(serverAt, credentials(withDevice())).catch(() => {});
      attacker.inject('server', pair.sent.findLast(({ from }) => from === 'server')!.bytes);
      attacker.client.stop();
    }
    assert.equal(pair.server.footprint.halfOpen, 1000);
    assert.ok(isOpen(await pair.connect(credentials(withDevice()))));
    assert.ok(pair.talk('hello'));
    pair.clock.advance(70_000);
    assert.equal(pair.server.footprint.halfOpen, 0);
    assert.equal(pair.clock.timers, 0);
  });

  test('nothing is signed before the cookie has come back, or for what the entry refuses', async () => {
    let uses = 0;
    const counted: Certificates = {
      ...served,
      own: {
        ...served.own,
        get privateKey() {
          uses++;
          return served.own.privateKey;
        },
      },
    };
    const pair = pairOf({}, () => counted);
    pair.path = ({ from, index, bytes }) => (from === 'client' && index > 0 ? [] : [bytes]);
    assert.ok(!isOpen(await pair.connect(credentials(withDevice()))));
    assert.equal(uses, 0);
    const refusing = pairOf({
      server: { server: { keyOf: () => undefined, certificates: () => counted, admits: () => false } },
    });
    assert.ok(!isOpen(await refusing.connect(credentials(withDevice()))));
    assert.equal(uses, 0);
    pair.path = ({ bytes }) => [bytes];
    assert.ok(isOpen(await pair.connect(credentials(withDevice()))));
    assert.equal(uses, 1, 'once in a handshake');
  });

  test('a handshake with certificates takes four tokens of the entry, a short one takes one', async () => {
    let tokens = 0;
    let left = Number.POSITIVE_INFINITY;
    const admits = (_address: string, count = 1) => {
      tokens += count;
      if (left < count) return false;
      left -= count;
      return true;
    };
    const pair = pairOf({
      server: { server: { keyOf: () => undefined, certificates: () => served, admits } },
    });
    const first = await pair.connect(credentials(withDevice()));
    assert.ok(isOpen(first));
    assert.equal(tokens, certifiedTokens);
    assert.ok(isOpen(await pair.connect({ ...credentials(withDevice()), session: first.session })));
    assert.equal(tokens, certifiedTokens + 1);
    for (left = 0; left < certifiedTokens; left++) {
      const room = left;
      const other = pairOf({
        server: { server: { keyOf: () => undefined, certificates: () => served, admits } },
      });
      other.path = ({ from, index, bytes }) => {
        // There is room again when the client repeats its hello for the second time.
        if (from === 'client' && index === 3) left = certifiedTokens;
        return [bytes];
      };
      assert.ok(isOpen(await other.connect(credentials(withDevice()))), `${room}`);
      assert.deepEqual(
        other.told,
        [`opened ${deviceName}`],
        'a client that must wait is no event of its own',
      );
      left = room;
    }
  });
});

/** A datagram without the records of a handshake message, with the numbers of the messages behind it as if it never was. */
function without(type: number, datagram: Buffer): Buffer {
  const kept: Buffer[] = [];
  let isGone = false;
  for (let at = 0; at < datagram.length; ) {
    const end = at + 13 + (datagram[at] === 25 ? 6 : 0);
    const next = end + datagram.readUInt16BE(end - 2);
    const bytes = Buffer.from(datagram.subarray(at, next));
    const isMessage = datagram[at] === 22 && datagram.readUInt16BE(at + 3) === 0;
    if (isMessage && bytes[13] === type) isGone = true;
    else {
      if (isMessage && isGone) bytes.writeUInt16BE(bytes.readUInt16BE(17) - 1, 17);
      kept.push(bytes);
    }
    at = next;
  }
  return Buffer.concat(kept);
}
