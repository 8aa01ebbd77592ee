// A process on a machine of a lab (test/peers/lab.ts): it plays a role, and its test calls it over the channel of Node.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { type AddressInfo, createServer, isIPv6 } from 'node:net';
import { Aedes } from 'aedes';
import { SystemClock } from '../../src/base/clock.ts';
import { checkConfig } from '../../src/base/config.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import type { Events } from '../../src/base/events.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { CoapNetwork } from '../../src/gateway/southbound/coap-network.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import type { FanoutRequest } from '../../src/headend/orders.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { Option, text } from '../../src/wire/coap/options.ts';

type Toml = Record<string, unknown>;

/** What the process tells its test: an event, or the answer to a call. */
export type LabMessage =
  | { readonly event: string; readonly fields: unknown }
  | { readonly id: number; readonly result?: unknown; readonly error?: string };

const tell = (message: LabMessage) => process.send?.(message);
const events: Events = { emit: (event, fields) => void tell({ event, fields }) };
const surroundings = { events };

const gatewayOf = (gateway: Gateway) => ({
  devices: () => gateway.devices(),
  addresses: () => gateway.status().coap.addresses,
  httpPort: () => Number(new URL(gateway.httpUrl ?? 'http://none:0').port),
  /** The gateway acts on a device by itself, in proxy or adaptation mode. */
  manage: (device: string, operations: readonly Operation[], timeout: number) =>
    gateway.manage(device, operations, timeout),
});

/** The roles. Each is a function that starts it and answers with what its test may call. */
export const roles = {
  /** A broker and a DM server, at an address of this machine. */
  server: async (host: string, config: Toml) => {
    const broker = await Aedes.createBroker();
    const listener = createServer({ noDelay: true }, broker.handle);
    listener.listen(0, host);
    await once(listener, 'listening');
    const { port } = listener.address() as AddressInfo;
    const url = `mqtt://${isIPv6(host) ? `[${host}]` : host}:${port}`;
    const headend = new Headend(
      checkConfig(headendConfigSchema, { mqtt: { url }, ...config }, 'lab'),
      surroundings,
    );
    headend.start();
    return {
      url: () => url,
      manage: (party: string, operations: readonly Operation[]) => headend.manage(party, operations),
      fanOut: (gateway: string, request: FanoutRequest) => headend.fanOut(gateway, request),
      results: () => headend.fanouts().map(({ result }) => result),
    };
  },

  gateway: async (config: Toml) => {
    const gateway = new Gateway(checkConfig(gatewayConfigSchema, config, 'lab'), surroundings);
    await gateway.start();
    return gatewayOf(gateway);
  },

  device: async (config: Toml) => {
    const device = new Device(checkConfig(deviceConfigSchema, config, 'lab'), surroundings);
    await device.start();
    return { attached: () => device.attached, value: (...path: string[]) => device.value(...path) };
  },

  client: async (config: Toml) => {
    const client = new LwM2mDevice(checkConfig(deviceConfigSchema, config, 'lab'), surroundings);
    await client.start();
    return { attached: () => client.attached, value: (path: string) => client.value(path) };
  },

  /** The CoAP endpoints of a gateway without anything above them. They answer with the address that was asked. */
  network: async (options: { interfaces?: readonly string[]; multicast?: boolean } = {}) => {
    const network = new CoapNetwork({
      port: 5683,
      interfaces: [],
      multicast: true,
      clock: new SystemClock(),
      entropy: systemEntropy,
      limits: { leisure: 0 },
      ...options,
      events,
    });
    await network.start(
      ({ bound }) =>
        () =>
          reply(Code.Content, { payload: bound }),
    );
    return {
      refresh: () => network.refresh(),
      addresses: () => network.addresses.map(({ address }) => address),
      towards: (remote: string, heardOn?: string) => network.addressTowards(remote, heardOn),
      /** Whether an endpoint answers a ping from the address that is chosen for it. */
      ping: (remote: string, port: number, heardOn?: string) =>
        network.towards(remote, heardOn)?.ping(remote, port, 2000) ?? false,
    };
  },

  /** Asks CoAP nodes, and answers pings. */
  asker: async () => {
    const sockets = { 4: createSocket('udp4'), 6: createSocket({ type: 'udp6', ipv6Only: true }) };
    for (const socket of Object.values(sockets)) {
      const listening = once(socket, 'listening');
      socket.bind(0);
      await listening;
      socket.on('message', (octets, { address, port }) => {
        const message = decode(octets);
        if (message instanceof Malformed) return;
        const isPing = message.type === Type.CON && message.code === Code.Empty;
        if (isPing)
          socket.send(Buffer.from([0x70, 0, message.messageId >> 8, message.messageId & 255]), port, address);
      });
    }
    let count = 0;
    return {
      port: (family: 4 | 6) => sockets[family].address().port,
      /** Posts to an HTTP server. Returns the status of the answer. */
      post: async (host: string, port: number, path: string, type: string, body: string) => {
        const outgoing = request({ host, port, path, method: 'POST', headers: { 'content-type': type } });
        outgoing.end(body);
        const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
        response.resume();
        return response.statusCode;
      },
      /**
       * Sends a request, by `via` for a group. Returns the address that answered and the address that was asked, as its
       * node says. Undefined when no answer comes.
       */
      ask: async (host: string, via?: string): Promise<{ from: string; asked: string } | undefined> => {
        const socket = sockets[isIPv6(host) ? 6 : 4];
        if (via !== undefined) socket.setMulticastInterface(via);
        const messageId = ++count;
        const { promise, resolve } = Promise.withResolvers<{ from: string; asked: string } | undefined>();
        const take = (octets: Buffer, { address }: { address: string }) => {
          const message = decode(octets);
          if (message instanceof Malformed || !Buffer.from(message.token).equals(Buffer.of(messageId)))
            return;
          resolve({ from: address, asked: Buffer.from(message.payload).toString() });
        };
        socket.on('message', take);
        const timer = setTimeout(() => resolve(undefined), 2000);
        const get = { type: Type.NON, code: Code.GET, messageId, token: Buffer.of(messageId) };
        // Long enough for an answer of three times its bytes.
        const options = [text(Option.UriPath, 'which-address-is-this')];
        socket.send(encode({ ...get, options, payload: noBytes }), 5683, host, (error) => {
          if (error) resolve(undefined);
        });
        const answer = await promise;
        clearTimeout(timer);
        socket.off('message', take);
        return answer;
      },
    };
  },
};
export type LabRoles = typeof roles;

type Calls = Record<string, (...args: unknown[]) => unknown>;
let calls: Calls = {
  start: async (role, ...args) => {
    const start = roles[role as keyof LabRoles] as (...args: unknown[]) => Promise<Calls>;
    calls = await start(...args);
  },
};

if (process.send) {
  process.on('message', async ({ id, name, args }: { id: number; name: string; args: unknown[] }) => {
    try {
      tell({ id, result: await calls[name]?.(...args) });
    } catch (thrown) {
      tell({ id, error: thrown instanceof Error ? thrown.message : String(thrown) });
    }
  });
  // The test has ended, in whatever way.
  process.on('disconnect', () => process.exit());
}
