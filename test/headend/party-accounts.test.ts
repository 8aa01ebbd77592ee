import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { expectationOf } from '../../src/headend/assisted-bootstrap.ts';
import { Notifier } from '../../src/headend/notifier.ts';
import { Parties } from '../../src/headend/parties.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { ownVocabulary as vocabulary } from '../../src/mo/vocabulary.ts';
import { decodeNotification } from '../../src/wire/syncml/notification.ts';
import { headendConfig } from '../journeys/site.ts';

const id = 'urn:dev:1';

function partiesWith(t: { after(done: () => void): void }, account: object): Parties {
  const device = [{ id, 'client-secret': 'a secret', 'server-secret': 'a secret', ...account }];
  const database = openDatabase(':memory:', headendSchema);
  t.after(() => database.close());
  return new Parties(headendConfig('mqtt://127.0.0.1', [], { device }), database);
}

test('a secret that can be guessed gives no key for DTLS', (t) => {
  for (const [secret, isStrong] of [
    ['seven77', false],
    ['eight888', true],
  ] as const) {
    const parties = partiesWith(t, { 'client-secret': secret });
    const { expected } = expectationOf({ entropy: seededEntropy(1), vocabulary, parties }, id);
    assert.equal(expected.transport !== undefined, isStrong, secret);
  }
});

test('Package #0 has the ServerID, whatever name the server has in its proofs', (t) => {
  const parties = partiesWith(t, { 'server-name': 'operator' });
  const base = { serverId: 'dm.example', parties, entropy: seededEntropy(1), events: noEvents };
  const package0 = new Notifier({ ...base, downlink: undefined as never }).durablePackage0(id);
  assert.equal(decodeNotification(package0).serverId, 'dm.example');
});
