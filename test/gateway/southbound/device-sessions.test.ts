import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { guessRates } from '../../../src/dm/proof-guard.ts';
import type { ArrivedPackage } from '../../../src/gateway/southbound/arrived-package.ts';
import type { LocalEndpoint } from '../../../src/gateway/southbound/coap-network.ts';
import {
  DeviceSessions,
  sessionLimits,
  uriAssociation,
} from '../../../src/gateway/southbound/device-sessions.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, uint } from '../../../src/wire/coap/options.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../../src/wire/syncml/message.ts';
import { costlyWork } from '../../costly-work.ts';
import { client, startNonces, statusesOf } from '../../dm/parties.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { testSealing } from '../../state-files.ts';
import { account, messageOf, rig } from '../../wire/coap/wire.ts';

const gatewayId = 'dm.example';
const deviceId = 'urn:dev:1';

function startSessions(isPlainAllowed = false) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const credentials = new Credentials(openDatabase(':memory:', gatewaySchema), 10, testSealing);
  const nonces = startNonces();
  credentials.put({
    deviceId,
    clientName: deviceId,
    clientSecret: 'client-secret',
    clientNonce: nonces.own,
    serverSecret: 'server-secret',
    serverNonce: nonces.peer,
    origin: 'local',
    attached: false,
  });
  let attached = 0;
  const sessions = new DeviceSessions({
    gatewayId,
    credentials,
    isPlainAllowed,
    clock,
    entropy: seededEntropy(1),
    events,
    attached: () => attached++,
    left: () => {},
    proved: () => {},
    alerted: () => 200,
    mayBeGateway: () => false,
    vocabulary: ownVocabulary,
  });
  const { endpoint } = rig(() => undefined);
  const local: LocalEndpoint = {
    address: '192.0.2.1',
    port: 5683,
    bound: '192.0.2.1',
    scheme: 'coap',
    endpoint: () => endpoint,
  };
  const post = sessions.resource(local).methods.POST!;
  /** A message over CoAP from an address and port; `identity` where OSCORE protects it. */
  const overCoap = async (said: SyncmlMessage, port: number, address = '192.0.2.7', identity?: string) => {
    const remote = { address, port, key: `${address} ${port}`, ...(identity !== undefined && { identity }) };
    const payload = encodeMessage(said, MediaType.Xml);
    const message = messageOf({ code: Code.POST, options: [uint(Option.ContentFormat, 65001)] });
    const answer = (await post(new CoapRequest(remote, message, false, payload, account()))) as Reply;
    return decodeMessage(answer.payload, MediaType.Xml);
  };
  const send = (sessionId: string, from: number, address?: string) =>
    overCoap(client(nonces, { sessionId }).start(), from, address);
  /** A message of anyone, over CoAP or HTTP. Returns the answer, or the error. */
  const anyone = async (message: SyncmlMessage, from: Partial<ArrivedPackage> = {}) => {
    const body = encodeMessage(message, MediaType.Xml);
    const answer = await sessions.receive({
      body,
      mediaType: MediaType.Xml,
      hmac: undefined,
      way: 'coap',
      associations: ['192.0.2.7|1'],
      address: 'coap://192.0.2.7',
      proved: () => {},
      ...from,
    });
    return { size: answer.body.length, message: decodeMessage(answer.body, MediaType.Xml) };
  };
  const device = (sessionId: string, more = startNonces()) => client(more, { sessionId });
  return {
    clock,
    events,
    sessions,
    send,
    overCoap,
    anyone,
    nonces,
    credentials,
    device,
    attached: () => attached,
  };
}

/** What anyone may send in the name of a device. */
const claim = (msgId: number, source = deviceId, cred?: string, commands = 1): SyncmlMessage => ({
  header: {
    ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '9', msgId },
    ...{ target: { locUri: gatewayId }, source: { locUri: source } },
    ...(cred !== undefined && { cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: cred } }),
  },
  commands: Array.from({ length: commands }, (_, at) => ({
    name: 'Get' as const,
    cmdId: String(at + 1),
    items: [{ target: { locUri: './DevInfo' } }],
  })),
  final: true,
});
const wrong = 'AAAAAAAAAAAAAAAAAAAAAA==';

test('a device that is not known is answered like one that is: same statuses, same size, same fate', async () => {
  const { anyone, credentials } = startSessions();
  credentials.keepNonces(deviceId, { clientNonce: Buffer.alloc(16, 7), serverNonce: Buffer.alloc(16, 8) });
  const stranger = 'urn:dev:2';
  const shapes: unknown[] = [];
  for (const source of [deviceId, stranger]) {
    const shape: unknown[] = [];
    for (const message of [
      claim(1, source),
      claim(1, source, wrong),
      claim(2, source, wrong),
      claim(900, source),
    ]) {
      const { size, message: answer } = await anyone(message);
      const status = statusesOf(answer);
      shape.push([size, status, answer.header.cred?.data.length, answer.header.msgId]);
    }
    // After further wrong answers to challenges each is told to bootstrap anew. Later both have to wait.
    for (let times = 0; times < 20; times++)
      shape.push(
        await anyone(claim(2, source, wrong)).then(
          () => 'answered',
          ({ code }) => code,
        ),
      );
    shapes.push(shape);
  }
  assert.deepEqual(shapes[0], shapes[1]);
});

test('a device that is not known costs the same work as one that is: hashes, MACs, reads of the state', async () => {
  for (const way of ['coap', 'http'] as const) {
    const { anyone, credentials } = startSessions();
    credentials.keepNonces(deviceId, { clientNonce: Buffer.alloc(16, 7), serverNonce: Buffer.alloc(16, 8) });
    const work: unknown[] = [];
    for (const source of [deviceId, 'urn:dev:2', gatewayId]) {
      const from = { way, ...(way === 'http' && { uriFor: (random: string) => `http://gw/dm?s=${random}` }) };
      const ofSource: unknown[] = [];
      for (const message of [
        claim(1, source),
        claim(1, source, wrong),
        claim(1, source, wrong, 100),
        // Wrong answers to challenges, until the device has to wait.
        ...Array.from({ length: 8 }, () => claim(2, source, wrong)),
        claim(900, source),
      ]) {
        const { result, calls } = await costlyWork(() =>
          anyone(message, from).then(
            ({ size }) => size,
            ({ code }) => code,
          ),
        );
        ofSource.push({ ...calls, result: source === gatewayId ? '' : result });
      }
      work.push(ofSource);
    }
    const [known, stranger, ownName] = work as [{ result: unknown }[], unknown, unknown];
    assert.deepEqual(stranger, known, way);
    assert.deepEqual(
      ownName,
      known.map((each) => ({ ...each, result: '' })),
      'a device that is named like the gateway',
    );
    assert.ok(JSON.stringify(known).includes('createHmac'), 'something was counted');
  }
});

test('25 messages of 1000 Gets a second with a known ID and no secret leave nothing: no session, no timer, no byte', async () => {
  const { sessions, clock, anyone } = startSessions();
  const body = claim(1, deviceId, undefined, 1000);
  for (let number = 0; number < 20; number++) await anyone(body);
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  for (let number = 0; number < 250; number++) {
    const { size } = await anyone(body, { associations: [`198.51.100.1|${number}`] });
    assert.ok(size < 4096, `the answer has ${size} bytes`);
    clock.advance(40);
  }
  globalThis.gc?.();
  if (globalThis.gc) assert.ok(process.memoryUsage().heapUsed - before < 2 * 1024 * 1024);
  assert.deepEqual([sessions.size, clock.timers], [0, 0]);
});

test('wrong proofs in the name of a device, from its own address, do not lock it out', async () => {
  const { anyone, device, nonces, credentials, events } = startSessions();
  credentials.keepNonces(deviceId, { clientNonce: Buffer.alloc(16, 7), serverNonce: undefined });
  nonces.own = Buffer.alloc(16, 7);
  for (let times = 0; times < 200; times++) await anyone(claim(2, deviceId, wrong)).catch(() => {});
  await assert.rejects(anyone(claim(2, deviceId, wrong)), { code: 'lockedOut' });
  assert.deepEqual(events.all.find(({ name }) => name === 'session.locked-out')?.fields, {
    device: deviceId,
    peer: '192.0.2.7',
    reason: 'too many failed proofs; try again in 5 s',
  });
  const { message } = await anyone(device('5', nonces).start());
  assert.ok(statusesOf(message).includes('SyncHdr 212'), 'its nonce is known to nobody else');
});

test('each wrong proof for an account that was made by hand is told', async () => {
  const { anyone, credentials, events } = startSessions();
  credentials.put({ ...credentials.get(deviceId)!, origin: 'manual' });
  for (let times = 0; times < 6; times++) await anyone(claim(2, deviceId, wrong));
  assert.equal(events.count('session.failed'), 6);
  assert.equal(events.count('session.stale-account'), 0);
});

test('guesses have a rate: of one address, of one device from many addresses, and of all devices together', async () => {
  const { anyone, clock } = startSessions();
  const guess = async (address: string, source: string) =>
    await anyone(claim(2, source, wrong), { address: `coap://${address}`, associations: [address] }).then(
      () => true,
      ({ code }) => code !== 'lockedOut',
    );
  const count = async (times: number, address: (at: number) => string, source: (at: number) => string) => {
    let looked = 0;
    for (let at = 0; at < times; at++) if (await guess(address(at), source(at))) looked++;
    return looked;
  };
  const one = await count(
    100,
    () => '192.0.2.7',
    () => deviceId,
  );
  assert.equal(one, 6, 'one address');
  const device = await count(
    1000,
    (at) => `10.${at >> 8}.${at % 256}.1`,
    () => deviceId,
  );
  assert.equal(one + device, guessRates.party.burst, 'one device');
  clock.advance(10_000);
  assert.equal(
    await count(
      1000,
      (at) => `11.${at >> 8}.${at % 256}.1`,
      () => deviceId,
    ),
    10,
    'one each second',
  );
  const all = await count(
    3000,
    (at) => `12.${at >> 8}.${at % 256}.1`,
    (at) => `urn:dev:x${at}`,
  );
  assert.ok(one + device + 10 + all <= guessRates.total.burst + 200, 'all devices');
});

describe('over HTTP', () => {
  const uriFor = (random: string) => `https://gw/dm?s=${random}`;
  const over = (connection: string): Partial<ArrivedPackage> => ({
    way: 'http',
    associations: [connection],
    address: 'http://192.0.2.7',
    uriFor,
  });
  const open = async () => {
    const it = startSessions();
    const device = it.device('9', it.nonces);
    const { message } = await it.anyone(device.start(), over('connection 1'));
    const next = (await device.receive(message))!;
    return { ...it, device, next, uri: message.header.respUri ?? '' };
  };

  test('a message with the next MsgID and no credential, from another connection of the same host, is not taken', async () => {
    const { anyone, next, attached } = await open();
    const stolen = { ...next, header: { ...next.header, cred: undefined } } as unknown as SyncmlMessage;
    const { message } = await anyone(stolen, over('connection 2'));
    assert.match(statusesOf(message)[0] ?? '', /^SyncHdr 407$/);
    assert.equal(attached(), 0, 'nothing of it is in the inventory');
    await anyone(next, over('connection 1'));
    assert.equal(attached(), 1, 'the connection of the session goes on');
  });

  test('RespURI is new for each session, long and random; a message to it goes on from any connection', async () => {
    const one = await open();
    const other = await open();
    const random = /^https:\/\/gw\/dm\?s=([\w-]{22})$/.exec(one.uri)?.[1] ?? '';
    assert.ok(random !== '' && one.uri !== '');
    assert.equal(other.uri.length, one.uri.length);
    const from = { ...over('connection 3'), associations: ['connection 3', uriAssociation(random)] };
    await one.anyone(one.next, from);
    assert.equal(one.attached(), 1);
  });

  describe('a client that ignores RespURI and has a connection for each message', () => {
    const statusOf = (message: SyncmlMessage) => statusesOf(message)[0] ?? '';

    test('is asked for a proof in each message, and its session goes on by these', async () => {
      const { anyone, device, next, attached } = await open();
      assert.ok(next.header.cred, 'status 200 asks for it');
      const second = await anyone(next, over('connection 2'));
      assert.equal(statusOf(second.message), 'SyncHdr 200');
      assert.equal(attached(), 1);
      assert.equal(await device.receive(second.message), undefined);
      assert.equal(device.outcome?.status, 200);
    });

    test('nobody takes its place: without a proof, with that of the first message, with that of a recorded one', async () => {
      const it = startSessions();
      const device = it.device('9', it.nonces);
      const opening = device.start();
      const first = await it.anyone(opening, over('connection 1'));
      const next = (await device.receive(first.message))!;
      const { cred: _, ...bare } = next.header;
      const forgeries = [
        bare,
        { ...bare, cred: opening.header.cred },
        { ...bare, msgId: 3, cred: opening.header.cred },
      ];
      for (const header of forgeries) {
        const { message } = await it.anyone({ ...next, header } as SyncmlMessage, over('connection 2'));
        assert.match(statusOf(message), /^SyncHdr 40[17]$/);
      }
      assert.equal(it.attached(), 0);
      await it.anyone(next, over('connection 3'));
      assert.equal(it.attached(), 1);
    });

    test('a replay of its second message is refused, and does not end its session', async () => {
      const { anyone, device, next, attached } = await open();
      const second = await anyone(next, over('connection 2'));
      for (const connection of ['connection 3', 'connection 4']) {
        const { message } = await anyone(next, over(connection));
        assert.match(statusOf(message), /^SyncHdr 40[17]$/);
      }
      assert.equal(attached(), 1);
      const again = await anyone(next, over('connection 2'));
      assert.equal(statusOf(again.message), 'SyncHdr 200', 'its own repetition gets the answer again');
      await device.receive(second.message);
      assert.equal(device.outcome?.status, 200);
    });

    test('of two copies of its second message that arrive in one turn, one counts', async () => {
      const { anyone, next, attached } = await open();
      const arrive = (connection: string) =>
        new Promise<Awaited<ReturnType<typeof anyone>>>((resolve, reject) => {
          setImmediate(() => anyone(next, over(connection)).then(resolve, reject));
        });
      const both = await Promise.all([arrive('connection 2'), arrive('connection 3')]);
      const statuses = both.map(({ message }) => statusOf(message)).toSorted();
      assert.equal(statuses[0], 'SyncHdr 200');
      assert.match(statuses[1] ?? '', /^SyncHdr 40[17]$/);
      assert.equal(attached(), 1);
    });
  });

  test('someone who has not proved himself gets no RespURI', async () => {
    const { anyone } = startSessions();
    const { message } = await anyone(claim(1), over('connection 1'));
    assert.equal(message.header.respUri, undefined);
  });
});

test('a session that stops in the middle ends with 408 after the idle time, and its device is not attached', async () => {
  const { clock, events, sessions, send, attached } = startSessions();
  const answer = await send('1', 1);
  assert.ok(answer.commands.some(({ name }) => name === 'Get'));
  assert.equal(sessions.size, 1);
  clock.advance(sessionLimits.idle);
  const failed = await events.until('session.failed', { device: deviceId });
  assert.equal(failed.fields.status, 408);
  assert.deepEqual([sessions.size, attached(), clock.timers], [0, 0, 0]);
});

test('a session ends with 404 at once when its device is detached', async () => {
  const { clock, events, sessions, send, attached } = startSessions();
  await send('1', 1);
  assert.equal(sessions.size, 1);
  sessions.detached('urn:dev:another');
  assert.equal(sessions.size, 1);
  sessions.detached(deviceId);
  const failed = await events.until('session.failed', { device: deviceId });
  assert.deepEqual([failed.fields.status, sessions.size, attached(), clock.timers], [404, 0, 0, 0]);
});

test('a message without a credential, in clear from the address and port of a session over OSCORE, is not taken', async () => {
  const { overCoap, device, nonces, attached } = startSessions(true);
  const own = device('9', nonces);
  const next = (await own.receive(await overCoap(own.start(), 1, '192.0.2.7', deviceId)))!;
  const forged = { ...next, header: { ...next.header, cred: undefined } } as unknown as SyncmlMessage;
  assert.match(statusesOf(await overCoap(forged, 1))[0] ?? '', /^SyncHdr 407$/);
  assert.equal(attached(), 0);
  await overCoap(next, 1, '192.0.2.7', deviceId);
  assert.equal(attached(), 1);
});

describe('an account that a DM server has given with a key', () => {
  const overHttp = { way: 'http', associations: ['connection 1'], address: 'http://192.0.2.7' } as const;

  function given(
    identity: string | undefined,
    origin: 'server' | 'local' = 'server',
    isPlainAllowed = false,
  ) {
    const rig = startSessions(isPlainAllowed);
    rig.credentials.put({
      ...rig.credentials.get(deviceId)!,
      origin,
      ...(identity !== undefined && { transport: { identity, key: 'a key that was not sent' } }),
    });
    return rig;
  }

  for (const identity of ['gw:abcdefghijklmnop', 'oscore:abcdefg'])
    test(`counts with its key alone: ${identity}`, async () => {
      const { anyone, device, events, sessions, attached } = given(identity);
      const refused = { code: 'forbidden', message: /with a key for DTLS or OSCORE/ };
      for (const session of ['1', '1', '2'])
        await assert.rejects(anyone(device(session).start(), overHttp), refused);
      assert.deepEqual(
        events.all.map(({ name, fields }) => [name, fields.device, fields.status]),
        Array.from({ length: 3 }, () => ['session.failed', deviceId, 403]),
      );
      assert.match(String(events.all[0]?.fields.reason), /the session came without it/);
      assert.deepEqual([sessions.size, attached()], [0, 0]);
      const { message } = await anyone(device('3').start(), { identity: deviceId });
      assert.equal(statusesOf(message)[0], 'SyncHdr 212', 'with its key it is served');
    });

  test('who has not the secrets learns nothing of it', async () => {
    const keyed = given('gw:abcdefghijklmnop');
    const keyless = given(undefined);
    for (let attempt = 1; attempt <= 2; attempt++) {
      const message = claim(attempt, deviceId, wrong);
      const [one, other] = await Promise.all([
        keyed.anyone(message, overHttp),
        keyless.anyone(message, overHttp),
      ]);
      assert.deepEqual(one.message, other.message);
    }
  });

  for (const [what, rig] of [
    ['without a key', () => given(undefined)],
    ['of a local bootstrap', () => given('gw:abcdefghijklmnop', 'local')],
    ['where plain CoAP is allowed by name', () => given('gw:abcdefghijklmnop', 'server', true)],
  ] as const)
    test(`others are served over HTTP: ${what}`, async () => {
      const { anyone, device } = rig();
      const { message } = await anyone(device('1').start(), overHttp);
      assert.equal(statusesOf(message)[0], 'SyncHdr 212');
    });
});
