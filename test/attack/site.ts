import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import { deviceId, secrets } from '../bench/crowd.ts';
import { key } from '../bench/dtls-client.ts';
import { factoryDevices, writeGatewayFile } from '../bench/gateway-file.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { freePort as freeUdpPort } from '../peers/foreign.ts';
import { authority, issue } from '../wire/secure/dtls/authority.ts';
import type { AuthorityFiles, Target } from './attacker.ts';
import { attacks } from './attacks.ts';
import {
  bootstrapped,
  type Deed,
  hasOscore,
  hasServer,
  honestChildren,
  hostileChild,
  image,
  isLwm2m,
  keyedPlaces,
  leaver,
  newcomerId,
  newcomers,
  oscoreOf,
  overheard,
  protectedDevices,
  renewer,
} from './deed.ts';
import { Gate } from './gate.ts';
import type { Crowd } from './honest.ts';
import { loopbackSources, network, on } from './network.ts';
import { Operator } from './operator.ts';
import { PartyProcess } from './party-process.ts';

/** Bytes of the image from which all devices update during each attack. */
const imageBytes = 20_000;
/** Associations that the gateway keeps at a time: several times as many as honest parties have. */
const associations = 100;
/** First port of the parties that speak CoAP over DTLS, where they have a network of their own. */
const firstKeyedPort = 41_000;

/** A port of TCP that is free now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

const program = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const port = (host: string, number: number): string =>
  `coap://${host.includes(':') ? `[${host}]` : host}:${number}`;

function writeHeadendFile(folder: string, broker: string, ids: readonly string[]): string {
  const file = join(folder, 'headend.toml');
  const devices = ids.map(
    (id) =>
      `[[device]]\nid = "${id}"\nclient-secret = "${secrets.client(id)}"\nserver-secret = "${secrets.server(id)}"\n`,
  );
  writeFileSync(
    file,
    `[headend]
id = "dm.example"
state = "${join(folder, 'headend.db')}"
[api]
port = 0
[mqtt]
url = "${broker}"
[policy]
assisted-bootstrap = false
[[gateway]]
id = "gw-1"
client-secret = "${secrets.gatewayClient}"
server-secret = "${secrets.gatewayServer}"
[[gateway]]
id = "gw-2"
client-secret = "secret of another gateway"
server-secret = "secret for another gateway"
${devices.join('')}`,
  );
  return file;
}

/** A gateway and a head-end (the bundles) behind a broker, with honest devices and an operator at work. */
export interface AttackedSite extends AsyncDisposable {
  readonly target: Target;
  readonly gateway: PartyProcess;
  readonly headend: PartyProcess;
  readonly operator: Operator;
  /** How often the DM server has heard that a device is attached, by device. */
  readonly attachments: ReadonlyMap<string, number>;
  /** What the honest parties did since the last call. */
  deeds(): Deed[];
  /** Lets so many devices attach that have never been here. Returns their IDs. */
  newcomers(count: number): string[];
  /** Starts attacks from one machine. They end when the result is disposed of. */
  attack(names: readonly string[], seed: number): AttackRun;
}

/** Attacks that go on. */
export interface AttackRun extends AsyncDisposable {
  /** Resolves when each of them has done something. */
  readonly begun: Promise<void>;
  /** What the one has done that did least: datagrams, requests, messages or connections. */
  acts(): number;
}

export interface SiteOptions {
  readonly devices: number;
  readonly seed: number;
  /** Milliseconds between two pieces of work of one party, at least and at most. */
  readonly pauses: readonly [number, number];
}

export async function attackedSite({ devices, seed, pauses }: SiteOptions): Promise<AttackedSite> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'postern-attack-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const broker = stack.use(await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']));
  const gate = stack.use(await Gate.before(broker.url));
  const ids = Array.from({ length: devices }, (_, at) => deviceId(at));
  const headend = stack.use(
    new PartyProcess(
      'headend',
      writeHeadendFile(
        folder,
        gate.url,
        ids.filter((_, at) => hasServer(at)),
      ),
    ),
  );
  const connected = headend.next('mqtt.connected');
  const { url: api } = (await headend.next('api.listening')) as unknown as { url: string };
  await connected;
  const attachments = new Map<string, number>();
  headend.heard = ({ event, device }) => {
    if (event === 'alert.device-attach')
      attachments.set(String(device), (attachments.get(String(device)) ?? 0) + 1);
  };
  const operator = new Operator(api, readFileSync(join(folder, 'headend.db.token'), 'utf8'));
  stack.defer(() => operator.stop());

  const http = await freePort();
  const coaps = network.namespaces ? 5684 : await freeUdpPort();
  const secure = [...protectedDevices, overheard].map(
    (identity) => `[[coaps.device]]\nidentity = "${identity}"\nkey = "${key}"\n`,
  );
  const { authority: trusted, keys: certificates } = certificateKeys(folder);
  const clients = ids.filter((_, at) => isLwm2m(at)).map((id) => `[[lwm2m.device]]\nid = "${id}"\n`);
  const contexts = ids.flatMap((id, at) => {
    const { 'master-secret': secret, 'sender-id': recipient, 'recipient-id': sender } = oscoreOf(at);
    const keys = `identity = "${id}"\nmaster-secret = "${secret}"\nsender-id = "${sender}"\nrecipient-id = "${recipient}"`;
    return hasOscore(at) ? [`[[oscore.device]]\n${keys}\n`] : [];
  });
  const children = [...honestChildren, hostileChild].map(
    (id) => `[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "${secrets.factory(id)}"\ngateway = true\n`,
  );
  const issued = [...bootstrapped, renewer, leaver].map(
    (id) =>
      `[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "${secrets.factory(id)}"\nsecurity = "oscore"\n`,
  );
  const addresses4 = network.deviceAddresses.filter((address) => !address.includes(':'));
  const keyed = keyedPlaces(addresses4, network.namespaces ? firstKeyedPort : 0);
  const strangers = Array.from({ length: newcomers }, (_, at) => newcomerId(at));
  const more = `[limits]
associations = ${associations}
[lwm2m]
insecure-no-security = true
${clients.join('')}[coaps]
port = ${coaps}
${certificates}
${secure.join('')}[oscore]
${contexts.join('')}[http]
host = "${network.host}"
port = ${http}
insecure-plain-http = true
${[...children, ...issued].join('')}${factoryDevices([...ids.filter((_, at) => !isLwm2m(at)), ...strangers])}`;
  const file = writeGatewayFile(folder, gate.url, more, 0, network.interface);
  const gateway = stack.use(new PartyProcess('gateway', file));
  const { port: coap } = (await gateway.next('gateway.started')) as unknown as { port: number };

  const deeds: Deed[] = [];
  const crowdOptions: Crowd = {
    ...{ devices, seed, pauses, port: coap, addresses: network.deviceAddresses },
    coaps: { host: network.host, port: coaps },
    keyed,
    http: `http://${network.host}:${http}/dm`,
    gateways: { 4: port(network.host, coap), 6: port(network.host6 ?? network.host, coap) },
  };
  const honest = [program('honest.ts'), JSON.stringify(crowdOptions)];
  const crowd = spawn(...on('devices', process.execPath, honest), { stdio: ['pipe', 'pipe', 'inherit'] });
  const end = () => void crowd.kill('SIGKILL');
  process.once('exit', end);
  stack.defer(end);
  const attached = Promise.withResolvers<void>();
  createInterface(crowd.stdout!).on('line', (line) => {
    if (line === 'ready') crowd.stdin!.write('go\n');
    else if (line === 'attached') attached.resolve();
    else deeds.push(JSON.parse(line) as Deed);
  });
  crowd.once('exit', (code) => attached.reject(new Error(`the honest devices ended with ${code}`)));
  await attached.promise;
  const data = randomBytes(imageBytes).toString('base64');
  await operator.ask('POST', '/images', { gateway: 'gw-1', name: image, data });
  operator.work(devices, pauses[0] / 4, (deed) => deeds.push(deed));

  const target: Target = {
    ...{ coap, coaps, http, api, devices, keyed, authority: trusted },
    ...{ broker: broker.url, gate: gate.port, multicast: network.attacker },
    ...{ host: network.host, sources: network.sources, deviceAddresses: network.deviceAddresses },
    ...(network.host6 !== undefined && { host6: network.host6 }),
  };
  let known = 0;
  const parts = stack.move();
  return {
    ...{ target, gateway, headend, operator, attachments },
    deeds: () => deeds.splice(0),
    newcomers: (count) =>
      Array.from({ length: count }, () => {
        const at = known++ % newcomers;
        crowd.stdin!.write(`newcomer ${at}\n`);
        return newcomerId(at);
      }),
    attack: (names, number) => {
      const isInside = names.some((name) => attacks[name]!.from === 'inside');
      const seen = isInside ? { ...target, sources: loopbackSources } : target;
      const args = [program('attacks.ts'), names.join(), JSON.stringify(seen), String(number)];
      const attacker = spawn(
        ...(isInside ? ([process.execPath, args] as const) : on('attacker', process.execPath, args)),
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      let acts = 0;
      const begun = Promise.withResolvers<void>();
      createInterface(attacker.stdout!).on('line', (line) => {
        acts = Number(line);
        if (acts > 0) begun.resolve();
      });
      const ended = once(attacker, 'exit');
      attacker.once('exit', (code) => begun.reject(new Error(`the attacker ended with ${code}`)));
      begun.promise.catch(() => {});
      const end = () => void attacker.kill('SIGKILL');
      process.once('exit', end);
      const hangs = names.some((name) => attacks[name]!.stopsServer);
      if (hangs) headend.child.kill('SIGSTOP');
      const joinable = names.some((name) => attacks[name]!.opensJoinWindow);
      const tellWindow = async (order: object) => {
        if (joinable) await askGateway(join(folder, 'admin.sock'), '/join', order);
      };
      const opened = tellWindow({ minutes: 60, devices: 64 });
      return {
        begun: Promise.all([begun.promise, opened]).then(() => {}),
        acts: () => acts,
        [Symbol.asyncDispose]: async () => {
          await tellWindow({ close: true });
          if (hangs) headend.child.kill('SIGCONT');
          if (attacker.exitCode !== null) throw new Error(`the attacker ended with ${attacker.exitCode}`);
          process.off('exit', end);
          end();
          await ended;
        },
      };
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** Makes a certificate of the gateway and an authority for devices, and the keys of the table `coaps` that name them. */
function certificateKeys(folder: string): { readonly authority: AuthorityFiles; readonly keys: string } {
  const root = authority('Site');
  const own = issue({ commonNames: ['gateway'] }, root);
  const at = (name: string, pem: string) => {
    const path = join(folder, name);
    writeFileSync(path, pem, { mode: 0o600 });
    return JSON.stringify(path);
  };
  const { pem, keyPem } = root;
  return {
    authority: { pem, keyPem, subject: root.subject.toString('hex') },
    keys: `certificate-file = ${at('coaps.pem', own.pem)}
key-file = ${at('coaps.key', own.keyPem)}
ca-files = [${at('devices.pem', pem)}]`,
  };
}
