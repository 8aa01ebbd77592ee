import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { startAedes } from '../peers/brokers.ts';
import { Nat } from '../peers/nat.ts';
import { loopback, Site, secrets } from './site.ts';

const limit = { timeout: 120_000 };
const names = ['gw-1', 'gw-2', 'gw-3'] as const;
const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});
const dmDevice = (gateway: string) => `urn:dev:${gateway}:dm`;
const client = (gateway: string) => `urn:dev:${gateway}:lwm2m`;
const command = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/DevId</LocURI></Target></Item></Get>';

/** One gateway of the chain, which can be restarted on the same port and state. */
class Level implements AsyncDisposable {
  readonly name: string;
  readonly #brokerUrl: string;
  readonly #folder: string;
  readonly #above: Level | undefined;
  readonly #family: 4 | 6;
  #nat: Nat | undefined;
  #site: Site;
  #gateway: Gateway | undefined;
  #port = 0;
  #securePort: number | undefined = 0;

  constructor(name: string, above: Level | undefined, broker: string, folder: string, family: 4 | 6) {
    this.name = name;
    this.#above = above;
    this.#brokerUrl = broker;
    this.#folder = folder;
    this.#family = family;
    this.#site = new Site(broker);
  }

  get gateway(): Gateway {
    return this.#gateway!;
  }

  get nat(): Nat {
    return this.#nat!;
  }

  async start(): Promise<void> {
    this.#nat ??= await Nat.open(this.#family);
    const below = names[names.indexOf(this.name as (typeof names)[number]) + 1];
    const host = this.#family === 6 ? '[::1]' : '127.0.0.1';
    const above = this.#above;
    this.#site = new Site(this.#brokerUrl);
    this.#gateway = await this.#site.gateway(
      [dmDevice(this.name), ...(below ? [below] : [])],
      {
        gateway: { id: this.name, state: join(this.#folder, `${this.name}.db`) },
        coap: {
          port: this.#port,
          leisure: 50,
          'insecure-plain-coap': true,
          advertise: this.#nat.advertised,
        },
        coaps: { port: this.#securePort },
        lwm2m: { device: [{ id: client(this.name) }], 'insecure-no-security': true },
        ...(above && {
          mqtt: undefined,
          parent: {
            id: above.name,
            uri: `coaps://${host}:${above.#securePort}`,
            'factory-secret': secrets.factory(this.name),
          },
        }),
      },
      false,
      { listInterfaces: loopback(this.#family === 6 ? 'IPv6' : 'IPv4') },
    );
    this.#port = this.#gateway.coapPort;
    this.#securePort = this.#gateway.coapsPort;
    this.#nat.leadTo(this.#gateway);
    await this.#site.gatewayEvents.until(above ? 'parent.connected' : 'mqtt.connected');
  }

  async stop(): Promise<void> {
    await this.#gateway?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#site[Symbol.asyncDispose]();
    await this.#nat?.[Symbol.asyncDispose]();
  }
}

function freshFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-restarts-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

describe('a chain of three gateways, each with an OMA DM device and an LwM2M client', limit, () => {
  // conforms: GW-22
  for (const family of [4, 6] as const)
    test(`after a restart of each gateway, and of all gateways, a fan-out reaches all devices, over IPv${family}`, async (t) => {
      const folder = freshFolder(t);
      await using broker = await startAedes();
      await using devices = new Site(broker.url);
      await using server = new Site(broker.url);
      const headend = await server.headend([], { gateway: names.map(party) });
      await using first = new Level('gw-1', undefined, broker.url, folder, family);
      await using second = new Level('gw-2', first, broker.url, folder, family);
      await using third = new Level('gw-3', second, broker.url, folder, family);
      const levels = [first, second, third];
      for (const level of levels) {
        await level.start();
        for (const device of [
          devices.device(dmDevice(level.name), level.nat, { factory: true }),
          devices.client(client(level.name), level.nat),
        ]) {
          await device.start();
          await device.attached;
        }
      }
      for (const { name } of levels)
        for (const device of [dmDevice(name), client(name)])
          await server.headendEvents.until('alert.device-attach', { device });
      const expected = names.flatMap((name) => [dmDevice(name), client(name)]).toSorted();
      const fanOut = async (name: string) => {
        const { correlator } = await headend.fanOut('gw-1', { name, command, targets: {}, returnFormat: 0 });
        await server.headendEvents.until('alert.command-fanout', { correlator });
        const result = headend.fanouts().find((each) => each.name === name)?.result ?? '';
        const answered = [...result.matchAll(/<Device ID="([^"]+)"><Result URI="[^"]+">([^<]+)</g)];
        assert.deepEqual(answered.map(([, id]) => id).toSorted(), expected, `${name}: ${result}`);
        for (const [, id, said] of answered) assert.equal(said, id, 'each for itself');
      };
      await fanOut('before');
      for (const level of levels) {
        await level.stop();
        await level.start();
        await fanOut(`after-${level.name}`);
      }
      for (const level of levels.toReversed()) await level.stop();
      for (const level of levels) await level.start();
      await fanOut('after-all');
      assert.deepEqual(
        levels.map(({ gateway }) => gateway.status().devices.unreachable),
        [0, 0, 0],
      );
    });
});
