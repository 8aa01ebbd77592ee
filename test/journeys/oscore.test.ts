import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { LiveSettings } from '../../src/gateway/live-settings.ts';
import { encode, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, opaque, optionValue, sorted, uint, uriOptions } from '../../src/wire/coap/options.ts';
import { OscoreKeys } from '../../src/wire/secure/oscore/keys.ts';
import { hasOscore, headerOf, openResponse, protectRequest } from '../../src/wire/secure/oscore/messages.ts';
import { pivOf, sequenceOf } from '../../src/wire/secure/oscore/option.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { startAedes } from '../peers/brokers.ts';
import { Nat } from '../peers/nat.ts';
import { read, watch } from './oscore-watch.ts';
import { gatewayConfig, Site, type Toml } from './site.ts';

const id = 'urn:dev:oscore:1';
const limit = { timeout: 120_000 };
const masterSecret = 'a-master-secret-of-32-characters';
const folder = mkdtempSync(join(tmpdir(), 'postern-oscore-'));
after(() => rmSync(folder, { recursive: true }));

const ofGateway = (number: string, identity = id) => ({
  identity,
  'master-secret': masterSecret,
  'id-context': number,
  'sender-id': '00',
  'recipient-id': '01',
});
const ofDevice = (number: string, secret = masterSecret) => ({
  'master-secret': secret,
  'id-context': number,
  'sender-id': '01',
  'recipient-id': '00',
});

/** What a site's gateway has, beyond the usual: a state file, a port, and the contexts of devices. */
const gatewayTables = (state: string, port: number, more: Toml = {}): Toml => ({
  gateway: { id: 'gw-1', state: join(folder, state) },
  coap: { port, leisure: 50, 'insecure-plain-coap': true },
  oscore: { device: [ofGateway('aa01')] },
  ...more,
});

/** Gateways of one name that follow each other on the same port and state, behind a NAT that is watched. */
class Runs implements AsyncDisposable {
  readonly #broker: string;
  readonly #nat: Nat;
  readonly #state: string;
  readonly #more: Toml;
  readonly #factory: readonly string[];
  #port = 0;
  site!: Site;
  gateway!: Gateway;

  constructor(broker: string, nat: Nat, state: string, more: Toml = {}, factory: readonly string[] = []) {
    this.#broker = broker;
    this.#nat = nat;
    this.#state = state;
    this.#more = more;
    this.#factory = factory;
  }

  /** @param wait whether the broker can be reached */
  async next(wait = true): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.site = new Site(this.#broker);
    const tables = gatewayTables(this.#state, this.#port, this.#more);
    const coap = { ...(tables.coap as Toml), advertise: this.#nat.advertised };
    this.gateway = await this.site.gateway(this.#factory, { ...tables, coap }, wait);
    this.#port = this.gateway.coapPort;
    this.#nat.leadTo(this.gateway);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.site?.[Symbol.asyncDispose]();
  }
}

test(
  'an OMA DM device over OSCORE: found, bootstrapped, managed, also after restarts of the gateway',
  limit,
  async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    const seen = watch(nat);
    await using site = new Site(broker.url);
    await site.headend([id]);
    await using runs = new Runs(broker.url, nat, 'dm.db', {}, [id]);
    await runs.next();
    const device = site.device(id, nat, { factory: true, server: true, top: { oscore: ofDevice('aa01') } });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    await runs.site.gatewayEvents.until('oscore.proven', { identity: id });

    // What the gateway sends on its own, Package #0, is protected, also before the device has sent anything to this run. The order
    // is longer than one datagram, so it goes in blocks.
    const note = 'n'.repeat(3000);
    const kidOfGateway = () =>
      seen.passed.filter((message) => hasOscore(message) && headerOf(message)?.kid?.[0] === 0);
    for (let restart = 0; restart < 2; restart++) {
      await runs.next();
      const before = kidOfGateway().length;
      const [name, put] = await runs.gateway.manage(
        id,
        [
          { name: 'Get', uri: './DevInfo/Man' },
          { name: 'Replace', uri: './Settings/Greeting', data: note },
        ],
        30_000,
      );
      assert.equal(name?.results[0]?.data, 'Maker & Sons');
      assert.ok(put);
      assert.ok(kidOfGateway().length > before);
      await runs.site.gatewayEvents.until('oscore.proven', { identity: id });
    }
    assert.deepEqual(seen.plain(), []);
    const numbers = seen.numbers();
    assert.ok(numbers.length > 10);
  },
);

test('an LwM2M client over OSCORE: bootstrapped, registered and read', limit, async () => {
  await using broker = await startAedes();
  await using nat = await Nat.open();
  const seen = watch(nat);
  await using site = new Site(broker.url);
  const clients = { lwm2m: { device: [{ id }], 'insecure-no-security': true } };
  await using runs = new Runs(broker.url, nat, 'lwm2m.db', clients);
  await runs.next();
  const client = site.client(id, nat, {}, {}, { oscore: ofDevice('aa01') });
  await client.start();
  await client.attached;
  await runs.site.gatewayEvents.until('device.attached', { device: id });
  const temperature = async () => {
    const [outcome] = await runs.gateway.manage(id, [{ name: 'Get', uri: './3303/0/5701' }], 30_000);
    return outcome?.status;
  };
  assert.equal(await temperature(), 200);
  await runs.next();
  assert.equal(await temperature(), 200);
  assert.deepEqual(seen.plain(), []);
});

test('a device with another secret, or with a name that is not its own, does not get in', limit, async () => {
  await using broker = await startAedes();
  await using nat = await Nat.open();
  await using site = new Site(broker.url);
  const other = 'urn:dev:oscore:2';
  const clients = {
    lwm2m: { device: [{ id }, { id: other }], 'insecure-no-security': true },
    oscore: { device: [ofGateway('aa01'), ofGateway('aa02', other)] },
  };
  await using runs = new Runs(broker.url, nat, 'others.db', clients);
  await runs.next();
  const { gatewayEvents } = runs.site;
  const start = async (name: string, top: Toml) => {
    const client = site.client(name, nat, { bootstrap: false }, {}, top);
    await client.start();
    return client;
  };
  await start(id, { oscore: ofDevice('aa01', 'another-secret-of-the-device') });
  await gatewayEvents.until('oscore.refused', { reason: 'Decryption failed' });
  await site.deviceEvents.until('oscore.unanswered');
  await start(id, { oscore: ofDevice('aa09') });
  await gatewayEvents.until('oscore.refused', { reason: 'Security context not found' });
  await start(id, { oscore: ofDevice('aa02') });
  await gatewayEvents.until('registration.refused', { device: id });
  const honest = await start(other, { oscore: { ...ofDevice('aa02') } });
  assert.ok(honest);
});

test(
  'without OSCORE nobody has the room of a device with a context in the tunnel, or its images, also after a restart',
  limit,
  async () => {
    await using nat = await Nat.open();
    await using runs = new Runs('mqtt://127.0.0.1:1', nat, 'forged.db', {}, [id]);
    await runs.next(false);
    await using site = new Site('mqtt://127.0.0.1:1');
    const device = site.device(id, nat, { factory: true, top: { oscore: ofDevice('aa01') } });
    await device.start();
    await device.attached;
    await runs.site.gatewayEvents.until('device.attached', { device: id });
    let messageId = 60_000;
    /** Code and payload of the answer to a request that the device has not sent. */
    const forged = async (code: number, path: readonly string[], payload = noBytes): Promise<string> => {
      const token = Buffer.of(0xfe, ++messageId & 0xff);
      const format = payload.length > 0 ? [uint(Option.ContentFormat, ContentFormat.SyncmlXml)] : [];
      const options = sorted([...uriOptions(path, [`id=${id}`]), ...format]);
      const answered = new Promise<string>((resolve) => {
        nat.tap = (datagram, isOutward) => {
          const answer = isOutward ? undefined : read(Buffer.from(datagram));
          if (answer && answer.code !== Code.Empty && token.equals(answer.token))
            resolve(`${codeText(answer.code)} ${Buffer.from(answer.payload)}`);
        };
      });
      nat.forge(encode({ type: Type.NON, code, messageId, token, options, payload }));
      return await answered;
    };
    for (let restart = 0; restart < 2; restart++) {
      const answers: string[] = [];
      for (let times = 0; times < 17; times++)
        answers.push(await forged(Code.POST, ['dm', 't', 'dm.example'], Buffer.from('x')));
      assert.match(answers[15]!, /the uplink is down/);
      assert.match(answers[16]!, /have not proved themselves/);
      assert.match(await forged(Code.GET, ['img', 'none']), /^4\.01/);
      await runs.next(false);
    }
  },
);

test(
  'a context that the configuration loses ends at once, and is back when the configuration has it again',
  limit,
  async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    await using runs = new Runs(broker.url, nat, 'reloaded.db', {}, [id]);
    await runs.next();
    const { gatewayEvents } = runs.site;
    const device = site.device(id, nat, { factory: true, top: { oscore: ofDevice('aa01') } });
    await device.start();
    await device.attached;
    const reload = (...devices: Toml[]) => {
      const { coap, ...tables } = gatewayTables('reloaded.db', runs.gateway.coapPort, {
        oscore: { device: devices },
      });
      const advertise = nat.advertised;
      runs.gateway.reload(() =>
        gatewayConfig(broker.url, [id], { ...tables, coap: { ...(coap as Toml), advertise } }),
      );
    };
    const status = async () => (await device.contactServer('gw-1')).status;
    assert.equal(await status(), 200);
    reload();
    await gatewayEvents.until('config.reloaded');
    assert.notEqual(await status().catch(({ code }) => code), 200);
    await gatewayEvents.until('oscore.refused', { reason: 'Security context not found' });
    // What cannot be together changes nothing.
    reload(ofGateway('aa01'), ofGateway('aa01', 'another'));
    await gatewayEvents.until('config.refused');
    assert.notEqual(await status().catch(({ code }) => code), 200);
    reload(ofGateway('aa01'));
    assert.equal(await status(), 200);
  },
);

test(
  'a state of the uplink is observed over OSCORE, with a notification for each change',
  limit,
  async () => {
    const broker = await startAedes();
    await using stack = new AsyncDisposableStack();
    let isUp = true;
    stack.defer(async () => {
      if (isUp) await broker[Symbol.asyncDispose]();
    });
    await using nat = await Nat.open();
    const runs = stack.use(new Runs(broker.url, nat, 'observe.db'));
    await runs.next();
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    stack.defer(() => void socket.close());
    await once(socket, 'listening');
    const keys = new OscoreKeys({
      masterSecret: Buffer.from(masterSecret),
      idContext: Buffer.from('aa01', 'hex'),
      senderId: Buffer.of(1),
      recipientId: Buffer.of(0),
    });
    let sequence = 0;
    const token = Buffer.of(9);
    const observe = (echo?: Uint8Array) => {
      const options = sorted([
        ...uriOptions(['gw', 'status']),
        uint(Option.Observe, 0),
        ...(echo ? [opaque(Option.Echo, echo)] : []),
      ]);
      const { request, message } = protectRequest(keys, pivOf(++sequence), {
        code: Code.GET,
        options,
        payload: noBytes,
      });
      socket.send(
        encode({ ...message, type: Type.NON, messageId: sequence, token }),
        runs.gateway.coapPort,
        '127.0.0.1',
      );
      return request;
    };
    const next = async (request: Parameters<typeof openResponse>[1]) => {
      const [datagram] = (await once(socket, 'message')) as [Buffer];
      const message = read(datagram);
      const opened = openResponse(keys, request, message);
      assert.ok(opened, 'it verifies');
      return { ...opened, said: Buffer.from(opened.payload).toString(), piv: headerOf(message)?.piv };
    };
    const challenge = await next(observe());
    const echo = optionValue(challenge.options, Option.Echo);
    assert.ok(echo && challenge.piv);
    const request = observe(echo);
    const first = await next(request);
    assert.deepEqual(
      [first.said, first.options.some(({ number }) => number === Option.Observe.number)],
      ['online', true],
    );
    isUp = false;
    const changed = next(request);
    await broker[Symbol.asyncDispose]();
    const second = await changed;
    assert.equal(second.said, 'offline');
    assert.ok(sequenceOf(second.piv!) > sequenceOf(first.piv!));
  },
);

test(
  'a gateway process that is killed again and again uses no number twice, and asks for an Echo each time',
  limit,
  async () => {
    const file = join(folder, 'gateway.toml');
    const configure = (port: number) =>
      writeFileSync(
        file,
        `[gateway]\nid = "gw-1"\nstate = "${join(folder, 'killed.db')}"\nadmin-socket = "${join(folder, 'admin.sock')}"
       [coap]\nport = ${port}\ninterfaces = ["lo"]\nmulticast = false\ninsecure-plain-coap = true
       [oscore]\n[[oscore.device]]\nidentity = "id"\nmaster-secret = "${masterSecret}"\nsender-id = "00"\nrecipient-id = "01"
       [mqtt]\nurl = "mqtt://127.0.0.1:1"\n[dm-server]\nid = "dm.example"\nclient-secret = "client-secret"\nserver-secret = "server-secret"\n`,
      );
    const keys = new OscoreKeys({
      masterSecret: Buffer.from(masterSecret),
      senderId: Buffer.of(1),
      recipientId: Buffer.of(0),
    });
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await using stack = new AsyncDisposableStack();
    stack.defer(() => void socket.close());
    await once(socket, 'listening');
    let sequence = 0;
    let port = 0;
    const ask = async (echo?: Uint8Array) => {
      const options = sorted([
        ...uriOptions(['.well-known', 'core']),
        ...(echo ? [opaque(Option.Echo, echo)] : []),
      ]);
      const plain = { code: Code.GET, options, payload: noBytes };
      const { request, message } = protectRequest(keys, pivOf(++sequence), plain);
      const datagram = encode({ ...message, type: Type.CON, messageId: sequence, token: Buffer.of(5) });
      const answered = once(socket, 'message');
      socket.send(datagram, port, '127.0.0.1');
      const [answer] = (await answered) as [Buffer];
      const content = openResponse(keys, request, read(answer));
      assert.ok(content);
      return { datagram, piv: headerOf(read(answer))?.piv, ...content };
    };
    const numbers: number[] = [];
    const before: Buffer[] = [];
    for (let run = 0; run < 3; run++) {
      configure(port);
      await using gateway = ServiceProcess.postern(['gateway', '--config', file]);
      await gateway.until('gateway.started');
      port = Number(gateway.lines.find(({ event }) => event === 'coap.listening')?.port);
      const challenge = await ask();
      assert.equal(challenge.code, Code.Unauthorized);
      numbers.push(sequenceOf(challenge.piv!));
      const served = await ask(optionValue(challenge.options, Option.Echo));
      assert.equal(served.code, Code.Content);
      assert.equal(served.piv, undefined);
      before.push(served.datagram);
      // What an earlier run has served is never served again.
      for (const old of before.slice(0, -1)) {
        const answered = once(socket, 'message');
        socket.send(old, port, '127.0.0.1');
        const [answer] = (await answered) as [Buffer];
        assert.equal(
          openResponse(keys, { kid: Buffer.of(1), piv: headerOf(read(old))!.piv! }, read(answer))?.code ??
            0x81,
          0x81,
        );
      }
      gateway.child.kill('SIGKILL');
      await gateway.end();
    }
    assert.deepEqual(
      numbers,
      numbers.toSorted((a, b) => a - b),
    );
    assert.equal(new Set(numbers).size, numbers.length);
  },
);

test('a configuration in which two devices share a sender, or an ID, is refused', () => {
  const refused = (...devices: Toml[]) =>
    assert.throws(
      () => new LiveSettings(gatewayConfig('mqtt://127.0.0.1:1', [], { oscore: { device: devices } })),
      {
        code: 'configuration',
      },
    );
  const { identity: _, ...context } = ofGateway('aa01');
  refused({ identity: 'a', ...context }, { identity: 'b', ...context, 'recipient-id': '02' });
  refused(
    { identity: 'a', ...context },
    { identity: 'b', ...context, 'master-secret': 'another-master-secret' },
  );
  refused({ identity: 'a', ...context, 'recipient-id': '00' });
  refused({ identity: 'a', ...context }, { identity: 'a', ...context, 'id-context': 'aa02' });
  refused({ identity: 'a', ...context, 'sender-id': '0102030405060708' });
  refused({ identity: 'a', ...context, 'master-secret': 'hex:0011' });
});
