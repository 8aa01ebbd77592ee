import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Scheme } from '../../src/dm/authentication.ts';
import { formatHmac, parseHmac } from '../../src/dm/hmac-header.ts';
import { LockOut } from '../../src/dm/lock-out.ts';
import type { OperationOutcome } from '../../src/dm/server-session.ts';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { basicCredential, messageMac } from '../../src/wire/syncml/digest.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { HandClock } from '../hand-clock.ts';
import { client, clientAccount, converse, noncePair, server, serverAccount, statusesOf } from './parties.ts';

/** Both sides with these schemes, the client's and the server's own. */
function sides(
  clientSchemes: readonly Scheme[],
  serverSchemes: readonly Scheme[],
  accepted = clientSchemes,
  isPeerVerified = false,
) {
  const { device, dm } = noncePair();
  const outcomes: OperationOutcome[] = [];
  const ofClient = clientAccount(device);
  const ofServer = serverAccount(dm);
  const clientSide = () =>
    client(device, {
      isPeerVerified,
      account: {
        own: { ...ofClient.own, nonce: device.own, schemes: clientSchemes },
        peer: { ...ofClient.peer, nonce: device.peer, schemes: serverSchemes },
      },
    });
  const serverSide = () =>
    server(dm, {
      account: {
        own: { ...ofServer.own, nonce: dm.own, schemes: serverSchemes },
        peer: { ...ofServer.peer, nonce: dm.peer, schemes: accepted },
      },
      work: async function* () {
        outcomes.push(...(yield [{ name: 'Get', uri: './Site/Name' }]));
        outcomes.push(...(yield [{ name: 'Get', uri: './Site/Count' }]));
      },
    });
  return { device, dm, clientSide, serverSide, outcomes };
}

const headerStatuses = (said: readonly SyncmlMessage[]) =>
  said.map((message) => statusesOf(message)[0] ?? '-');

// conforms: SEC-3
test('a basic credential and a MAC over a body have the known values', () => {
  assert.equal(basicCredential('Bruce2', 'OhBehave'), 'QnJ1Y2UyOk9oQmVoYXZl');
  assert.equal(
    messageMac('Bruce2', 'OhBehave', Buffer.from('Nonce'), Buffer.from('<SyncML/>')),
    'urdCeS3JUmjFgi8SX3webw==',
  );
});

// conforms: SEC-3
test('a MAC header is read in any order and quoting; a header with another algorithm counts as absent', () => {
  const proof = { name: 'Robert Jordan', mac: 'Dgpoz8Pbu4XC0ecp6kLw4Q==' };
  assert.deepEqual(parseHmac(formatHmac(proof)), proof);
  assert.deepEqual(parseHmac('mac=Dgpoz8Pbu4XC0ecp6kLw4Q==,username="Robert Jordan", algorithm=md5'), proof);
  assert.deepEqual(parseHmac('username="Robert Jordan", mac="Dgpoz8Pbu4XC0ecp6kLw4Q=="'), proof);
  assert.equal(parseHmac('algorithm=SHA1, username="a", mac=b'), undefined);
  assert.equal(parseHmac('nonsense'), undefined);
});

describe('schemes', () => {
  // conforms: SEC-1
  test('with basic in both directions over TLS the status is 212, and no nonce is sent', async () => {
    const { clientSide, serverSide, outcomes } = sides(['basic'], ['basic'], ['basic'], true);
    const said = await converse(clientSide(), serverSide());
    assert.deepEqual(headerStatuses(said).slice(1, 3), ['SyncHdr 212', 'SyncHdr 212']);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200],
    );
    assert.ok(!JSON.stringify(said).includes('nextNonce'));
  });

  // conforms: SEC-3
  test('with MACs in both directions each message gets 200, and the next session continues with the last nonces', async () => {
    const { device, dm, clientSide, serverSide, outcomes } = sides(['mac'], ['mac']);
    const said = await converse(clientSide(), serverSide());
    assert.deepEqual(
      headerStatuses(said).slice(1),
      said.slice(1).map(() => 'SyncHdr 200'),
    );
    assert.ok(
      said.every(({ header }) => header.cred === undefined),
      'nothing of it is in the header',
    );
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200],
    );
    assert.deepEqual(Buffer.from(device.own), Buffer.from(dm.peer));
    const again = await converse(clientSide(), serverSide());
    assert.equal(
      headerStatuses(again)[1],
      'SyncHdr 200',
      'the next session goes on with the nonces of the last',
    );
  });

  test('with MACs, two sides with different nonces agree after one challenge each', async () => {
    const { dm, clientSide, serverSide, outcomes } = sides(['mac'], ['mac']);
    dm.own = Buffer.from('elsewhere');
    dm.peer = Buffer.from('lost');
    const said = await converse(clientSide(), serverSide());
    assert.deepEqual(headerStatuses(said).filter((status) => status.endsWith('401')).length, 2);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200],
    );
  });

  // conforms: SEC-4
  test('a message that was modified on its way gets 401, and so do its commands', async () => {
    const { clientSide, serverSide } = sides(['mac'], ['mac']);
    const [one, two] = [clientSide(), serverSide()];
    const first = one.start();
    const body = encodeMessage(first, MediaType.Xml);
    const hmac = one.seal(body);
    const tampered = Buffer.from(Buffer.from(body).toString().replace('1201', '1200'));
    const answer = await two.receive(first, { body: tampered, hmac });
    assert.deepEqual(statusesOf(answer), ['SyncHdr 401', 'Alert 401', 'Replace 401']);
  });

  // conforms: SEC-3
  test('a MAC in the name of another party gets 401', async () => {
    const { clientSide, serverSide } = sides(['mac'], ['mac']);
    const [one, two] = [clientSide(), serverSide()];
    const first = one.start();
    const body = encodeMessage(first, MediaType.Xml);
    const hmac = one.seal(body)?.replace('urn:dev:1', 'urn:dev:2');
    assert.equal(statusesOf(await two.receive(first, { body, hmac }))[0], 'SyncHdr 401');
  });

  // conforms: SEC-4
  test('a message without its MAC gets 407, even if earlier messages of the session had theirs', async () => {
    const { clientSide, serverSide } = sides(['mac'], ['mac']);
    const [one, two] = [clientSide(), serverSide()];
    const carry = (message: SyncmlMessage, from: typeof one | typeof two) => {
      const body = encodeMessage(message, MediaType.Xml);
      return [message, { body, hmac: from.seal(body) }] as const;
    };
    const greeting = await two.receive(...carry(one.start(), one));
    const next = await one.receive(...carry(greeting, two));
    assert.equal(two.authenticated, true);
    const refused = await two.receive(next!, { body: encodeMessage(next!, MediaType.Xml) });
    assert.equal(statusesOf(refused)[0], 'SyncHdr 407');
    assert.equal(two.authenticated, false);
  });

  // conforms: SEC-9
  test('a client that starts with md5 changes to MAC when the server asks for it', async () => {
    const { clientSide, serverSide, outcomes } = sides(['md5', 'mac'], ['md5'], ['mac']);
    const said = await converse(clientSide(), serverSide());
    assert.deepEqual(headerStatuses(said).slice(1, 4), ['SyncHdr 401', '-', 'SyncHdr 200']);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200],
    );
  });

  // conforms: SEC-9
  test('a client that may not use basic never sends its secret in clear, even if the server asks for basic', async () => {
    const { clientSide, serverSide } = sides(['md5'], ['md5'], ['basic']);
    const device = clientSide();
    const said = await converse(device, serverSide());
    assert.equal(device.outcome?.status, 401);
    assert.ok(!JSON.stringify(said).includes(basicCredential('urn:dev:1', 'client-secret')));
  });

  const password = basicCredential('urn:dev:1', 'client-secret');

  // conforms: SEC-1
  test('a client sends its password without TLS when the server has proved itself, and not before', async () => {
    for (const scheme of ['md5', 'mac'] as const) {
      const { clientSide, serverSide, outcomes } = sides(['basic'], [scheme]);
      const device = clientSide();
      const said = await converse(device, serverSide());
      assert.deepEqual(
        said.map(({ header: { cred } }) => cred?.data === password).slice(0, 4),
        [false, false, true, false],
        scheme,
      );
      assert.equal(headerStatuses(said)[1], 'SyncHdr 407');
      assert.equal(device.outcome?.status, 200);
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        [200, 200],
      );
    }
  });

  // conforms: SEC-9
  test('a server that does not prove itself gets no password, whatever it asks for', async () => {
    for (const schemes of [['basic'], ['basic', 'md5'], ['md5', 'basic']] as const) {
      const { device, dm } = noncePair();
      const account = clientAccount(device);
      const clientSide = client(device, { account: { ...account, own: { ...account.own, schemes } } });
      // It knows no secret, and asks for basic.
      const liar = serverAccount(dm, 'guessed');
      const peer = { ...liar.peer, secret: 'guessed', schemes: ['basic'] } as const;
      const said = await converse(clientSide, server(dm, { account: { ...liar, peer } }));
      assert.notEqual(clientSide.outcome?.status, 200);
      assert.ok(!JSON.stringify(said).includes(password), schemes.join(' '));
    }
    const { clientSide } = sides(['basic'], ['basic']);
    const careful = clientSide();
    await converse(careful, sides(['basic'], ['basic']).serverSide());
    assert.match(careful.outcome?.reason ?? '', /gets no password \(basic\) without TLS/);
  });

  // conforms: SEC-1
  test('a session with a wrong basic password ends with 401 after the second attempt', async () => {
    const { device, dm } = noncePair();
    const account = clientAccount(device, 'wrong');
    const clientSide = client(device, {
      account: { ...account, own: { ...account.own, schemes: ['basic'] } },
      isPeerVerified: true,
    });
    const own = serverAccount(dm);
    const serverSide = server(dm, { account: { ...own, peer: { ...own.peer, schemes: ['basic'] } } });
    const said = await converse(clientSide, serverSide);
    assert.equal(said.length, 4);
    assert.equal(serverSide.outcome?.status, 401);
  });
});

describe('lock-out', () => {
  const limits = { free: 2, first: 1000, cap: 4000, peers: 2 };

  // conforms: SEC-10
  test('after the free failures, each failure doubles the waiting time up to the cap; a success resets it', () => {
    const clock = new HandClock();
    const lockOut = new LockOut(clock, limits);
    const waits: number[] = [];
    for (let i = 0; i < 6; i++) {
      assert.ok(lockOut.remaining('a') <= 0);
      lockOut.failed('a');
      const wait = lockOut.remaining('a');
      clock.advance(wait);
      waits.push(wait);
    }
    assert.deepEqual(waits, [0, 0, 1000, 2000, 4000, 4000]);
    lockOut.succeeded('a');
    lockOut.failed('a');
    assert.ok(lockOut.remaining('a') <= 0);
  });

  test('a failure does not lock out other peers; at the bound the peer that failed longest ago is forgotten', () => {
    const lockOut = new LockOut(new HandClock(), { ...limits, free: 0 });
    for (const peer of ['a', 'b']) lockOut.failed(peer);
    assert.ok(lockOut.remaining('a') > 0);
    assert.ok(lockOut.remaining('c') <= 0);
    lockOut.failed('c');
    assert.ok(lockOut.remaining('a') <= 0);
  });
});
