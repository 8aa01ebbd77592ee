import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { guessRates } from '../../../src/dm/proof-guard.ts';
import { BootstrapServer } from '../../../src/gateway/southbound/bootstrap-server.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { EchoGuard } from '../../../src/wire/coap/echo.ts';
import { encodeProof, proofMac } from '../../../src/wire/syncml/bootstrap-proof.ts';
import { MediaType } from '../../../src/wire/syncml/codec.ts';
import { costlyWork } from '../../costly-work.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { testSealing } from '../../state-files.ts';

const id = 'urn:dev:1';
const secret = 'factory-secret';
const deviceNonce = Buffer.alloc(16, 3);

function rig(livesElsewhere: () => Promise<boolean> = async () => false) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const guard = new EchoGuard(clock, seededEntropy(1));
  const credentials = new Credentials(openDatabase(':memory:', gatewaySchema), 100, testSealing);
  /** What the configuration has for the device; empty when it is not listed. */
  const listed = { secret };
  const server = new BootstrapServer({
    gatewayId: 'gw',
    secretsOf: (deviceId) =>
      deviceId === id && listed.secret !== '' ? { network: listed.secret, pin: undefined } : undefined,
    credentials,
    guard,
    clock,
    entropy: seededEntropy(2),
    events,
    livesElsewhere,
    isForOscore: () => false,
    oscoreUri: () => '',
    isJoined: () => false,
  });
  const remoteOf = (address: string) => ({ address, port: 1, key: `${address}|1` });
  /** Answers a challenge with a secret. Returns what came of it. */
  const prove = async (challenge: Uint8Array, by: string, deviceId = id, address = '192.0.2.7') =>
    await server
      .answer({
        deviceId,
        remote: remoteOf(address),
        mediaType: MediaType.Xml,
        challenge,
        proof: encodeProof({ deviceNonce, mac: proofMac(by, challenge, deviceId, deviceNonce) }),
        address: 'coap://gw/dm',
      })
      .then(
        ({ kind }) => kind as string,
        ({ code }) => code as string,
      );
  const challenge = (address = '192.0.2.7') => {
    clock.advance(1);
    return guard.issue(remoteOf(address));
  };
  return { clock, events, prove, challenge, credentials, listed };
}

test('a device that is removed, or gets another secret, while it is looked for elsewhere gets no account', async () => {
  for (const now of ['', 'another secret']) {
    const search = Promise.withResolvers<boolean>();
    const { prove, challenge, credentials, listed } = rig(() => search.promise);
    const proved = prove(challenge(), secret);
    listed.secret = now;
    search.resolve(false);
    assert.deepEqual([await proved, credentials.size], ['forbidden', 0]);
  }
});

test('a challenge is good for one proof: after a wrong one the right one needs another challenge', async () => {
  const { prove, challenge } = rig();
  const first = challenge();
  assert.equal(await prove(first, 'a guess'), 'forbidden');
  assert.equal(await prove(first, secret), 'challenge');
  assert.equal(await prove(challenge(), secret), 'bootstrap');
});

test('thousands of guesses a second get a few looks, and the device at another address is bootstrapped all the same', async () => {
  const { events, prove, challenge } = rig();
  let looked = 0;
  for (let number = 0; number < 5000; number++)
    if ((await prove(challenge('198.51.100.66'), `guess ${number}`, id, '198.51.100.66')) === 'forbidden')
      looked++;
  assert.equal(looked, 6, 'in five seconds');
  assert.equal(events.count('bootstrap.refused'), 5000, 'those that nobody looked at are told as well');
  assert.equal(await prove(challenge(), secret), 'bootstrap');
});

test('guesses from many addresses have a rate for each device', async () => {
  const { prove, challenge } = rig();
  let looked = 0;
  for (let number = 0; number < 1000; number++) {
    const address = `10.0.${number >> 8}.${number % 256}`;
    if ((await prove(challenge(address), 'a guess', id, address)) === 'forbidden') looked++;
  }
  assert.ok(looked <= guessRates.party.burst + 1, String(looked));
});

test('a device that is not known fails like one that is', async () => {
  const { prove, challenge } = rig();
  for (let times = 0; times < 10; times++)
    assert.equal(
      await prove(challenge(), 'a guess', 'urn:dev:stranger'),
      await prove(challenge(), 'a guess', id),
    );
});

test('a device that is not known costs the same work as one that is', async () => {
  const { prove, challenge } = rig();
  for (let times = 0; times < 10; times++) {
    const work: unknown[] = [];
    for (const deviceId of [id, 'urn:dev:stranger']) {
      const [fresh, stale] = [challenge(), Buffer.alloc(16)];
      work.push([
        await costlyWork(() => prove(fresh, 'a guess', deviceId)),
        await costlyWork(() => prove(fresh, 'a guess', deviceId)),
        await costlyWork(() => prove(stale, 'a guess', deviceId)),
      ]);
    }
    assert.deepEqual(work[1], work[0]);
    assert.ok(JSON.stringify(work).includes('createHmac'), 'something was counted');
  }
});

test('a device ID that cannot be shown is refused with a clear word', async () => {
  const { prove, challenge } = rig();
  for (const name of ['a b', 'a\u0000b', 'a\u001b[31m', ''])
    assert.equal(await prove(challenge(), secret, name), 'malformed');
});
