import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../../src/base/entropy.ts';
import { Alert } from '../../../../src/wire/secure/dtls/alerts.ts';
import type { HelloExtensions } from '../../../../src/wire/secure/dtls/extensions.ts';
import {
  type ClientHello,
  clientHelloBytes,
  readClientHello,
} from '../../../../src/wire/secure/dtls/hellos.ts';
import { choose, type ServerSettings } from '../../../../src/wire/secure/dtls/server-choice.ts';
import { Sessions } from '../../../../src/wire/secure/dtls/sessions.ts';
import { pskSuites, type Suite } from '../../../../src/wire/secure/dtls/suites.ts';
import { HandClock } from '../../../hand-clock.ts';

const none = Buffer.alloc(0);
const cbc = pskSuites.filter(({ cipher }) => cipher === 'aes-128-cbc');
const [preferred] = pskSuites as readonly [Suite, ...Suite[]];
const surroundings = { clock: new HandClock(), entropy: seededEntropy(1) };

/** What a server with this session chooses of a hello, as it reads it. */
function chosen(
  hello: Partial<Pick<ClientHello, 'suites' | 'sessionId'>> & { readonly extensions?: HelloExtensions },
  sessions = new Sessions(1),
) {
  const settings: ServerSettings = {
    keyOf: () => undefined,
    certificates: () => undefined,
    mayCauseSignatures: () => true,
    suites: pskSuites,
    sessions,
    newCid: () => 1,
    noKey: none,
  };
  const bytes = clientHelloBytes({
    random: Buffer.alloc(32),
    sessionId: none,
    cookie: none,
    suites: [preferred.id],
    extensions: {},
    ...hello,
  });
  return choose(readClientHello(bytes), settings, surroundings);
}

test('CBC is taken with encrypt-then-MAC alone', () => {
  assert.equal(cbc.length, 2);
  for (const suite of cbc) {
    assert.throws(() => chosen({ suites: [suite.id] }), { alert: Alert.HandshakeFailure });
    assert.equal(chosen({ suites: [suite.id], extensions: { encryptThenMac: true } }).suite, suite);
    // Beside it the client may offer what needs none.
    assert.equal(chosen({ suites: [suite.id, preferred.id] }).suite, preferred);
  }
});

test('a client without the extended master secret gets no session to resume, and resumes none', () => {
  const sessions = new Sessions(1);
  const id = Buffer.alloc(32, 7);
  sessions.set({ id, identity: 'device', suite: preferred, master: Buffer.alloc(48) });
  const short = chosen({ sessionId: id, extensions: { extendedMasterSecret: true } }, sessions);
  assert.equal(short.resumed?.identity, 'device');
  const whole = chosen({ sessionId: id }, sessions);
  assert.deepEqual([whole.resumed, whole.sessionId.length], [undefined, 0]);
});

test('a session is not resumed in a suite that the client does not offer', () => {
  const sessions = new Sessions(1);
  const id = Buffer.alloc(32, 7);
  sessions.set({ id, identity: 'device', suite: cbc[0]!, master: Buffer.alloc(48) });
  const extensions = { extendedMasterSecret: true };
  assert.equal(chosen({ sessionId: id, extensions }, sessions).resumed, undefined);
  // Offered without what it needs.
  const suites = [cbc[0]!.id, preferred.id];
  assert.equal(chosen({ sessionId: id, suites, extensions }, sessions).resumed, undefined);
});

test('a hello that renegotiates, by the proof of an earlier handshake, is refused', () => {
  assert.equal(chosen({ extensions: { renegotiationInfo: none } }).suite, preferred);
  assert.throws(() => chosen({ extensions: { renegotiationInfo: Buffer.alloc(12) } }), {
    alert: Alert.HandshakeFailure,
  });
});
