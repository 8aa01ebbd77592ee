import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Association } from '../../../../src/wire/secure/dtls/association.ts';
import { premasterOf } from '../../../../src/wire/secure/dtls/key-schedule.ts';
import { SecretPool } from '../../../../src/wire/secure/dtls/secret-pool.ts';
import { pskSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { key, Pair } from './pair.ts';

/** All secrets that went into the PRF (premaster and master secrets), and into the pools (key blocks, master secrets). */
const seen: { readonly bytes: Uint8Array; readonly before: Buffer }[] = [];
const { createHmac } = crypto;
const { keep } = SecretPool.prototype;
const note = (bytes: unknown) => {
  if (bytes instanceof Uint8Array && bytes.length > 0) seen.push({ bytes, before: Buffer.from(bytes) });
};

beforeEach(() => {
  seen.length = 0;
  crypto.createHmac = ((algorithm: string, secret: Uint8Array) => {
    note(secret);
    return createHmac(algorithm, secret);
  }) as typeof createHmac;
  syncBuiltinESMExports();
  SecretPool.prototype.keep = function (this: SecretPool, ...parts: Uint8Array[]) {
    note(parts[0]);
    return keep.apply(this, parts);
  };
});
afterEach(() => {
  crypto.createHmac = createHmac;
  syncBuiltinESMExports();
  SecretPool.prototype.keep = keep;
});

/** Secrets that are still there, without pre-shared keys, the key of the cookies, and the sessions that the client holds. */
function left(keys: readonly Uint8Array[], ...held: readonly (Uint8Array | undefined)[]): string[] {
  const isKnown = (bytes: Uint8Array) =>
    held.includes(bytes) || keys.some((each) => Buffer.compare(each, bytes) === 0);
  return seen
    .filter(({ bytes, before }) => before.some((octet) => octet !== 0) && bytes.some((octet) => octet !== 0))
    .filter(({ bytes }) => !isKnown(bytes) && bytes.length !== 32)
    .map(({ before }) => `${before.length} bytes`);
}

describe('secrets of a handshake are overwritten', () => {
  for (const suite of pskSuites)
    test(`${suite.name}, whole and resumed, and what is resumed works`, async () => {
      const pair = new Pair({ client: { suites: [suite] } });
      const first = await pair.connect();
      assert.ok('association' in first);
      assert.ok(
        seen.some(({ before }) => before.length === 48),
        'a master secret was seen',
      );
      assert.deepEqual(left([key], first.session?.master), []);
      assert.ok(pair.talk('a'));
      pair.client.close(first.association);
      pair.settle();
      seen.length = 0;
      const second = await pair.connect({ session: first.session });
      assert.ok('association' in second);
      assert.deepEqual(second.session?.id, first.session?.id);
      assert.deepEqual(left([key], first.session?.master, second.session?.master), []);
      assert.ok(pair.talk('b'));
      // Resumed once more: the copy at the server is whole.
      pair.client.close(second.association);
      pair.settle();
      const third = await pair.connect({ session: second.session });
      assert.ok('association' in third && pair.talk('c'));
    });

  test('of a handshake that fails, by a wrong key, at both ends', async () => {
    const pair = new Pair();
    assert.ok('code' in (await pair.connect({ key: Buffer.from('another-key-1234') })));
    pair.clock.advance(120_000);
    assert.deepEqual(left([key, Buffer.from('another-key-1234')]), []);
  });

  test('the last flight is sent again after that, when the client lacks it', async () => {
    let lost = 0;
    const pair = new Pair({
      path: ({ from, bytes }) => (from === 'server' && bytes[0] === 20 && lost++ === 0 ? [] : [bytes]),
    });
    const made = await pair.connect();
    assert.ok('association' in made && lost > 0);
    assert.ok(pair.talk('a'));
  });

  test('a Diffie-Hellman secret, when it is in the premaster secret', () => {
    const other = Buffer.alloc(32, 7);
    const premaster = premasterOf(key, other);
    assert.deepEqual([other, premaster.subarray(2, 34)], [Buffer.alloc(32), Buffer.alloc(32, 7)]);
    assert.equal(key.toString(), '0123456789abcdef');
  });

  test('a copy of the state is another one than the keys of the association', async () => {
    const pair = new Pair();
    await pair.connect();
    const association = pair.atServerSide!;
    const state = association.state(association.used);
    const copy = Association.restore({ ...state, keys: Buffer.from(state.keys) }, 1 << 20, false);
    state.keys.fill(0);
    assert.ok(pair.talk('a'));
    copy.destroy();
    assert.ok(pair.talk('b'));
  });
});
