import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { certificatesOf } from './authority.ts';
import {
  credentials,
  deviceName,
  pairOf,
  served,
  serverOwn,
  withDevice,
  withRawKeys,
} from './certificate-pair.ts';
import { isOpen, key, Pair, type Path } from './pair.ts';

/** Bytes of a datagram before its first record of epoch 1; its length if there is none. */
function plainBytes(bytes: Buffer): number {
  let at = 0;
  while (at < bytes.length && bytes.readUInt16BE(at + 3) === 0) at += 13 + bytes.readUInt16BE(at + 11);
  return at;
}

/** A client that keeps its Finished back, until something has happened. */
function held(happens: () => void): Path {
  let count = 0;
  return ({ from, bytes }) => {
    const plain = plainBytes(bytes);
    if (from === 'server' || plain === bytes.length) return [bytes];
    if (count++ === 0) return [bytes.subarray(0, plain)];
    if (count === 2) happens();
    return [bytes];
  };
}

const noCid = { wantsCid: false };

describe('a handshake that is held open while what it began with ends', () => {
  for (const [name, next] of [
    ['changed', Buffer.from('fedcba9876543210')],
    ['removed', undefined],
  ] as const)
    test(`does not succeed by a pre-shared key that was ${name}`, async () => {
      const keys: Record<string, Buffer> = { device: key };
      const pair = new Pair({ keys });
      pair.path = held(() => {
        if (next) keys.device = next;
        else delete keys.device;
        pair.server.revoke('device');
      });
      const outcome = await pair.connect(noCid);
      assert.ok(!isOpen(outcome));
      assert.equal(pair.atServerSide, undefined);
      assert.deepEqual([pair.server.footprint.sessions, pair.server.footprint.associations], [0, 0]);
    });

  test('does not resume a session that was revoked, nor bring it back', async () => {
    const pair = new Pair();
    const first = await pair.connect(noCid);
    assert.ok(isOpen(first));
    pair.client.close(first.association);
    pair.settle();
    pair.path = held(() => pair.server.revoke('device'));
    // The Finished of the server comes first, so the client believes it for a moment.
    await pair.connect({ ...noCid, session: first.session });
    pair.clock.advance(60_000);
    pair.settle();
    assert.equal(pair.told.filter((each) => each === 'opened device').length, 1);
    assert.deepEqual([pair.server.footprint.sessions, pair.server.footprint.associations], [0, 0]);
  });

  for (const [name, own] of Object.entries({
    'a certificate': () => credentials(withDevice()),
    'a raw public key': () => credentials(withRawKeys, 'gateway'),
  }))
    test(`does not succeed by ${name} that is not believed any more`, async () => {
      let now: Certificates = served;
      const pair = pairOf({}, () => now);
      pair.path = held(() => {
        now = certificatesOf(serverOwn, { authorities: [], rawKeys: {} });
      });
      const outcome = await pair.connect({ ...own(), ...noCid });
      assert.ok(!isOpen(outcome));
      assert.equal(pair.server.footprint.associations, 0, deviceName);
    });

  test('succeeds when nothing ends', async () => {
    const pair = new Pair({ path: held(() => {}) });
    assert.ok(isOpen(await pair.connect(noCid)));
    const certified = pairOf({ path: held(() => {}) });
    assert.ok(isOpen(await certified.connect({ ...credentials(withDevice()), ...noCid })));
  });
});
