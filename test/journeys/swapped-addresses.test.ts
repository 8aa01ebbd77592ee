import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { type Handler, refusal, reply } from '../../src/wire/coap/message.ts';
import { Option, textOptions } from '../../src/wire/coap/options.ts';
import { encodeContent } from '../../src/wire/lwm2m/content.ts';
import { pathText } from '../../src/wire/lwm2m/path.ts';
import type { EventRecorder } from '../event-recorder.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Nat } from '../peers/nat.ts';
import { Site } from './site.ts';

const limit = { timeout: 90_000 };
const [one, two] = ['client-1', 'client-2'] as const;
const reboot = { name: 'Exec', uri: './3/0/4' } as const;

const lwm2m = { device: [{ id: one }, { id: two }], 'insecure-no-security': true };
const coap = (nat: Nat, port = 0) => ({
  port,
  leisure: 50,
  'insecure-plain-coap': true,
  advertise: nat.advertised,
});

/** A state file that goes with the test. */
function freshState(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-swap-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'gateway.db');
}

/** A client that knows the object Device, and a trigger if it is told so. It says what serial number it is told, if any. */
class PlainClient implements AsyncDisposable {
  readonly id: string;
  readonly #serial: string | undefined;
  readonly #nat: Nat;
  readonly #hasTrigger: boolean;
  #peer: CoapPeer | undefined;
  #location: readonly string[] = [];
  reboots = 0;

  constructor(id: string, nat: Nat, { serial, trigger = false }: Traits) {
    this.id = id;
    this.#nat = nat;
    this.#serial = serial;
    this.#hasTrigger = trigger;
  }

  async open(): Promise<void> {
    const handler: Handler = ({ method, path }) => {
      const at = path.map(Number);
      if (method === Code.GET && path[0] === '3') {
        const all = [
          { path: [3, 0, 0], value: 'Plain' },
          ...(this.#serial === undefined ? [] : [{ path: [3, 0, 2], value: this.#serial }]),
        ];
        const entries = all.filter((entry) => pathText(entry.path).startsWith(pathText(at)));
        if (entries.length === 0) return refusal(Code.NotFound, '');
        const payload = encodeContent(ContentFormat.SenmlCbor, entries, at);
        return reply(Code.Content, { payload, contentFormat: ContentFormat.SenmlCbor });
      }
      if (this.#hasTrigger && method === Code.POST && path.join('/') === '1/0/8') {
        setImmediate(() => void this.update());
        return reply(Code.Changed);
      }
      if (method !== Code.POST || path.join('/') !== '3/0/4') return refusal(Code.NotFound, '');
      this.reboots++;
      return reply(Code.Changed);
    };
    this.#peer = await CoapPeer.open(handler);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#peer?.[Symbol.asyncDispose]();
  }

  async register(lifetime: number): Promise<string> {
    const { name, options } = await this.#peer!.call(this.#nat.coapPort, {
      method: Code.POST,
      path: ['rd'],
      query: [`ep=${this.id}`, 'lwm2m=1.1', `lt=${lifetime}`],
      payload: Buffer.from(this.#hasTrigger ? '</1/0>,</3/0>' : '</3/0>'),
    });
    if (name === '2.01') this.#location = textOptions(options, Option.LocationPath);
    return name;
  }

  async leave(): Promise<string> {
    return (await this.#peer!.call(this.#nat.coapPort, { method: Code.DELETE, path: this.#location })).name;
  }

  async update(): Promise<string> {
    return (await this.#peer!.call(this.#nat.coapPort, { method: Code.POST, path: this.#location })).name;
  }
}

interface Traits {
  readonly serial?: string | undefined;
  readonly trigger?: boolean;
}

/** Two clients that are attached. */
async function twoPlain(site: Site, nat: Nat, traits: readonly Traits[], lifetime: number) {
  const clients = [new PlainClient(one, nat, traits[0]!), new PlainClient(two, nat, traits[1]!)] as const;
  for (const client of clients) {
    await client.open();
    assert.equal(await client.register(lifetime), '2.01');
    await site.gatewayEvents.until('registration.proven', { device: client.id });
  }
  return clients;
}

const reasons = (gateway: Gateway) =>
  gateway.devices().map(({ deviceId, reason, state }) => `${deviceId} ${reason ?? state}`);

const isAt = (gateway: Gateway, id: string, port: number) =>
  gateway.devices().find(({ deviceId }) => deviceId === id)?.address === `coap://127.0.0.1:${port}`;

describe('two LwM2M clients that swap their addresses', limit, () => {
  // conforms: GW-26
  test('an Exec waits for its client and reaches no other client; both have their new addresses after their next messages', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { coap: coap(nat), lwm2m });
    nat.leadTo(gateway);
    const [a, b] = [site.client(one, nat), site.client(two, nat)];
    for (const client of [a, b]) {
      await client.start();
      await client.attached;
      await site.gatewayEvents.until('registration.proven', { device: client.id });
    }
    const [first, second] = nat.ports as [number, number];
    nat.swap();
    const done = gateway.manage(two, [reboot], 30_000);
    // The gateway asks who is at the address of the second client, and the first one shows that it is.
    await site.gatewayEvents.until('device.unreachable', { device: two });
    assert.deepEqual(reasons(gateway), [`${one} attached`, `${two} ${one} is at its address now`]);
    assert.ok(isAt(gateway, one, second));
    assert.equal(site.deviceEvents.count('device.restarts'), 0);
    await b.update();
    assert.deepEqual(
      (await done).map(({ status }) => status),
      [200],
    );
    const restarts = site.deviceEvents.all.filter(({ name }) => name === 'device.restarts');
    assert.deepEqual(
      restarts.map(({ fields }) => fields.device),
      [two],
    );
    await site.gatewayEvents.until('device.reached', { device: two });
    assert.ok(isAt(gateway, two, first));
  });

  // conforms: GW-26
  test('clients with a Registration Update Trigger that register again are accepted at once', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { coap: coap(nat), lwm2m });
    nat.leadTo(gateway);
    const clients = await twoPlain(site, nat, [{ trigger: true }, { trigger: true }], 3600);
    await using a = clients[0];
    await using b = clients[1];
    const [first, second] = nat.ports as [number, number];
    nat.swap();
    const taken = [one, two].map((device) => site.gatewayEvents.next('registration.proven', { device }));
    assert.deepEqual(await Promise.all([a.register(3600), b.register(3600)]), ['2.01', '2.01']);
    await Promise.all(taken);
    assert.deepEqual([isAt(gateway, one, second), isAt(gateway, two, first)], [true, true]);
    assert.equal(site.gatewayEvents.count('registration.duplicate'), 0);
    for (const id of [one, two]) assert.equal((await gateway.manage(id, [reboot], 10_000))[0]?.status, 200);
    assert.deepEqual([a.reboots, b.reboots], [1, 1], 'each for itself');
  });

  test('a second client with the name of an attached client is refused', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { coap: coap(nat), lwm2m });
    nat.leadTo(gateway);
    for (const traits of [{ trigger: true }, { serial: 'S-1' }, {}]) {
      await using first = new PlainClient(one, nat, traits);
      await using second = new PlainClient(one, nat, { ...traits, serial: 'S-2' });
      for (const client of [first, second]) await client.open();
      const proven = site.gatewayEvents.next('registration.proven', { device: one });
      assert.equal(await first.register(3600), '2.01');
      await proven;
      assert.equal(await second.register(3600), '4.09', JSON.stringify(traits));
      const left = site.gatewayEvents.next('device.detached', { device: one });
      assert.equal(await first.leave(), '2.02');
      await left;
    }
  });

  for (const restarted of [false, true])
    test(`clients that cannot prove themselves are refused for one lifetime at most${restarted ? ', across a restart' : ''}`, async (t) => {
      await using broker = await startAedes();
      await using nat = await Nat.open();
      await using site = new Site(broker.url);
      await using later = new Site(broker.url);
      const clock = new LeapClock();
      const state = { gateway: { id: 'gw-1', state: freshState(t) }, lwm2m };
      let gateway = await site.gateway([], { ...state, coap: coap(nat) }, true, { clock });
      nat.leadTo(gateway);
      const clients = await twoPlain(site, nat, [{}, {}], 600);
      await using _a = clients[0];
      await using _b = clients[1];
      const [first, second] = nat.ports as [number, number];
      nat.swap();
      if (restarted) {
        const { coapPort } = gateway;
        await gateway[Symbol.asyncDispose]();
        gateway = await later.gateway([], { ...state, coap: coap(nat, coapPort) }, true, { clock });
      }
      const names = async () => await Promise.all(clients.map((client) => client.register(600)));
      assert.deepEqual(await names(), ['4.09', '4.09'], 'somebody answers at the address of each');
      const orders = [one, two].map((id) => gateway.manage(id, [reboot], 600_000));
      for (const order of orders) order.catch(() => {});
      await clock.leap(601_000);
      assert.deepEqual(await names(), ['2.01', '2.01']);
      const events: EventRecorder = restarted ? later.gatewayEvents : site.gatewayEvents;
      const proven = () => events.all.filter(({ name }) => name === 'registration.proven').length;
      while (proven() < (restarted ? 2 : 4)) await events.next('registration.proven');
      assert.deepEqual([isAt(gateway, one, second), isAt(gateway, two, first)], [true, true]);
      assert.deepEqual(
        clients.map(({ reboots }) => reboots),
        [0, 0],
        'nobody rebooted for another one',
      );
    });

  // conforms: GW-26
  test('clients without a trigger are identified by their serial numbers', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { coap: coap(nat), lwm2m });
    nat.leadTo(gateway);
    const clients = await twoPlain(site, nat, [{ serial: 'S-1' }, { serial: 'S-2' }], 3600);
    await using a = clients[0];
    await using b = clients[1];
    assert.equal((await gateway.manage(one, [reboot], 10_000))[0]?.status, 200);
    assert.deepEqual([a.reboots, b.reboots], [1, 0]);
    nat.swap();
    await assert.rejects(gateway.manage(one, [reboot], 1000), { code: 'timeout' });
    assert.deepEqual([a.reboots, b.reboots], [1, 0]);
    assert.match(reasons(gateway)[0] ?? '', /another device answers at coap:/);
    assert.deepEqual([await a.register(3600), await b.register(3600)], ['2.01', '2.01']);
  });

  // conforms: GW-26
  test('clients with the same serial number, or none, get an order when they are heard', async () => {
    for (const serial of [undefined, 'S-0']) {
      await using broker = await startAedes();
      await using nat = await Nat.open();
      await using site = new Site(broker.url);
      const gateway = await site.gateway([], { coap: coap(nat), lwm2m });
      nat.leadTo(gateway);
      const clients = await twoPlain(site, nat, [{ serial }, { serial }], 3600);
      await using a = clients[0];
      await using b = clients[1];
      nat.swap();
      const done = gateway.manage(one, [reboot], 30_000);
      assert.equal(await b.update(), '2.04');
      await site.gatewayEvents.until('device.unreachable', { device: one });
      assert.equal(await a.update(), '2.04');
      assert.equal((await done)[0]?.status, 200);
      assert.deepEqual([a.reboots, b.reboots], [1, 0]);
    }
  });

  test('a stranger that answers everything at the address of a client gets no order', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const clock = new LeapClock();
    const gateway = await site.gateway([], { coap: coap(nat), lwm2m }, true, { clock });
    nat.leadTo(gateway);
    const client = site.client(one, nat);
    await client.start();
    await client.attached;
    await site.gatewayEvents.until('registration.proven', { device: one });
    const orders: string[] = [];
    const asked = Promise.withResolvers<void>();
    // It says 2.04 to everything, and claims to have every serial number.
    await using stranger = await CoapPeer.open(({ method, path }) => {
      if (method === Code.POST && path[0] === '3') orders.push(path.join('/'));
      if (path.join('/') === '1/0/8') asked.resolve();
      return reply(method === Code.GET ? Code.Content : Code.Changed, { payload: 'anything' });
    });
    nat.takeOver(nat.insidePorts[0]!, stranger.socket.address().port);
    const refused = assert.rejects(gateway.manage(one, [reboot], 40_000), { code: 'timeout' });
    await asked.promise;
    await clock.leap(11_000);
    await clock.leap(30_000);
    await refused;
    assert.deepEqual(orders, []);
  });
});
