import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { connectAsync } from 'mqtt';
import { SystemClock } from '../../src/base/clock.ts';
import { accountNodes, type DmAccount } from '../../src/mo/dm-acc.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { type Handler, reply } from '../../src/wire/coap/message.ts';
import { protectBootstrap } from '../../src/wire/syncml/bootstrap-security.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { basicCredential } from '../../src/wire/syncml/digest.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { startAedes, startMosquitto } from '../peers/brokers.ts';
import { issuedBy, newAuthority } from '../peers/certificates.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { identity, key, SocketEnd } from '../wire/secure/dtls/socket-end.ts';
import { childTables, Site, secrets, type Toml } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };

// conforms: SEC-1
test('gateway and device with passwords (basic) are managed without TLS: the DM server proves itself first', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const auth = { 'client-auth': ['basic'] };
  const gateways = {
    id: 'gw-1',
    'client-secret': secrets.gatewayClient,
    'server-secret': secrets.gatewayServer,
  };
  const devices = {
    id,
    'client-secret': secrets.deviceClient(id),
    'server-secret': secrets.deviceServer(id),
  };
  const headend = await site.headend([], {
    gateway: [{ ...gateways, ...auth }],
    device: [{ ...devices, ...auth }],
    policy: { 'assisted-bootstrap': false },
  });
  const gateway = await site.gateway([], { 'dm-server': { ...gateways, id: 'dm.example', ...auth } });
  const device = site.device(id, gateway, {
    top: { 'dm-server': { ...devices, id: 'dm.example', ...auth } },
  });
  await device.start();
  await site.headendEvents.until('session.ended', { device: id, status: 200 });
  for (const party of ['gw-1', id]) {
    const [found] = await headend.manage(party, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(found?.status, 200, party);
  }
});

describe('the uplink of a gateway whose DM server proves itself by a password too', limit, () => {
  const basic = { 'client-auth': ['basic'], 'server-auth': ['basic'] };
  const account = {
    'client-secret': secrets.gatewayClient,
    'server-secret': secrets.gatewayServer,
    ...basic,
  };
  const dmServer = { 'dm-server': { id: 'dm.example', ...account } };
  const withBasic = (id: string) => ({ gateway: [{ id, ...account }] });
  const parentAccount = {
    id: 'gw-1',
    'client-secret': secrets.gatewayClient,
    'server-secret': secrets.gatewayServer,
  };

  /** Has the DM server ask for a session with a gateway. Resolves with the status in which that ended at the gateway. */
  async function sessionOf(
    site: Site,
    headend: Awaited<ReturnType<Site['headend']>>,
    gateway: string,
    own = site,
  ) {
    const ended = own.gatewayEvents.next('dm.session-ended', { server: 'dm.example' });
    const managed = headend.manage(gateway, [{ name: 'Get', uri: './DevInfo/Man' }]).catch(() => {});
    const { fields } = await ended;
    // The order is dropped with the head-end.
    void managed;
    return fields.status;
  }

  // conforms: SEC-9
  test('the broker is not verified: no password goes there', async () => {
    await using broker = await startAedes();
    await using spy = await spyOn(broker.url);
    await using site = new Site(broker.url);
    const headend = await site.headend([], withBasic('gw-1'));
    await site.gateway([], dmServer);
    assert.notEqual(await sessionOf(site, headend, 'gw-1'), 200);
    assert.ok(
      spy.heard.some((text) => text.includes('DM/1.2')),
      'the packages are seen',
    );
    const password = basicCredential('gw-1', secrets.gatewayClient);
    assert.ok(!spy.heard.some((text) => text.includes(password)));
  });

  // conforms: SEC-1
  test('the broker is verified by TLS: the password opens the session', async (t) => {
    const folder = folderOf(t);
    newAuthority(folder);
    const { cert, key: own } = issuedBy(folder, 'broker', '/CN=localhost', ['subjectAltName=IP:127.0.0.1']);
    const lines = [`certfile ${cert}`, `keyfile ${own}`, 'allow_anonymous true', 'user root'];
    await using broker = await startMosquitto(lines);
    const url = broker.url.replace('mqtt:', 'mqtts:');
    const mqtt = { mqtt: { url, ca: join(folder, 'ca.pem') } };
    await using site = new Site(url);
    const headend = await site.headend([], { ...withBasic('gw-1'), ...mqtt });
    await site.gateway([], { ...dmServer, ...mqtt });
    assert.equal(await sessionOf(site, headend, 'gw-1'), 200);
  });

  // conforms: SEC-9
  for (const [how, isVerified] of [
    ['over DTLS', true],
    ['without DTLS', false],
  ] as const)
    test(`the parent is reached ${how}: the password ${isVerified ? 'opens the session' : 'is kept back'}`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await using below = new Site(broker.url);
      const headend = await site.headend([], { gateway: [parentAccount, ...withBasic('gw-2').gateway] });
      const parent = await site.gateway(['gw-2']);
      const { mqtt, parent: way } = childTables('gw-2', parent);
      const plain = { ...way, uri: `coap://127.0.0.1:${parent.coapPort}`, 'insecure-plain-coap': true };
      await below.gateway(
        [],
        { gateway: { id: 'gw-2', state: ':memory:' }, mqtt, parent: isVerified ? way : plain, ...dmServer },
        false,
      );
      await site.headendEvents.until('alert.device-attach', { device: 'gw-2' });
      const status = await sessionOf(site, headend, 'gw-2', below);
      assert.equal(status === 200, isVerified, String(status));
    });
});

/** Keeps all that a broker delivers, as text. */
async function spyOn(url: string) {
  const client = await connectAsync(url);
  const heard: string[] = [];
  client.on('message', (_topic, payload) => void heard.push(payload.toString('latin1')));
  await client.subscribeAsync('#');
  return { heard, [Symbol.asyncDispose]: () => client.endAsync(true) };
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-passwords-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

describe('a device with passwords, and a gateway that asks for them and proves nothing', limit, () => {
  const credentials = {
    own: { name: id, secret: secrets.deviceClient(id), nonce: new Uint8Array(), schemes: ['basic'] },
    peer: { name: 'gw-1', secret: secrets.deviceServer(id), nonce: new Uint8Array(), schemes: ['basic'] },
  } as const;
  const transport = { identity, key: key.toString() };

  /** The tables of a device that is provisioned with an account in its factory. */
  function tablesFor(t: TestContext, account: DmAccount): Toml {
    const document = encodeMessage(
      {
        header: {
          verDtd: '1.2',
          verProto: 'DM/1.2',
          sessionId: '0',
          msgId: 0,
          target: { locUri: id },
          source: { locUri: account.serverId },
        },
        commands: [
          {
            name: 'Add',
            cmdId: '1',
            items: [
              {
                target: { locUri: './Inbox' },
                meta: { format: 'xml', type: TndsMediaType.Xml },
                data: encodeTnds({ path: './Inbox', root: accountNodes('x', account) }),
              },
            ],
          },
        ],
        final: true,
      },
      MediaType.Xml,
    );
    const file = join(folderOf(t), 'bootstrap');
    writeFileSync(file, document);
    const protection = protectBootstrap(document, { network: secrets.factory(id) });
    return { bootstrap: { file, type: `${MediaType.Xml}; ${protection}` } };
  }

  /** A gateway that answers each message with a challenge for the password. It keeps the messages. */
  function asker(): { readonly messages: SyncmlMessage[]; readonly handler: Handler } {
    const messages: SyncmlMessage[] = [];
    const handler: Handler = ({ path, payload }) => {
      if (path[0] === '.well-known') {
        const links = '</dm>;rt="oma.dm",</dm/bs>;rt="oma.dm.bs",</dm/t/dm.example>;rt="oma.dm.tunnel"';
        return reply(Code.Content, { contentFormat: ContentFormat.LinkFormat, payload: links });
      }
      const message = decodeMessage(payload, MediaType.Xml);
      messages.push(message);
      const { header } = message;
      const answer: SyncmlMessage = {
        header: { ...header, target: header.source, source: header.target, msgId: messages.length },
        commands: [
          {
            name: 'Status',
            cmdId: '1',
            msgRef: header.msgId,
            cmdRef: '0',
            cmd: 'SyncHdr',
            targetRefs: [],
            sourceRefs: [],
            chal: { meta: { format: 'b64', type: 'syncml:auth-basic' } },
            data: 407,
            items: [],
          },
        ],
        final: true,
      };
      return reply(Code.Changed, {
        contentFormat: ContentFormat.SyncmlXml,
        payload: encodeMessage(answer, MediaType.Xml),
      });
    };
    return { messages, handler: new Blockwise(handler, new SystemClock()).handle };
  }

  /** Runs a device until it has failed to attach. Returns the credentials that it has shown. */
  async function shownTo(
    t: TestContext,
    messages: readonly SyncmlMessage[],
    account: DmAccount,
    gateway: string,
  ) {
    await using site = new Site('mqtt://127.0.0.1:1');
    const top = { network: { gateway, interface: '127.0.0.1' }, ...tablesFor(t, account) };
    const device = site.device(id, { coapPort: 0 }, { factory: true, top });
    await device.start();
    const { fields } = await site.deviceEvents.until('device.attach-failed');
    assert.ok(messages.length > 0, String(fields.reason));
    return messages.flatMap(({ header }) => header.cred?.data ?? []);
  }

  // conforms: SEC-9
  test('over plain CoAP the gateway gets none', async (t) => {
    const { messages, handler } = asker();
    await using peer = await CoapPeer.open(handler);
    const gateway = `coap://127.0.0.1:${peer.socket.address().port}`;
    const account = { serverId: 'gw-1', address: `${gateway}/dm`, ...credentials };
    assert.deepEqual(await shownTo(t, messages, account, gateway), []);
  });

  // conforms: SEC-1
  test('by the key of the account, over DTLS, the first message has the password', async (t) => {
    const { messages, handler } = asker();
    await using peer = await SocketEnd.open();
    peer.handler = handler;
    const gateway = `coaps://127.0.0.1:${peer.port}`;
    const account = { serverId: 'gw-1', address: `${gateway}/dm`, ...credentials, transport };
    const [first] = await shownTo(t, messages, account, gateway);
    assert.equal(first, basicCredential(id, credentials.own.secret));
  });

  // conforms: SEC-9
  test('through the tunnel the gateway, which can read what it forwards, gets none, whatever key the account has', async (t) => {
    const { messages, handler } = asker();
    await using peer = await CoapPeer.open(handler);
    const gateway = `coap://127.0.0.1:${peer.socket.address().port}`;
    const account = { serverId: 'dm.example', address: 'https://dm.example/dm', ...credentials, transport };
    assert.deepEqual(await shownTo(t, messages, account, gateway), []);
  });
});

// conforms: SEC-9
test(
  'a gateway with a password gives it over HTTP to a client that has proved itself, and to no other',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([]);
    const device = { id, 'client-secret': 'pw', 'server-secret': 'spw' };
    const http = { port: 0, device: [{ ...device, 'client-auth': ['basic'], 'server-auth': ['basic'] }] };
    const gateway = await site.gateway([], { http });
    /** Sends the first message of a session, with this password. Resolves with the credential in the answer. */
    const answered = async (password?: string) => {
      const cred = password !== undefined && {
        cred: { meta: { format: 'b64', type: 'syncml:auth-basic' }, data: basicCredential(id, password) },
      };
      const first: SyncmlMessage = {
        header: {
          verDtd: '1.2',
          verProto: 'DM/1.2',
          sessionId: '7',
          msgId: 1,
          target: { locUri: 'gw-1' },
          source: { locUri: id },
          ...cred,
        },
        commands: [{ name: 'Alert', cmdId: '1', data: 1201, items: [] }],
        final: true,
      };
      const response = await fetch(`${gateway.httpUrl}/dm`, {
        method: 'POST',
        headers: { 'content-type': MediaType.Xml },
        body: encodeMessage(first, MediaType.Xml),
      });
      assert.equal(response.status, 200);
      return decodeMessage(await response.bytes(), MediaType.Xml).header.cred?.data;
    };
    assert.equal(await answered(), undefined);
    assert.equal(await answered('guessed'), undefined);
    assert.equal(await answered('pw'), basicCredential('gw-1', 'spw'));
  },
);
