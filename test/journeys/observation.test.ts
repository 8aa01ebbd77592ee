import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import type { ObservationWish, ReportedValue } from '../../src/gateway/southbound/observer.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { EventRecorder } from '../event-recorder.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Nat } from '../peers/nat.ts';
import { turn } from '../wire/coap/wire.ts';
import { clientConfig, gatewayConfig, loopback, secrets, type Toml } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 120_000 };
const temperature = '/3303/0/5700';
const battery = '/3/0/9';
const wishOf = (paths: readonly string[], attributes: ObservationWish['attributes'] = {}, name = 'w') => ({
  name,
  paths,
  attributes,
});

interface Values {
  readonly device: string;
  readonly name: string | undefined;
  readonly values: readonly ReportedValue[];
}

/** A gateway without an uplink, behind a NAT, and what its clients report. Its next run has the same port and state. */
class Observing implements AsyncDisposable {
  readonly nat: Nat;
  readonly #tables: Toml;
  #port = 0;
  #stack = new AsyncDisposableStack();
  readonly #reported: Values[] = [];
  #came = Promise.withResolvers<void>();
  events!: EventRecorder;
  parts!: ReturnType<typeof composeGateway>;
  gateway!: Gateway;

  private constructor(nat: Nat, tables: Toml) {
    this.nat = nat;
    this.#tables = tables;
  }

  static async open(tables: Toml): Promise<Observing> {
    const made = new Observing(await Nat.open(), tables);
    await made.next();
    return made;
  }

  /** Ends the gateway, and starts the next run of it. */
  async next(): Promise<void> {
    await this.#stack.disposeAsync();
    this.#stack = new AsyncDisposableStack();
    this.events = new EventRecorder();
    const surroundings = { events: this.events, listInterfaces: loopback('IPv4') };
    const advertised = this.#tables.coaps ? {} : { advertise: this.nat.advertised };
    const config = gatewayConfig('mqtt://127.0.0.1:1', [], {
      coap: { port: this.#port, leisure: 50, 'insecure-plain-coap': true, ...advertised },
      ...this.#tables,
    });
    this.parts = composeGateway(config, surroundings);
    this.parts.signals.add({
      valued: (device, name, values) => {
        this.#reported.push({ device, name, values });
        this.#came.resolve();
      },
    });
    this.gateway = this.#stack.use(new Gateway(config, surroundings, this.parts));
    await this.gateway.start();
    this.#port = this.gateway.coapPort;
    this.nat.leadTo(this.gateway);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    await this.nat[Symbol.asyncDispose]();
  }

  wish(...wishes: readonly ObservationWish[]): void {
    this.parts.lwm2m!.observer.wish(id, wishes);
  }

  stateOf(name: string) {
    return this.parts.lwm2m!.observer.stateOf(id, name);
  }

  /** The next values that come. */
  async values(): Promise<Values> {
    for (;;) {
      const next = this.#reported.shift();
      if (next) return next;
      this.#came = Promise.withResolvers();
      await this.#came.promise;
    }
  }

  /** Waits until the next values are these, and drops those before. */
  async until(name: string | undefined, expected: Readonly<Record<string, unknown>>): Promise<Values> {
    for (;;) {
      const found = await this.values();
      const all = Object.fromEntries(found.values.map(({ path, value }) => [path, value]));
      const isThat = Object.entries(expected).every(([path, value]) => all[path] === value);
      if (found.name === name && isThat) return found;
    }
  }
}

/** Resolves when the condition holds, after whatever datagrams that takes. */
async function until(t: TestContext, holds: () => boolean): Promise<void> {
  while (!holds()) {
    if (t.signal.aborted) assert.fail('it did not come to that');
    await turn();
  }
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-observation-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const plain = { lwm2m: { device: [{ id }], 'insecure-no-security': true } };
const keyed = { id, 'factory-secret': secrets.factory(id) };
const ways = {
  'plain CoAP': { gateway: plain, device: {} },
  DTLS: {
    gateway: { coaps: { port: 0 }, lwm2m: { device: [keyed] } },
    device: { 'factory-secret': keyed['factory-secret'] },
  },
  OSCORE: {
    gateway: { oscore: {}, lwm2m: { device: [{ ...keyed, security: 'oscore' }] } },
    device: { 'factory-secret': keyed['factory-secret'], security: 'oscore' },
  },
} as const;

async function attached(
  observing: Observing,
  device: Toml = {},
  at: { coapPort: number } = observing.nat,
  prepare: (client: LwM2mDevice) => void = () => {},
) {
  const events = new EventRecorder();
  const client = new LwM2mDevice(clientConfig(id, at, {}, device), { events });
  prepare(client);
  await client.start();
  await client.attached;
  await observing.events.until('registration.proven', { device: id });
  return client;
}

for (const [way, { gateway, device }] of Object.entries(ways))
  describe(`the reference LwM2M client over ${way}`, limit, () => {
    test('is observed at one path and at several, sends unasked, and is not observed any more', async (t) => {
      await using observing = await Observing.open(gateway);
      observing.wish(wishOf([temperature]), wishOf(['/3303/0/5701', battery], {}, 'both'));
      await using client = await attached(observing, device);
      await observing.until('w', { [temperature]: 21.5 });
      await observing.until('both', { '/3303/0/5701': 'Cel', [battery]: 87 });
      assert.deepEqual(
        [observing.stateOf('w'), observing.stateOf('both')],
        Array(2).fill({ state: 'observing' }),
      );
      assert.equal(client.observations, 2);
      for (const degrees of [22, 22.5, 23]) {
        client.set(temperature, degrees);
        await observing.until('w', { [temperature]: degrees });
      }
      client.set(battery, 50);
      await observing.until('both', { [battery]: 50 });

      const before = Date.now();
      await client.send([temperature, '/3303/0/5701']);
      const { values } = await observing.until(undefined, { [temperature]: 23, '/3303/0/5701': 'Cel' });
      for (const { at } of values) assert.ok(at >= before - 1 && at <= Date.now());

      observing.wish(wishOf(['/3303/0/5701', battery], {}, 'both'));
      await until(t, () => client.observations === 1);
      observing.wish();
      await until(t, () => client.observations === 0);
    });

    test('is observed anew after it has registered anew, and after a restart of the gateway', async (t) => {
      const folder = folderOf(t);
      await using observing = await Observing.open({
        ...gateway,
        gateway: { id: 'gw-1', state: join(folder, 'state.db') },
      });
      observing.wish(wishOf([temperature]));
      await using client = await attached(observing, device);
      await observing.until('w', { [temperature]: 21.5 });
      client.set(temperature, 25);
      await observing.until('w', { [temperature]: 25 });
      await client.detach();
      assert.deepEqual(observing.stateOf('w'), { state: 'waiting' });
      await observing.next();
      observing.wish(wishOf([temperature]));
      await using again = await attached(observing, device);
      await observing.until('w', { [temperature]: 21.5 });
      again.set(temperature, 26);
      await observing.until('w', { [temperature]: 26 });
      assert.equal(again.observations, 1);
    });
  });

describe('an LwM2M client that is observed', limit, () => {
  test('heeds pmin, pmax, gt, lt and st, which the gateway has set', async () => {
    await using observing = await Observing.open(plain);
    observing.wish(wishOf([temperature], { gt: 30, lt: 10, st: 5 }));
    await using client = await attached(observing);
    await observing.until('w', { [temperature]: 21.5 });
    for (const [degrees, isTold] of [
      [22, false],
      [26.5, true],
      [30, false],
      [30.5, true],
      [31, false],
      [9, true],
    ] as const) {
      client.set(temperature, degrees);
      if (isTold) assert.equal((await observing.values()).values[0]?.value, degrees);
    }
    observing.wish(wishOf([temperature], { pmax: 1 }));
    await observing.until('w', { [temperature]: 9 });
    await observing.until('w', { [temperature]: 9 });
    observing.wish(wishOf([temperature], { pmin: 1 }));
    await observing.until('w', { [temperature]: 9 });
    client.set(temperature, 1);
    client.set(temperature, 2);
    assert.equal((await observing.values()).values[0]?.value, 2);
  });

  test('that comes by another port is observed there; what it still sends for the old observation gets a Reset', async (t) => {
    await using observing = await Observing.open(plain);
    observing.wish(wishOf([temperature]));
    await using client = await attached(observing);
    await observing.until('w', { [temperature]: 21.5 });
    await observing.nat.rebind();
    client.set(temperature, 30);
    await client.update();
    await observing.until('w', { [temperature]: 30 });
    client.set(temperature, 31);
    await observing.until('w', { [temperature]: 31 });
    await until(t, () => client.observations === 1);
  });

  for (const [how, count, from, made] of [
    ['path by path where one request cannot name them all', 64, 1000, 64],
    ['by one request where it can, with values in several blocks', 50, 0, 1],
  ] as const)
    test(`at ${count} paths: ${how}`, async () => {
      await using observing = await Observing.open(plain);
      const paths = Array.from({ length: count }, (_, at) => `/3311/${from + at}/5851`);
      observing.wish(wishOf(paths));
      const change = (to: LwM2mDevice, base: number) => {
        for (const [at, path] of paths.entries()) to.set(path, base + at);
      };
      await using client = await attached(observing, {}, observing.nat, (each) => change(each, 1e6));
      const seen = new Map<string, unknown>();
      const all = async (base: number) => {
        while (paths.some((path, at) => seen.get(path) !== base + at))
          for (const { path, value } of (await observing.values()).values) seen.set(path, value);
      };
      await all(1e6);
      assert.equal(client.observations, made);
      change(client, 2e6);
      await all(2e6);
      assert.deepEqual(observing.stateOf('w'), { state: 'observing' });
    });

  test('sends from elsewhere, or before it has registered, in vain', async () => {
    await using observing = await Observing.open(plain);
    await using _client = await attached(observing);
    await using stranger = await CoapPeer.open();
    const payload = Buffer.from('[{"n":"/3303/0/5700","v":99}]');
    const send = () =>
      stranger.call(observing.gateway.coapPort, {
        method: Code.POST,
        path: ['dp'],
        contentFormat: ContentFormat.SenmlJson,
        payload,
      });
    assert.equal((await send()).name, '4.04');
    assert.equal(observing.parts.lwm2m!.observer.stateOf(id, 'w'), undefined);
  });
});
