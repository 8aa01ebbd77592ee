import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { decode, encode, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, sorted, uint, uriOptions } from '../../src/wire/coap/options.ts';
import { factoryIdentity, factoryKey } from '../../src/wire/secure/transport-keys.ts';
import { startAedes } from '../peers/brokers.ts';
import { authority, certificatesOf, type Issued, issue } from '../wire/secure/dtls/authority.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';
import { factory, gatewayOf, id, opens, other, own, Party, secure } from './lwm2m-party.ts';
import { Site, secrets } from './site.ts';

const limit = { timeout: 120_000 };
const root = authority('Test root');
const gatewayOwn = issue({ commonNames: ['localhost'], dnsNames: ['localhost'] }, root);

/** What a client proves its name with that has a certificate and no other key. */
const certified = (issued: Issued) => ({
  identity: 'own',
  certificates: {
    ...certificatesOf(issued, { chain: [issued], authorities: [root] }),
    serverName: 'localhost',
  },
});

/** Sends requests without DTLS from a socket. */
class PlainPeer {
  readonly #end: SocketEnd;
  readonly #port: number;
  static #messageId = 0;

  constructor(end: SocketEnd, port: number) {
    this.#end = end;
    this.#port = port;
  }

  /** Code and payload of the answer, as text. */
  async post(path: readonly string[], query: readonly string[], payload = new Uint8Array()): Promise<string> {
    const messageId = ++PlainPeer.#messageId;
    const format = payload.length > 0 ? [uint(Option.ContentFormat, ContentFormat.SyncmlXml)] : [];
    const options = sorted([...uriOptions(path, query), ...format]);
    const token = Buffer.from([messageId]);
    this.#end.sendPlain(
      encode({ type: Type.CON, code: Code.POST, messageId, token, options, payload }),
      this.#port,
    );
    for (;;) {
      for (const { from, bytes } of this.#end.captured) {
        const answer = from.port === this.#port ? decode(bytes) : undefined;
        if (answer && !(answer instanceof Malformed) && answer.code !== 0 && token.equals(answer.token))
          return `${codeText(answer.code)} ${Buffer.from(answer.payload).toString()}`;
      }
      await this.#end.heard();
    }
  }
}

test(
  'a client with a key from the factory is bootstrapped over DTLS, and registers by its own key',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([]);
    const gateway = await site.gateway([], secure);
    const client = site.client(id, gateway, own);
    await client.start();
    await client.attached;
    const alert = await site.headendEvents.until('alert.device-attach', { device: id });
    assert.equal(alert.fields.bootstrap, 'local');
    const { fields } = site.gatewayEvents.all.findLast(({ name }) => name === 'dtls.opened')!;
    assert.match(String(fields.identity), /^gw:/);
    assert.equal(fields.device, id);
    // The account of the bootstrap server is where it was, and the new one beside it.
    assert.deepEqual(
      [client.value('/0/0/1'), client.value('/0/1/1'), client.value('/0/1/2')],
      [true, false, 0],
    );
    assert.equal((client.value('/0/1/5') as Uint8Array).length, 16);
    await gateway.manage(id, [{ name: 'Get', uri: './3/0/0' }], 20_000);
    await client.detach();
    await site.headendEvents.until('alert.device-detach', { device: id });
    assert.equal(site.gatewayEvents.count('dtls.closed'), 1, 'the one by the key from the factory');
  },
);

test(
  'without DTLS nobody registers in the name of a client that has a key, or has its room in the tunnel, also where both are served',
  limit,
  async () => {
    const { gateway, events, port } = await gatewayOf({
      lwm2m: { ...secure.lwm2m, 'insecure-no-security': true },
    });
    await using _gateway = gateway;
    const plainPort = gateway.coapPort;
    await using blank = await Party.open(port, factory);
    const issued = await blank.pack();
    await using stranger = await SocketEnd.open();
    const plain = new PlainPeer(stranger, plainPort);
    for (const path of [['rd'], ['bs']])
      assert.match(await plain.post(path, [`ep=${id}`, 'lwm2m=1.1', 'lt=300']), /^4\.03/);
    // The other client has asked for no key yet.
    assert.match(await plain.post(['rd'], [`ep=${other}`, 'lwm2m=1.1', 'lt=300']), /^2\.01/);

    await using client = await Party.open(port, issued);
    assert.equal(await client.register(), '2.01');
    await events.until('registration.proven', { device: id });
    // From the address and port of the client: an attacker forges both.
    const forger = new PlainPeer(client.end, plainPort);
    const answers = [];
    for (let times = 0; times < 17; times++)
      answers.push(await forger.post(['dm', 't', 'dm.example'], [`id=${id}`], Buffer.from('x')));
    assert.match(answers[15]!, /the uplink is down/);
    assert.match(answers[16]!, /have not proved themselves/);
  },
);

test(
  'a client that has once proved its name by a certificate is served by a proof alone, while it sleeps, after it left, and over restarts',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-lwm2m-proven-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = (name: string, content: string): string => {
      writeFileSync(join(folder, name), content, { mode: 0o600 });
      return join(folder, name);
    };
    const third = 'urn:dev:lwm2m:3';
    const listed = (...ids: string[]) => ({
      'insecure-no-security': true,
      device: ids.map((each) => ({ id: each })),
    });
    const settings = {
      gateway: { id: 'gw-1', state: join(folder, 'gw.db') },
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
      coaps: {
        port: 0,
        'certificate-file': file('own.pem', gatewayOwn.pem),
        'key-file': file('own.key', gatewayOwn.keyPem),
        'ca-files': [file('root.pem', root.pem)],
      },
      lwm2m: listed(id, other, third),
    };
    const keyOf = (name: string) => certified(issue({ uris: [name] }, root));
    const [first, second] = [keyOf(id), keyOf(other)];
    const plainly = async (gateway: Pick<Gateway, 'coapPort'>, path: 'rd' | 'bs', name = id) => {
      await using stranger = await SocketEnd.open();
      return await new PlainPeer(stranger, gateway.coapPort).post(
        [path],
        [`ep=${name}`, 'lwm2m=1.1', 'lt=300'],
      );
    };
    {
      const { gateway, events, port } = await gatewayOf(settings);
      await using _gateway = gateway;
      await using client = await Party.open(port, first);
      assert.equal(await client.register(), '2.01');
      await events.until('registration.proven', { device: id });
      // One that took a name without a proof, and answers, does not keep it.
      await using site = new Site('mqtt://127.0.0.1:1');
      const squatter = site.client(other, gateway);
      await squatter.start();
      await events.until('registration.proven', { device: other });
      await using owner = await Party.open(port, second);
      const owned = events.next('registration.proven', { device: other });
      assert.equal(await owner.register(other), '2.01');
      await owned;
    }
    {
      const { gateway, events, port, parts, config } = await gatewayOf(settings);
      await using _gateway = gateway;
      for (const path of ['rd', 'bs'] as const) assert.match(await plainly(gateway, path), /^4\.03/);
      assert.match(await plainly(gateway, 'rd', other), /^4\.03/);
      assert.match(await plainly(gateway, 'rd', third), /^2\.01/);
      await using client = await Party.open(port, first);
      assert.equal(await client.register(), '2.01');
      await events.until('registration.proven', { device: id });
      parts.associations.detach(id, 'left');
      parts.state.registrations!.delete(id);
      assert.match(await plainly(gateway, 'rd'), /^4\.03/);
      // Who takes a client from the list, or deletes its record, takes away what it had.
      gateway.reload(() => ({
        ...config,
        lwm2m: { ...config.lwm2m!, device: config.lwm2m!.device.filter((each) => each.id === other) },
      }));
      gateway.reload(() => config);
      assert.match(await plainly(gateway, 'rd'), /^2\.01/);
      assert.match(await plainly(gateway, 'rd', other), /^4\.03/);
      parts.state.database.transaction(() => parts.associations.remove(other));
    }
    const { gateway } = await gatewayOf(settings);
    await using _gateway = gateway;
    assert.match(await plainly(gateway, 'rd', other), /^2\.01/);
  },
);

test('a factory secret gives an LwM2M client the key for its bootstrap', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const gateway = await site.gateway([], {
    ...secure,
    lwm2m: { device: [{ id, 'factory-secret': secrets.factory(id) }] },
  });
  const client = site.client(id, gateway, {}, { 'factory-secret': secrets.factory(id) });
  await client.start();
  await client.attached;
  assert.ok(
    await opens(gateway.coapsPort!, {
      identity: factoryIdentity(id),
      key: factoryKey(secrets.factory(id), id),
    }),
  );
});

test(
  'the factory key opens the bootstrap alone, the issued key the registration alone, each for its own name',
  limit,
  async () => {
    const { gateway, events, port } = await gatewayOf();
    await using _gateway = gateway;
    await using blank = await Party.open(port, factory);
    assert.equal(await blank.register(), '4.03');
    assert.equal((await blank.ask(Code.POST, '/bs', [`ep=${other}`])).code, '4.03');
    await events.until('bootstrap.refused', { device: other });
    assert.equal((await blank.ask(Code.GET, '/bspack', [`ep=${other}`])).code, '4.03');
    const issued = await blank.pack();
    assert.equal(issued.instance, 1);
    assert.equal(issued.key.length, 16);
    await using client = await Party.open(port, issued);
    assert.equal((await client.ask(Code.POST, '/bs', [`ep=${id}`])).code, '4.03');
    assert.equal((await client.ask(Code.GET, '/bspack', [`ep=${id}`])).code, '4.03');
    assert.equal(await client.register(other), '4.03');
    assert.equal(await client.register(), '2.01');
  },
);

test(
  'a further bootstrap leaves the former key valid until the newer one is used, over a restart too',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-lwm2m-keys-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const state = { gateway: { id: 'gw-1', state: join(folder, 'gw.db') } };
    const packOf = async (port: number) => {
      await using blank = await Party.open(port, factory);
      return await blank.pack();
    };
    const before = await gatewayOf(state);
    const first = await packOf(before.port);
    assert.ok(await opens(before.port, first));
    const second = await packOf(before.port);
    // The answer with the second one was lost: the client asks again.
    const third = await packOf(before.port);
    assert.equal(before.keys.at(second.identity), undefined);
    await before.gateway[Symbol.asyncDispose]();
    const after = await gatewayOf(state);
    await using gateway = after.gateway;
    assert.ok(await opens(after.port, first));
    assert.ok(await opens(after.port, third));
    assert.equal(after.keys.at(first.identity), undefined);
    const { config } = after;
    gateway.reload(() => ({
      ...config,
      lwm2m: { ...config.lwm2m!, device: [{ id: other, security: 'dtls' }] },
    }));
    await after.events.until('device.unlisted', { device: id });
    assert.equal(after.keys.at(third.identity), undefined);
    assert.equal(after.parts.live.current.factorySecrets.has(id), false);
  },
);

test(
  'a bootstrap that is not stored, or whose key its client does not use, takes no key away',
  limit,
  async () => {
    const { gateway, events, parts, keys, port } = await gatewayOf();
    await using _gateway = gateway;
    const first = await (async () => {
      await using blank = await Party.open(port, factory);
      return await blank.pack();
    })();
    assert.ok(await opens(port, first));
    const { database } = parts.state;
    // A real fault of the store: the table takes no rows.
    database
      .prepare(`CREATE TRIGGER no_keys BEFORE INSERT ON device_key BEGIN SELECT RAISE(FAIL, 'no room'); END`)
      .run();
    await using blank = await Party.open(port, factory);
    assert.match((await blank.ask(Code.GET, '/bspack', [`ep=${id}`])).code, /^5/);
    assert.equal((await blank.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    await events.until('lwm2m.bootstrap-failed', { device: id });
    assert.deepEqual(
      keys.of(id).map(({ identity }) => identity),
      [first.identity],
    );
    database.prepare('DROP TRIGGER no_keys').run();
    // This client takes every request, and does not use what it is given.
    assert.equal((await blank.ask(Code.POST, '/bs', [`ep=${id}`])).code, '2.04');
    await events.until('lwm2m.bootstrapped', { device: id });
    assert.ok(await opens(port, first));
  },
);

test('libcoap asks for a Bootstrap-Pack by its factory key', {
  ...limit,
  skip: !existsSync('/usr/bin/coap-client-openssl'),
}, async () => {
  const { gateway, events, port } = await gatewayOf({
    lwm2m: { device: [{ id, 'bootstrap-identity': 'pump', 'bootstrap-key': 'sesame-sesame-16' }] },
  });
  await using _gateway = gateway;
  const uri = `coaps://127.0.0.1:${port}/bspack?ep=${id}`;
  const run = (key: string) =>
    promisify(execFile)(
      'coap-client-openssl',
      ['-m', 'get', '-A', '112', '-B', '5', '-u', 'pump', '-k', key, uri],
      { encoding: 'buffer' },
    );
  const { stdout } = await run('sesame-sesame-16');
  const issued = /gw:[\w-]{16}/.exec(stdout.toString('latin1'));
  assert.ok(issued, stdout.toString('latin1'));
  await events.until('lwm2m.bootstrapped', { device: id });
});

test(
  'a client that deregisters keeps its key, over a restart too; an order to remove it, or its end in the list, revokes the key',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-lwm2m-leave-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const state = { gateway: { id: 'gw-1', state: join(folder, 'gw.db') } };
    const before = await gatewayOf(state);
    const issued = await (async () => {
      await using blank = await Party.open(before.port, factory);
      return await blank.pack();
    })();
    {
      await using client = await Party.open(before.port, issued);
      // As at each planned stop of a client, or when the server disables it for a time (`/1/x/4`).
      for (let times = 1; times <= 2; times++) {
        const { code, location } = await client.ask(Code.POST, '/rd', [`ep=${id}`, 'lwm2m=1.1', 'lt=300']);
        assert.equal(code, '2.01');
        while (before.events.count('device.attached') < times) await before.events.nextOfAny();
        assert.equal((await client.ask(Code.DELETE, location)).code, '2.02');
        assert.equal(before.events.count('device.detached'), times);
        assert.equal((await client.ask(Code.DELETE, location)).code, '4.04', 'the registration has ended');
      }
      assert.deepEqual(client.end.closings, []);
    }
    await before.gateway[Symbol.asyncDispose]();
    const after = await gatewayOf(state);
    await using gateway = after.gateway;
    await using client = await Party.open(after.port, issued);
    assert.equal(await client.register(), '2.01');
    await after.events.until('device.attached', { device: id });
    assert.equal(after.events.count('lwm2m.bootstrapped'), 0);
    after.parts.associations.remove(id);
    await client.end.until(0, 1);
    assert.equal(after.keys.at(issued.identity), undefined);
    // A client that has deregistered is locked out by the list alone, since there is no record of it.
    const again = await (async () => {
      await using blank = await Party.open(after.port, factory);
      return await blank.pack();
    })();
    await using last = await Party.open(after.port, again);
    const { config } = after;
    gateway.reload(() => ({
      ...config,
      lwm2m: { ...config.lwm2m!, device: [{ id: other, security: 'dtls' }] },
    }));
    await last.end.until(0, 1);
    assert.equal(after.keys.at(again.identity), undefined);
  },
);

test('a client downloads by another association than the one it registered with', limit, async () => {
  const lone = await gatewayOf();
  await using _gateway = lone.gateway;
  const { port, events } = lone;
  const key = await (async () => {
    await using blank = await Party.open(port, factory);
    return await blank.pack();
  })();
  await using registered = await Party.open(port, key);
  // There is no such image. 4.01 is said before that.
  const ask = async (party: Party) => (await party.ask(Code.GET, '/img/fw')).code;
  assert.equal(await ask(registered), '4.01');
  assert.equal(await registered.register(), '2.01');
  await events.until('device.attached', { device: id });
  await using downloads = await Party.open(port, key);
  assert.equal(await ask(downloads), '4.04');
});
