import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Aedes } from 'aedes';
import { checkConfig } from '../base/config.ts';
import { systemEntropy } from '../base/entropy.ts';
import type { EventFields } from '../base/event-fields.ts';
import type { EventName } from '../base/event-table.ts';
import type { Events } from '../base/events.ts';
import { inOneLine } from '../base/safe-text.ts';
import { uriHost } from '../base/uri-host.ts';
import { deviceConfigSchema } from '../device/config.ts';
import { Device } from '../device/device.ts';
import { LwM2mDevice } from '../device/lwm2m-device.ts';
import { placeOf } from '../dm/server-session.ts';
import { gatewayConfigSchema } from '../gateway/config.ts';
import { Gateway } from '../gateway/gateway.ts';
import { HeadendApi } from '../headend/api.ts';
import { ApiToken } from '../headend/api-token.ts';
import { headendConfigSchema } from '../headend/config.ts';
import { Headend } from '../headend/headend.ts';
import { coapBase, coapPort, coapsPort } from '../wire/coap/uri.ts';
import { Narrator } from './narrator.ts';

const apiPort = 8080;
const serverId = 'dm.example';
const gatewayId = 'gw-demo';
const otherGatewayId = 'gw-demo-2';
const local = ['urn:dev:demo:1', 'urn:dev:demo:2'];
const assisted = 'urn:dev:demo:3';
const lwm2mClient = 'urn:dev:demo:8';
const spare = ['urn:dev:demo:4', 'urn:dev:demo:5', 'urn:dev:demo:6', 'urn:dev:demo:7'];
/** Factory secrets of the devices; good for nothing but this demo. */
const factorySecret = (id: string): string => `factory-of-${id.split(':').at(-1)}`;
const width = 100;
/** Commands of the first fan-out of the demo. */
const askFirmware =
  '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>';

const item = (uri: string, data?: string): string =>
  `<Item><Target><LocURI>${uri}</LocURI></Target>${data === undefined ? '' : `<Data>${data}</Data>`}</Item>`;
/** FUMO on each device: the gateway replaces the name of the image by the URI at which this device reaches it. */
const updateFrom = (image: string, version: string): string =>
  `<Add><CmdID>1</CmdID>${item('./FwUpdate/PkgVersion', version)}</Add>` +
  `<Replace><CmdID>2</CmdID>${item('./FwUpdate/DownloadAndUpdate/PkgURL', `gw-image:${image}`)}</Replace>` +
  `<Exec><CmdID>3</CmdID>${item('./FwUpdate/DownloadAndUpdate')}</Exec>`;
/** For an LwM2M client: resource On/Off of its first lamp. */
const switchOn = `<Replace><CmdID>1</CmdID>${item('./3311/0/5850', 'true')}</Replace>`;
const imageBytes = 64 * 1024;

/** Waits for events by their names. */
class Waiter implements Events {
  readonly #waiting: {
    name: EventName;
    device?: string | undefined;
    gateway?: string | undefined;
    resolve: () => void;
  }[] = [];
  readonly #seen: { name: EventName; fields: EventFields }[] = [];

  emit(name: EventName, fields: EventFields): void {
    this.#seen.push({ name, fields });
    for (const { resolve } of this.#waiting.filter((one) => fits(one, { name, fields }))) resolve();
  }

  /** Resolves at the next event of this name. */
  next(name: EventName): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ name, resolve });
    return promise;
  }

  /** Resolves at the first event of this name, also if it happened before. */
  until(name: EventName, device?: string, gateway?: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wanted = { name, device, gateway, resolve };
    this.#waiting.push(wanted);
    if (this.#seen.some((event) => fits(wanted, event))) resolve();
    return promise;
  }
}

const fits = (
  wanted: { name: EventName; device?: string | undefined; gateway?: string | undefined },
  { name, fields }: { name: EventName; fields: EventFields },
): boolean =>
  wanted.name === name &&
  (wanted.device ?? fields.device) === fields.device &&
  (wanted.gateway ?? fields.gateway) === fields.gateway;

/** Addresses of the loopback interface. */
const loopbacks = { 4: '127.0.0.1', 6: '::1' } as const;
/** The entries of the loopback interface for one family. */
const loopbackOf = (family: 4 | 6) =>
  (networkInterfaces().lo ?? []).filter((entry) => entry.family === `IPv${family}`);

/** Runs all parties on the loopback interface, with a built-in configuration, and shows what they do. */
export class Demo implements AsyncDisposable {
  readonly #print: (line: string) => void;
  readonly #family: 4 | 6;
  readonly #loopback: string;
  readonly #stack = new AsyncDisposableStack();
  readonly #began = performance.now();
  readonly #happened = new Waiter();
  readonly #devices = new Map<string, Device>();
  /** State of the devices, which survives their move to another network. Deleted at the end of the demo. */
  readonly #folder = mkdtempSync(join(tmpdir(), 'postern-demo-'));
  #gateway: Gateway | undefined;

  /** @param family of the addresses; by default IPv4, and IPv6 on a machine without IPv4 */
  constructor(print: (line: string) => void, family: 4 | 6 = loopbackOf(4).length > 0 ? 4 : 6) {
    this.#print = print;
    this.#family = family;
    this.#loopback = loopbacks[family];
  }

  /** Where a gateway serves devices: over DTLS. */
  #served(gateway: Gateway): string {
    return coapBase(this.#loopback, gateway.coapsPort ?? 0, 'coaps');
  }

  /** @throws before `run` has started the gateway */
  get gateway(): Gateway {
    if (!this.#gateway) throw new Error('the gateway is still starting');
    return this.#gateway;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Starts all parties, shows the journeys, and prints how to look around. */
  async run(stop: AbortSignal): Promise<void> {
    const stopping = new Promise<void>((resolve) =>
      stop.addEventListener('abort', () => resolve(), { once: true }),
    );
    await Promise.race([this.#show(), stopping]);
  }

  async #show(): Promise<void> {
    const fresh = () => Buffer.from(systemEntropy.bytes(16)).toString('base64url');
    const [gatewaySecrets, deviceSecrets, secondSecrets] = [0, 1, 2].map(() => ({
      'client-secret': fresh(),
      'server-secret': fresh(),
    }));
    this.#heading('Starting an MQTT broker, a DM server and a DM Gateway on the loopback interface');
    this.#print('    Devices are named without urn:dev: below: demo:1 is the device urn:dev:demo:1.');
    const broker = await this.#broker();
    this.#say('broker  ', `aedes listens at ${broker}`);
    const { headend, url, tokenFile } = await this.#headend(
      broker,
      gatewaySecrets!,
      secondSecrets!,
      deviceSecrets!,
    );
    this.#say('server  ', `DM server ${serverId}; its API is at ${url}, its token in ${tokenFile}`);
    const gateway = await this.#startGateway(broker, gatewaySecrets!);
    this.#say('gateway ', `DM Gateway ${gatewayId} serves devices at ${this.#served(gateway)}`);
    await this.#happened.until('gateway.state');

    this.#heading(
      'Journey 1: two blank devices find the gateway by multicast; its bootstrap server gives them accounts',
    );
    for (const id of local) await this.#attach(id, { 'factory-secret': factorySecret(id) });
    await Promise.all(local.map((id) => this.#happened.until('alert.delivered', id)));

    this.#heading(
      'Journey 2: a device that knows only its DM server; the server gives it an account for the gateway',
    );
    await this.#attach(assisted, {}, { id: serverId, ...deviceSecrets });
    await this.#happened.until('alert.delivered', assisted);

    this.#heading('Journey 3: the DM server manages demo:3, which it cannot reach directly');
    const outcomes = await headend.manage(assisted, [
      { name: 'Get', uri: './DevInfo/Mod' },
      { name: 'Replace', uri: './Settings/Label', data: 'pump house, north wall' },
    ]);
    for (const { operation, status, results } of outcomes)
      this.#say(
        'server  ',
        `${operation.name} ${placeOf(operation)} returned ${status}${results[0] ? `: ${results[0].data}` : ''}`,
      );

    this.#heading(
      'Journey 4: one order for all devices; the gateway has a session with each device and reports once',
    );
    await this.#fanOut(headend, 'firmware', askFirmware);

    this.#heading('Journey 5: the gateway gets an image once; all devices download it from there and update');
    await headend.stageImage(gatewayId, { name: 'fw-2', version: '2.0.0', data: randomBytes(imageBytes) });
    await this.#happened.until('image.ready');
    await this.#fanOut(headend, 'update', updateFrom('fw-2', '2.0.0'));

    this.#heading(
      'Journey 6: a device that speaks LwM2M, not OMA DM; adaptation mode carries the same order to it',
    );
    await this.#attachClient(lwm2mClient);
    await this.#happened.until('alert.delivered', lwm2mClient);
    await this.#fanOut(headend, 'mixed', askFirmware);
    this.#say('server  ', 'orders demo:8 to switch its lamp on, by the same kind of order');
    await this.#fanOut(headend, 'lamp', switchOn, [lwm2mClient]);

    this.#heading('Journey 7: demo:3 moves to another network; its server assigns it to the gateway there');
    await this.#stopDevice(assisted);
    const second = await this.#startGateway(broker, secondSecrets!, otherGatewayId);
    this.#say('gateway2', `DM Gateway ${otherGatewayId} serves devices at ${this.#served(second)}`);
    await this.#happened.until('gateway.state', undefined, otherGatewayId);
    await this.#attach(assisted, {}, { id: serverId, ...deviceSecrets }, second);
    await this.#happened.until('device.let-go', assisted);

    this.#heading('Everything is running. Look around, from another terminal in this folder:');
    const [next = ''] = spare;
    // The file has the token in the form of a header.
    const curl = `curl -H @${tokenFile} ${url}`;
    const lines = [
      'npx postern status',
      'npx postern devices',
      'npx postern join --minutes 5 --devices 1',
      ...['devices', 'alerts', 'openapi.json'].map((path) => `${curl}/${path}`),
      `${curl}/devices/${assisted}/sessions --json '{"operations": [{"name": "Get", "uri": "./Settings/Label"}]}'`,
      `${curl}/fanouts --json '{"gateway": "${gatewayId}", "name": "mine", "returnFormat": 0, "operations": [{"name": "Get", "uri": "./DevDetail/FwV"}]}'`,
      `${curl}/fanouts/${gatewayId}/mine`,
      '',
      'Attach one more device:',
      `POSTERN_FACTORY_SECRET=${factorySecret(next)} npx postern device --id ${next} --gateway ${this.#served(gateway)} --readable`,
      '',
      'Ctrl-C stops everything.',
    ];
    for (const line of lines) this.#print(`    ${line}`);
  }

  /** Has the gateway execute commands on all its devices, or on these, and prints the result. */
  async #fanOut(headend: Headend, name: string, command: string, devices?: string[]): Promise<void> {
    const targets = devices ? { devices } : {};
    await headend.fanOut(gatewayId, { name, command, targets, returnFormat: 2 });
    const done = () => headend.fanouts().find((each) => each.name === name);
    while (!done()) await this.#happened.next('alert.command-fanout');
    this.#say('server  ', `result: ${done()?.result}`);
  }

  #heading(text: string): void {
    this.#print(`\n${'-'.repeat(3)} ${text} ${'-'.repeat(Math.max(3, width - text.length - 5))}`);
  }

  #say(party: string, text: string): void {
    const seconds = ((performance.now() - this.#began) / 1000).toFixed(2).padStart(7);
    this.#print(`${seconds}  ${party}  ${inOneLine(text)}`);
  }

  #narrator(party: 'gateway' | 'headend' | 'device', column?: string): Narrator {
    return new Narrator(party, this.#print, { began: this.#began, next: this.#happened, column });
  }

  async #broker(): Promise<string> {
    const broker = await Aedes.createBroker();
    const server = createServer({ noDelay: true }, broker.handle);
    server.listen(0, this.#loopback);
    await once(server, 'listening');
    this.#stack.defer(async () => {
      await new Promise<void>((resolve) => broker.close(() => resolve()));
      server.close();
    });
    const address = server.address();
    return `mqtt://${uriHost(this.#loopback)}:${typeof address === 'object' && address ? address.port : 0}`;
  }

  async #headend(broker: string, gatewaySecrets: object, secondSecrets: object, deviceSecrets: object) {
    const config = checkConfig(
      headendConfigSchema,
      {
        headend: { id: serverId, state: ':memory:' },
        mqtt: { url: broker, protocol: '3.1.1' },
        gateway: [
          { id: gatewayId, ...gatewaySecrets },
          { id: otherGatewayId, ...secondSecrets },
        ],
        device: [{ id: assisted, ...deviceSecrets }],
      },
      'demo',
    );
    const events = this.#narrator('headend');
    const headend = this.#stack.use(new Headend(config, { events }));
    const token = new ApiToken({ state: config.headend.state, file: join(this.#folder, 'api-token') });
    token.prepare();
    const api = this.#stack.use(
      new HeadendApi({ headend, events: headend.events, token, settings: config.api }),
    );
    const at = (port: number) => api.start({ host: this.#loopback, port });
    await at(apiPort).catch(() => at(0));
    headend.start();
    await this.#happened.until('mqtt.connected');
    return { headend, url: api.url, tokenFile: token.file };
  }

  async #startGateway(broker: string, gatewaySecrets: object, id = gatewayId): Promise<Gateway> {
    const isFirst = id === gatewayId;
    const isUsual =
      isFirst && (await isFree(coapPort, this.#family)) && (await isFree(coapsPort, this.#family));
    const config = checkConfig(
      gatewayConfigSchema,
      {
        gateway: { id, state: ':memory:' },
        coap: { port: isUsual ? coapPort : 0, leisure: 300 },
        // With a key of its own, devices may join it (`postern join`).
        coaps: { port: isUsual ? coapsPort : 0, ...(isFirst && { 'key-file': this.#keyFile() }) },
        mqtt: { url: broker, protocol: '3.1.1' },
        'dm-server': { id: serverId, ...gatewaySecrets },
        bootstrap: {
          device: [...local, ...spare].map((device) => ({
            id: device,
            'factory-secret': factorySecret(device),
          })),
        },
        ...(isFirst && {
          lwm2m: { device: [{ id: lwm2mClient, 'factory-secret': factorySecret(lwm2mClient) }] },
        }),
      },
      'demo',
    );
    const gateway = new Gateway(config, {
      events: this.#narrator('gateway', isFirst ? 'gateway ' : 'gateway2'),
      listInterfaces: () => ({ lo: loopbackOf(this.#family) }),
    });
    this.#stack.use(gateway);
    if (isFirst) this.#gateway = gateway;
    await gateway.start();
    return gateway;
  }

  /** A key by which the gateway proves itself to devices that have public keys. */
  #keyFile(): string {
    const file = join(this.#folder, 'gateway.key');
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    return file;
  }

  async #attach(id: string, device: object, server?: object, gateway = this.gateway): Promise<void> {
    const config = checkConfig(
      deviceConfigSchema,
      {
        device: {
          id,
          manufacturer: 'Example',
          model: 'Demo device',
          state: join(this.#folder, `${id.split(':').at(-1)}.db`),
          ...device,
        },
        network: { 'multicast-port': gateway.coapPort, interface: this.#loopback },
        ...(server && { 'dm-server': server }),
      },
      'demo',
    );
    const running = this.#stack.use(new Device(config, { events: this.#narrator('device') }));
    this.#devices.set(id, running);
    await running.start();
    await running.attached;
  }

  async #attachClient(id: string): Promise<void> {
    const config = checkConfig(
      deviceConfigSchema,
      {
        device: {
          id,
          manufacturer: 'Example',
          model: 'Demo thermometer',
          'factory-secret': factorySecret(id),
        },
        network: { 'multicast-port': this.gateway.coapPort, interface: this.#loopback },
        lwm2m: {},
      },
      'demo',
    );
    const running = this.#stack.use(new LwM2mDevice(config, { events: this.#narrator('device') }));
    await running.start();
    await running.attached;
  }

  async #stopDevice(id: string): Promise<void> {
    await this.#devices.get(id)?.[Symbol.asyncDispose]();
  }
}

async function isFree(port: number, family: 4 | 6): Promise<boolean> {
  const probe = createSocket(`udp${family}`);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  probe.once('error', () => resolve(false));
  probe.bind({ port, address: loopbacks[family], exclusive: true }, () => resolve(true));
  const free = await promise;
  await new Promise<void>((done) => probe.close(() => done()));
  return free;
}
