import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { ClientSession } from '../../src/dm/client-session.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { contentFormatOf } from '../../src/wire/coap/content-formats.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { siteTree, statusesOf } from '../dm/parties.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { StockClient } from '../peers/stock-client.ts';
import { Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:one-session-id';
const stranger = '127.0.0.2';

describe('over HTTP, a client with one session ID', limit, () => {
  const account = { deviceId: id, serverId: 'gw-1', user: id, password: 'pw', serverPassword: 'spw' };
  const http = {
    http: {
      port: 0,
      device: [{ id, 'client-secret': 'pw', 'server-secret': 'spw', 'client-auth': ['md5', 'basic'] }],
    },
  };
  const clientOf = (gateway: Gateway, more: object = {}) =>
    new StockClient({
      ...account,
      auth: 'md5',
      mediaType: MediaType.Xml,
      url: `${gateway.httpUrl}/dm`,
      ...more,
    });
  const jobs = (gateway: Gateway) =>
    gateway.manage(id, [{ name: 'Exec', uri: './Site/Restart' }], 20_000).then(
      () => 'done',
      () => 'broken',
    );

  for (const messages of [1, 2, 3])
    for (const hasMemory of [true, false])
      test(`power fails after message ${messages}, and its memory ${hasMemory ? 'stays' : 'is lost'}: it is served at once`, async () => {
        await using broker = await startAedes();
        await using site = new Site(broker.url);
        const gateway = await site.gateway([], http);
        await using first = clientOf(gateway);
        await first.session('5');
        const broken = jobs(gateway);
        await first.session('5', '', { messages });
        await using blank = clientOf(gateway);
        const again = hasMemory ? first : blank;
        // The order that the broken session took with it fails at once; the next one is carried out.
        const next = jobs(gateway);
        assert.equal(await again.session('5'), 200);
        const outcomes = await Promise.all([broken, next]);
        assert.ok(outcomes.includes('done'), outcomes.join());
        assert.ok(again.executed.length > 0);
      });

  for (const [what, habits] of [
    ['one connection for a session', { ignoresRespUri: true, keepsConnection: true }],
    ['a credential in each message', { ignoresRespUri: true, alwaysProves: true }],
    ['the credentials that it is asked for, over a connection for each message', { ignoresRespUri: true }],
    ['the same with basic', { ignoresRespUri: true, auth: 'basic' }],
  ] as const)
    test(`a client that ignores RespURI is served when it has ${what}`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const gateway = await site.gateway([], http);
      await using client = clientOf(gateway, habits);
      for (let session = 0; session < 3; session++) {
        const managed = gateway.manage(id, [{ name: 'Exec', uri: './Site/Restart' }], 20_000);
        assert.equal(await client.session('5'), 200);
        assert.equal((await managed)[0]?.status, 200);
      }
    });

  test('a stranger on the same host sends the next message of its session: nothing of it is taken', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http);
    await using client = clientOf(gateway);
    await using other = clientOf(gateway);
    const answers: (string | undefined)[] = [];
    const between = async () => {
      for (const msgId of [2, 3, 4, 5]) answers.push(await other.forge(msgId));
    };
    assert.equal(await client.session('5', '', { between }), 200);
    assert.ok(
      answers.every((status) => status === '407'),
      answers.join(),
    );
    assert.equal(gateway.devices()[0]?.firmware, '7.1');
  });

  test('someone else uses its session ID all the time: its sessions end well', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http);
    await using client = clientOf(gateway);
    await using other = clientOf(gateway, { localAddress: stranger });
    const answers: (string | undefined)[] = [];
    const between = async () => {
      for (const msgId of [900, 1, 2, 3, 4]) answers.push(await other.forge(msgId));
    };
    for (let session = 0; session < 3; session++) {
      const managed = gateway.manage(id, [{ name: 'Exec', uri: './Site/Restart' }], 20_000);
      assert.equal(await client.session('5', '', { between }), 200);
      assert.equal((await managed)[0]?.status, 200);
    }
    assert.equal(client.executed.length, 3);
    assert.ok(
      answers.every((status) => status === '407' || status === '401' || status === undefined),
      answers.join(),
    );
  });
});

/** A DM client over CoAP, message by message. */
async function coapClient(port: number, path: readonly string[], account: Account, nonces = noNonces()) {
  const session = new ClientSession({
    ends: { local: id, remote: account.serverId },
    account: {
      own: { name: id, secret: account.clientSecret, nonce: nonces.own },
      peer: { name: account.serverId, secret: account.serverSecret, nonce: nonces.peer },
    },
    saveNonces: ({ own, peer }) => Object.assign(nonces, own && { own }, peer && { peer }),
    tree: siteTree().tree,
    entropy: systemEntropy,
    sessionId: '5',
    notified: false,
  });
  return {
    nonces,
    /** Sends messages until the session ends, or the power fails after some. Returns the outcome. */
    run: async (peer: CoapPeer, messages = 20, between = async () => {}) => {
      let next: SyncmlMessage | undefined = session.start();
      for (let sent = 0; next && sent < messages; sent++) {
        next = await session.receive(await post(peer, port, path, next));
        await between();
      }
      return session.outcome?.status;
    },
  };
}
interface Account {
  readonly serverId: string;
  readonly clientSecret: string;
  readonly serverSecret: string;
}
const noNonces = () => ({ own: new Uint8Array() as Uint8Array, peer: new Uint8Array() as Uint8Array });

async function post(peer: CoapPeer, port: number, path: readonly string[], message: SyncmlMessage) {
  const answer = await peer.call(port, {
    method: Code.POST,
    path,
    query: [`id=${id}`],
    contentFormat: contentFormatOf(MediaType.Xml)!,
    payload: encodeMessage(message, MediaType.Xml),
  });
  assert.equal(answer.name, '2.04', answer.text);
  return decodeMessage(answer.payload, MediaType.Xml);
}

const forged = (msgId: number, account: Account, cred?: string): SyncmlMessage => ({
  header: {
    verDtd: '1.2',
    verProto: 'DM/1.2',
    sessionId: '5',
    msgId,
    target: { locUri: account.serverId },
    source: { locUri: id },
    ...(cred !== undefined && {
      cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: cred },
    }),
  },
  commands: [{ name: 'Alert', cmdId: '1', data: 1201, items: [] }],
  final: true,
});

describe('over CoAP, a client with one session ID', limit, () => {
  const servers = {
    'the gateway': {
      path: ['dm'],
      account: { serverId: 'gw-1', clientSecret: 'client-secret', serverSecret: 'server-secret' },
    },
    'the DM server, through the tunnel': {
      path: ['dm', 't', 'dm.example'],
      account: {
        serverId: 'dm.example',
        clientSecret: secrets.deviceClient(id),
        serverSecret: secrets.deviceServer(id),
      },
    },
  };
  const start = async (site: Site) => {
    await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    const device = [{ id, 'client-secret': 'client-secret', 'server-secret': 'server-secret' }];
    return await site.gateway([], { http: { port: 0, device } });
  };

  for (const [name, { path, account }] of Object.entries(servers)) {
    test(`${name}: power fails after message 2, and the session begins anew`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const { coapPort } = await start(site);
      await using peer = await CoapPeer.open();
      for (let times = 0; times < 3; times++) {
        await (await coapClient(coapPort, path, account)).run(peer, 2);
        const again = await coapClient(coapPort, path, account);
        assert.equal(await again.run(peer), 200);
        assert.equal(await (await coapClient(coapPort, path, account, again.nonces)).run(peer), 200);
      }
    });

    test(`${name}: someone else sends any MsgID in its name, and fails to prove himself for ever`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const { coapPort } = await start(site);
      await using peer = await CoapPeer.open();
      await using other = await CoapPeer.open(undefined, stranger);
      const intrude = async () => {
        for (const msgId of [900, 1, 2, 3])
          for (const cred of [undefined, 'AAAAAAAAAAAAAAAAAAAAAA=='])
            await post(other, coapPort, path, forged(msgId, account, cred)).then(
              (answer) => assert.match(statusesOf(answer)[0] ?? '', /^SyncHdr 40[17]$/),
              // It is locked out by now, as nobody else is.
              () => {},
            );
      };
      let { nonces } = await coapClient(coapPort, path, account);
      for (let times = 0; times < 3; times++) {
        const client = await coapClient(coapPort, path, account, nonces);
        assert.equal(await client.run(peer, 20, intrude), 200);
        ({ nonces } = client);
      }
    });
  }
});
