import { networkInterfaces } from 'node:os';
import { checkConfig } from '../../src/base/config.ts';
import { type DeviceConfig, deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import type { GatewaySurroundings } from '../../src/gateway/composition.ts';
import { type GatewayConfig, gatewayConfigSchema } from '../../src/gateway/config.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import type { ListInterfaces } from '../../src/gateway/southbound/interfaces.ts';
import { type HeadendConfig, headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import { EventRecorder } from '../event-recorder.ts';

export type Toml = Record<string, unknown>;

/** Lists the loopback interface only, with its addresses of one family. */
export function loopback(family: 'IPv4' | 'IPv6'): ListInterfaces {
  return () => ({ lo: (networkInterfaces().lo ?? []).filter((address) => address.family === family) });
}

/** Secrets of all parties, by ID where each party has its own. */
export const secrets = {
  gatewayClient: 'gateway-client-secret',
  gatewayServer: 'gateway-server-secret',
  deviceClient: (id: string) => `client-secret-of-${id}`,
  deviceServer: (id: string) => `server-secret-of-${id}`,
  factory: (id: string) => `factory-secret-of-${id}`,
};

/** The configuration of a DM server, `dm.example`. `changes` are tables to be replaced. */
export const headendConfig = (
  brokerUrl: string,
  deviceIds: readonly string[],
  changes: Toml = {},
): HeadendConfig =>
  checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 20 },
      mqtt: { url: brokerUrl },
      gateway: [
        { id: 'gw-1', 'client-secret': secrets.gatewayClient, 'server-secret': secrets.gatewayServer },
      ],
      device: deviceIds.map((id) => ({
        id,
        'client-secret': secrets.deviceClient(id),
        'server-secret': secrets.deviceServer(id),
      })),
      ...changes,
    },
    'test',
  );

/** The configuration of a gateway, `gw-1`. `changes` are tables to be replaced. */
export const gatewayConfig = (
  brokerUrl: string,
  factoryIds: readonly string[],
  changes: Toml = {},
): GatewayConfig =>
  checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1', state: ':memory:' },
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
      // Child gateways come over DTLS.
      ...(factoryIds.some((id) => id.startsWith('gw-')) && { coaps: { port: 0 } }),
      mqtt: { url: brokerUrl },
      'dm-server': {
        id: 'dm.example',
        'client-secret': secrets.gatewayClient,
        'server-secret': secrets.gatewayServer,
      },
      bootstrap: {
        device: factoryIds.map((id) => ({
          id,
          'factory-secret': secrets.factory(id),
          gateway: id.startsWith('gw-'),
        })),
      },
      ...changes,
    },
    'test',
  );

/** Tables of a child gateway that reaches its parent, `gw-1`, over DTLS. */
export const childTables = (id: string, { coapsPort }: Pick<Gateway, 'coapsPort'>) => ({
  mqtt: undefined,
  parent: { id: 'gw-1', uri: `coaps://127.0.0.1:${coapsPort}`, 'factory-secret': secrets.factory(id) },
});

/** Name of the node of the account that a gateway has for a server. Undefined when a DM server finds none. */
export async function accountNode(
  headend: Pick<Headend, 'manage'>,
  gateway: string,
  serverId: string,
): Promise<string | undefined> {
  const listed = await headend.manage(gateway, [{ name: 'Get', uri: './DMAcc' }]);
  const names = String(listed[0]?.results[0]?.data).split('/');
  const found = await headend.manage(
    gateway,
    names.map((name) => ({ name: 'Get' as const, uri: `./DMAcc/${name}/ServerID` })),
  );
  return names[found.findIndex(({ results }) => results[0]?.data === serverId)];
}

/** What an OMA DM device of a site is: see `Site.device`. */
export interface DeviceKind {
  readonly factory?: boolean;
  readonly server?: boolean;
  readonly multicast?: boolean;
  readonly more?: Toml;
  readonly top?: Toml;
}

/** The configuration of an OMA DM device. */
export const deviceConfig = (
  id: string,
  gateway: Pick<Gateway, 'coapPort'>,
  { factory, server, multicast, more, top }: DeviceKind = {},
): DeviceConfig =>
  checkConfig(
    deviceConfigSchema,
    {
      device: {
        id,
        manufacturer: 'Maker & Sons',
        ...(factory && { 'factory-secret': secrets.factory(id) }),
        ...more,
      },
      network: multicast
        ? { 'multicast-port': gateway.coapPort, interface: '127.0.0.1' }
        : { gateway: `coap://127.0.0.1:${gateway.coapPort}`, interface: '127.0.0.1' },
      ...(server && {
        'dm-server': {
          id: 'dm.example',
          'client-secret': secrets.deviceClient(id),
          'server-secret': secrets.deviceServer(id),
        },
      }),
      ...top,
    },
    'test',
  );

/** The configuration of an LwM2M client. `more` are further keys of the table `device`, `top` further tables. */
export const clientConfig = (
  id: string,
  gateway: Pick<Gateway, 'coapPort'>,
  lwm2m: Toml = {},
  more: Toml = {},
  top: Toml = {},
): DeviceConfig =>
  checkConfig(
    deviceConfigSchema,
    {
      device: { id, manufacturer: 'Maker & Sons', model: 'T1', ...more },
      network: { gateway: `coap://127.0.0.1:${gateway.coapPort}`, interface: '127.0.0.1' },
      lwm2m,
      ...top,
    },
    'test',
  );

/**
 * One gateway, its DM server and some devices, on sockets of the loopback interface. Everything that a site starts ends with
 * the site. Events of all parties of one kind are in one recorder.
 */
export class Site implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #brokerUrl: string;
  readonly gatewayEvents = new EventRecorder();
  readonly headendEvents = new EventRecorder();
  readonly deviceEvents = new EventRecorder();

  constructor(brokerUrl: string) {
    this.#brokerUrl = brokerUrl;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  /**
   * Starts a DM server, `dm.example`, with an account for the gateway `gw-1`, and waits for its connection to the broker.
   * @param deviceIds devices for which it has accounts
   * @param changes tables of the configuration to be replaced
   * @param wait whether to wait for the connection
   */
  async headend(deviceIds: readonly string[], changes: Toml = {}, wait = true): Promise<Headend> {
    const config = headendConfig(this.#brokerUrl, deviceIds, changes);
    const headend = this.#stack.use(new Headend(config, { events: this.headendEvents }));
    headend.start();
    if (wait) await this.headendEvents.until('mqtt.connected');
    return headend;
  }

  /**
   * Starts a gateway, `gw-1`.
   * @param factoryIds devices that it may bootstrap
   * @param changes tables of the configuration to be replaced
   * @param wait whether to wait for its connection to the broker
   * @param surroundings instead of the machine's own, such as a clock
   */
  async gateway(
    factoryIds: readonly string[],
    changes: Toml = {},
    wait = true,
    surroundings: Partial<GatewaySurroundings> = {},
  ): Promise<Gateway> {
    const config = gatewayConfig(this.#brokerUrl, factoryIds, changes);
    const gateway = this.#stack.use(
      new Gateway(config, { events: this.gatewayEvents, listInterfaces: loopback('IPv4'), ...surroundings }),
    );
    await gateway.start();
    if (wait) await this.gatewayEvents.until('mqtt.connected');
    return gateway;
  }

  /**
   * Makes an OMA DM device, which the test starts.
   * @param how `factory`: it has a factory secret; `server`: it has an account for the DM server; `multicast`: it finds the
   *   gateway by multicast; `more` and `top`: further keys of the table `device` and further tables of the configuration
   */
  device(id: string, gateway: Pick<Gateway, 'coapPort'>, how: DeviceKind = {}): Device {
    const config = deviceConfig(id, gateway, how);
    return this.#stack.use(new Device(config, { events: this.deviceEvents }));
  }

  /** Makes an LwM2M client, which the test starts. `more` are further keys of the table `device`, `top` further tables. */
  client(
    id: string,
    gateway: Pick<Gateway, 'coapPort'>,
    lwm2m: Toml = {},
    more: Toml = {},
    top: Toml = {},
  ): LwM2mDevice {
    const config = clientConfig(id, gateway, lwm2m, more, top);
    return this.#stack.use(new LwM2mDevice(config, { events: this.deviceEvents }));
  }
}
