import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bootstrapMac, md5Credential } from '../../../src/wire/syncml/digest.ts';
import {
  decodeNotification,
  encodeNotification,
  isAuthentic,
  type Notification,
  sessionIdText,
} from '../../../src/wire/syncml/notification.ts';

const nonce = Buffer.from('nonce1');
const known: Notification = { uiMode: 1, serverInitiated: true, sessionId: 0x1234, serverId: 'dm.example' };
const vector = '6bab2c76507266c25c9ec0a83685c7e802d800000012340a646d2e6578616d706c65';

// conforms: NOT-1
test('a known Package #0 is written and read with the expected octets', () => {
  assert.equal(encodeNotification(known, 'secret', nonce).toString('hex'), vector);
  const { digest: _, trigger: __, ...rest } = decodeNotification(Buffer.from(vector, 'hex'));
  assert.deepEqual(rest, known);
});

// conforms: SEC-2
test('the md5 credential of the example in OMA DM security is computed', () => {
  assert.equal(md5Credential('Bruce2', 'OhBehave', Buffer.from('Nonce')), 'Zz6EivR3yeaaENcRN6lpAQ==');
});

test('a bootstrap MAC is HMAC-SHA1 in hexadecimal (RFC 2202, case 2)', () => {
  const mac = bootstrapMac('Jefe', Buffer.from('what do ya want for nothing?'));
  assert.equal(mac, 'EFFCDF6AE5EB2FA2D27416D5F184DF9C259A7C79');
});

// conforms: NOT-2
test('Package #0 is authentic only with the right secret and nonce', () => {
  const notification = decodeNotification(Buffer.from(vector, 'hex'));
  assert.equal(isAuthentic(notification, 'secret', nonce), true);
  assert.equal(isAuthentic(notification, 'other', nonce), false);
  assert.equal(isAuthentic(notification, 'secret', Buffer.from('nonce2')), false);
});

// conforms: NOT-2
test('Package #0 with any flipped bit is refused or not authentic', () => {
  for (let bit = 0; bit < (vector.length / 2) * 8; bit++) {
    const bytes = Buffer.from(vector, 'hex');
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    let authentic = false;
    try {
      authentic = isAuthentic(decodeNotification(bytes), 'secret', nonce);
    } catch {
      continue;
    }
    assert.equal(authentic, false, `bit ${bit}`);
  }
});

// conforms: NOT-2
test('Package #0 truncated at any byte is malformed', () => {
  const bytes = Buffer.from(vector, 'hex');
  for (let length = 0; length < bytes.length; length++)
    assert.throws(() => decodeNotification(bytes.subarray(0, length)), { code: 'malformed' });
});

test('any Package #0 is the same after encoding and decoding', () => {
  const notification = fc.record(
    {
      uiMode: fc.constantFrom(0 as const, 1 as const, 2 as const, 3 as const),
      serverInitiated: fc.boolean(),
      sessionId: fc.integer({ min: 1, max: 65535 }),
      serverId: fc.string({ minLength: 1, maxLength: 60 }),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(notification, (one) => {
      const { digest: _, trigger: __, ...rest } = decodeNotification(encodeNotification(one, 's', nonce));
      assert.deepEqual(rest, one);
    }),
  );
});

// conforms: NOT-4
test('a session ID is written in hexadecimal', () => {
  assert.equal(sessionIdText(0xab), 'AB');
});

// conforms: NOT-3
test('versions 1.1, 1.2 and 1.3 are accepted, others refused; reserved bits and a vendor body are ignored', () => {
  const notification = { uiMode: 1, serverInitiated: true, sessionId: 7, serverId: 's' } as const;
  const made = encodeNotification({ ...notification, version: '1.3' }, 'secret', Buffer.from('n'));
  assert.equal(made.readUInt16BE(16) >> 6, 13);
  assert.equal(decodeNotification(made).version, '1.3');
  const raw = encodeNotification(notification, 'secret', Buffer.from('n'));
  for (const [tenths, fits] of [
    [11, true],
    [12, true],
    [13, true],
    [10, false],
    [14, false],
  ] as const) {
    const other = Buffer.from(raw);
    other.writeUInt16BE((tenths << 6) | (other.readUInt16BE(16) & 0x3f), 16);
    if (fits) assert.equal(decodeNotification(other).sessionId, 7);
    else assert.throws(() => decodeNotification(other), { code: 'unsupportedVersion' });
  }
  const future = Buffer.concat([raw, Buffer.from('vendor')]);
  future[18] = 0xff;
  assert.equal(decodeNotification(future).serverId, 's');
});
