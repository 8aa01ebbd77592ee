import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { startAedes } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { root, ServiceProcess } from './service-process.ts';

const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-service-'));
after(() => rmSync(folder, { recursive: true }));
let count = 0;
const path = (name: string): string => join(folder, `${++count}-${name}`);
const file = (name: string, text: string): string => {
  const made = path(name);
  writeFileSync(made, text);
  return made;
};
const pipe = path('pipe');
execFileSync('mkfifo', [pipe]);

/** Values of a configuration, by `table.key`; strings are quoted. */
type Settings = Readonly<Record<string, string | number | boolean | readonly string[]>>;

function toml(settings: Settings, more = ''): string {
  const tables = Map.groupBy(Object.entries(settings), ([key]) => key.split('.')[0] ?? '');
  const text = [...tables].map(
    ([table, entries]) =>
      `[${table}]\n${entries.map(([key, value]) => `${key.slice(table.length + 1)} = ${JSON.stringify(value)}`).join('\n')}`,
  );
  return `${text.join('\n')}\n${more}`;
}

/** Nobody listens there. */
const noBroker = 'mqtt://127.0.0.1:1';
const gatewayToml = (settings: Settings = {}, more = ''): string =>
  toml(
    {
      'gateway.id': 'gw-1',
      'gateway.state': ':memory:',
      'gateway.admin-socket': path('admin.sock'),
      'coap.port': 0,
      'coap.interfaces': ['lo'],
      'coap.insecure-plain-coap': true,
      'mqtt.url': noBroker,
      'dm-server.id': 'dm.example',
      'dm-server.client-secret': 'gateway-client-secret',
      'dm-server.server-secret': 'gateway-server-secret',
      ...settings,
    },
    more,
  );
const headendToml = (settings: Settings = {}, more = ''): string =>
  toml(
    {
      'headend.id': 'dm.example',
      'headend.state': ':memory:',
      'mqtt.url': noBroker,
      'api.port': 0,
      ...settings,
    },
    more,
  );
const deviceToml = (settings: Settings = {}): string =>
  toml({ 'device.id': 'urn:dev:1', 'device.factory-secret': 'secret of the device', ...settings });

const start = (command: string, config: string, env?: NodeJS.ProcessEnv): ServiceProcess =>
  ServiceProcess.postern([command, '--config', file(`${command}.toml`, config)], env);
const startGateway = (settings: Settings = {}, more = ''): ServiceProcess =>
  start('gateway', gatewayToml(settings, more));

/** Common name of the certificate that a TLS server shows. */
async function certificateAt(port: number): Promise<string | undefined> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { subject } = socket.getPeerCertificate();
  socket.destroy();
  return String(subject.CN);
}

/** Starts each party with a state file. */
const partiesWithState: readonly (readonly [string, (state: string) => ServiceProcess])[] = [
  ['gateway', (state) => startGateway({ 'gateway.state': state })],
  ['headend', (state) => start('headend', headendToml({ 'headend.state': state }))],
  ['device', (state) => start('device', deviceToml({ 'device.state': state }))],
];

async function listening(server: Server, ...where: [string] | [number, string]): Promise<AddressInfo> {
  server.listen(...(where as [string]));
  await once(server, 'listening');
  return server.address() as AddressInfo;
}

/** Asserts that a start ends with its reason, which is the last line of the log too. */
async function assertFails(
  begin: () => Promise<ServiceProcess> | ServiceProcess,
  reason: RegExp,
): Promise<void> {
  await using failing = await begin();
  assert.equal(await failing.end(), 1);
  assert.match(failing.errors, reason);
  assert.doesNotMatch(failing.errors, /\n\s+at /, 'no stack');
  const last = failing.lines.at(-1);
  assert.equal(last?.event, 'process.start-failed');
  assert.match(String(last?.reason), reason);
  assert.equal(failing.errors, `postern: ${last?.reason}\n`);
  assert.ok(!failing.lines.some((line) => line.event === 'gateway.stopping'));
}

type Start = readonly [string, () => Promise<ServiceProcess> | ServiceProcess, RegExp];

describe('a folder or a pipe in place of a file that the configuration names ends the start', {
  timeout: 150_000,
}, () => {
  const cases: readonly Start[] = [
    ...(
      [
        [folder, /is a folder, not a file; name a file in it/],
        [pipe, /is a pipe, not a file; write its content to a file, and name that/],
      ] as const
    ).flatMap(([odd, words]) => {
      const said = (key: string) => new RegExp(`${key}.*${words.source}`);
      const http = { 'http.port': 0, 'http.tls-cert': odd, 'http.tls-key': odd };
      const api = { 'api.port': 0, 'api.tls-cert': odd, 'api.tls-key': odd };
      const mqtt = { 'mqtt.url': 'mqtts://127.0.0.1:1', 'mqtt.ca': odd };
      const what = odd === folder ? 'folder' : 'pipe';
      return [
        [`TLS to the broker: a ${what}`, () => startGateway(mqtt), said('mqtt.ca')],
        [`the HTTP binding: a ${what}`, () => startGateway(http), said('http.tls-cert')],
        [`authorities for images: a ${what}`, () => startGateway({ 'images.ca': odd }), said('images.ca')],
        [
          `keys for images: a ${what}`,
          () => startGateway({ 'images.signing-keys': [odd] }),
          said('images.signing-keys'),
        ],
        [`the API: a ${what}`, () => start('headend', headendToml(api)), said('api.tls-cert')],
        ...partiesWithState.map(
          ([party, begin]) =>
            [`${party}: a ${what} as state`, () => begin(odd), said('the state file')] as const,
        ),
      ] as const;
    }),
    [
      'a folder for a new token of the API',
      () => start('headend', headendToml({ 'api.port': 0, 'api.token-file': folder })),
      /api\.token-file: .*is a folder, not a file/,
    ],
    [
      'a bootstrap document that is a pipe',
      () =>
        start(
          'device',
          deviceToml({ 'bootstrap.file': pipe, 'bootstrap.type': 'application/vnd.syncml.dm+wbxml' }),
        ),
      /bootstrap\.file: .*is a pipe, not a file/,
    ],
  ];
  for (const [what, begin, reason] of cases) test(what, async () => await assertFails(begin, reason));
});

describe('a start that fails ends with its reason and code 1', { timeout: 150_000 }, () => {
  const cases: readonly (readonly [string, () => Promise<ServiceProcess> | ServiceProcess, RegExp])[] = [
    [
      'a configuration that is not there',
      () => ServiceProcess.postern(['gateway', '--config', path('none')]),
      /none/,
    ],
    [
      'a configuration that is a folder',
      () => ServiceProcess.postern(['gateway', '--config', folder]),
      /postern-service.*: is a folder, not a file; name a file in it/,
    ],
    [
      'a configuration that is a pipe which nobody writes to',
      () => ServiceProcess.postern(['gateway', '--config', pipe]),
      /pipe: is a pipe, and nobody has written to it in 3 s/,
    ],
    [
      'a file for TLS to the broker that is not there',
      () => startGateway({ 'mqtt.url': 'mqtts://127.0.0.1:1', 'mqtt.ca': '/nowhere/ca.pem' }),
      /mqtt\.ca: \/nowhere\/ca\.pem cannot be read \(ENOENT\)/,
    ],
    [
      'a key for the broker that is none',
      () =>
        startGateway({
          'mqtt.url': 'mqtts://127.0.0.1:1',
          'mqtt.key': file('key', 'x'),
          'mqtt.cert': file('cert', 'x'),
        }),
      /mqtt\.(cert|key)/,
    ],
    [
      'a certificate of the HTTP binding that is not there',
      () =>
        startGateway({
          'http.port': 0,
          'http.tls-cert': '/nowhere/cert.pem',
          'http.tls-key': '/nowhere/key.pem',
        }),
      /http\.tls-cert: \/nowhere\/cert\.pem cannot be read/,
    ],
    [
      'a state file in a folder that cannot be made',
      () => startGateway({ 'gateway.state': '/dev/null/state.db' }),
      /state/,
    ],
    ...partiesWithState.map(
      ([party, begin]) =>
        [
          `${party}: a state file where the kernel makes no folder`,
          () => begin('/proc/none/state.db'),
          /the state file \/proc\/none\/state\.db cannot be used: ENOENT/,
        ] as const,
    ),
    [
      'an admin socket whose path is too long for the kernel',
      () => startGateway({ 'gateway.admin-socket': path(`${'a'.repeat(104)}.sock`) }),
      /gateway\.admin-socket: .* a path of 103 bytes at most/,
    ],
    [
      'a configuration that is wrong',
      () => start('gateway', '[gateway]\nid = 7\n'),
      /gateway\.id: expected an identifier .*\n.*dm-server: the table \[dm-server\] is missing/,
    ],
    ['no configuration', () => ServiceProcess.postern(['headend', '--config', path('none')]), /no such file/],
    [
      'the head-end: a file for TLS',
      () =>
        start('headend', headendToml({ 'mqtt.url': 'mqtts://127.0.0.1:1', 'mqtt.ca': '/nowhere/ca.pem' })),
      /mqtt\.ca/,
    ],
    [
      'the device: an address that the machine does not have',
      () => start('device', deviceToml({ 'network.interface': '192.0.2.77' })),
      /network\.interface: 192\.0\.2\.77 cannot be used/,
    ],
  ];
  for (const [what, begin, reason] of cases) test(what, async () => await assertFails(begin, reason));

  test('a port that is taken: of CoAP, of HTTP, of the API of the head-end', async () => {
    const udp = createSocket('udp4').bind(0, '127.0.0.1');
    await once(udp, 'listening');
    const { port } = udp.address();
    const tcp = createServer();
    const { port: taken } = await listening(tcp, 0, '127.0.0.1');
    await using coap = startGateway({ 'coap.port': port });
    await using http = startGateway({ 'http.port': taken, 'http.host': '127.0.0.1' });
    await using api = start('headend', headendToml({ 'api.port': taken }));
    assert.deepEqual([await coap.end(), await http.end(), await api.end()], [1, 1, 1]);
    assert.match(coap.errors, new RegExp(`127\\.0\\.0\\.1 port ${port} is in use; stop`));
    assert.match(http.errors, /http\.port: 127\.0\.0\.1:\d+ cannot be used: .*EADDRINUSE/);
    assert.match(api.errors, /api\.port: 127\.0\.0\.1:\d+ cannot be used: .*EADDRINUSE/);
    udp.close();
    tcp.close();
  });

  test('an admin socket that another process serves: nothing is begun. One that a killed process left is taken', async () => {
    const socket = path('admin.sock');
    await using first = startGateway({ 'gateway.admin-socket': socket });
    await first.until('gateway.started');
    while (!existsSync(socket)) await once(first.child.stdout!, 'data');
    await using second = startGateway({ 'gateway.admin-socket': socket });
    assert.equal(await second.end(), 1);
    assert.match(second.errors, /gateway\.admin-socket: .*admin\.sock: another gateway serves it/);
    assert.deepEqual(
      second.lines.map(({ event }) => event),
      ['process.start-failed'],
    );
    first.child.kill('SIGKILL');
    await first.end();
    assert.ok(existsSync(socket));
    await using third = startGateway({ 'gateway.admin-socket': socket });
    await third.until('gateway.started');
  });

  test('a state file that another process has: the message names it', async () => {
    const state = path('state.db');
    await using first = startGateway({ 'gateway.state': state });
    await first.until('gateway.started');
    await using second = startGateway({ 'gateway.state': state });
    assert.equal(await second.end(), 1);
    assert.match(second.errors, new RegExp(`${first.child.pid}.* uses it`));
  });
});

/** A broker of MQTT 3.1.1 that accepts clients and their subscriptions, and acknowledges no message. */
class SilentBroker implements AsyncDisposable {
  readonly #server = createServer((socket) => this.#serve(socket));
  readonly #sockets = new Set<Socket>();
  readonly #answers: boolean;

  constructor(answers: boolean) {
    this.#answers = answers;
  }

  async open(): Promise<string> {
    const { port } = await listening(this.#server, 0, '127.0.0.1');
    return `mqtt://127.0.0.1:${port}`;
  }

  async connected(): Promise<void> {
    if (this.#sockets.size === 0) await once(this.#server, 'connection');
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', (packet: Buffer) => {
      if (!this.#answers) return;
      if (packet[0]! >> 4 === 1) socket.write(Buffer.of(0x20, 2, 0, 0));
      // One topic filter for each SUBSCRIBE, behind the packet identifier. Several packets may come at once.
      for (let at = 0; at < packet.length; at += 2 + packet[at + 1]!)
        if (packet[at]! >> 4 === 8) socket.write(Buffer.of(0x90, 3, packet[at + 2]!, packet[at + 3]!, 1));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

describe('signals that stop', limit, () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    test(`${signal} ends each party in order, with code 0`, async () => {
      await using broker = await startAedes();
      await using gateway = startGateway({ 'mqtt.url': broker.url });
      await using headend = start('headend', headendToml({ 'mqtt.url': broker.url }));
      await using device = start('device', deviceToml({ 'network.interface': '127.0.0.1' }));
      await gateway.until('mqtt.connected');
      await headend.until('mqtt.connected');
      await device.until('device.attach-failed');
      for (const { child } of [gateway, headend, device]) child.kill(signal);
      assert.deepEqual([await gateway.end(), await headend.end(), await device.end()], [0, 0, 0]);
      assert.deepEqual([gateway.errors, headend.errors, device.errors], ['', '', '']);
      assert.equal(gateway.lines.at(-1)?.event, 'gateway.stopping');
    });

  test('a gateway whose broker says nothing stops in order', async () => {
    await using broker = new SilentBroker(false);
    await using gateway = startGateway({ 'mqtt.url': await broker.open() });
    await broker.connected();
    await gateway.until('gateway.started');
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
  });

  test('a second signal during a slow stop ends the process at once', async () => {
    await using broker = new SilentBroker(true);
    await using gateway = startGateway({ 'mqtt.url': await broker.open(), 'mqtt.protocol': '3.1.1' });
    await gateway.until('mqtt.connected');
    gateway.child.kill('SIGTERM');
    await gateway.until('gateway.stopping');
    // Signals that come together count as one.
    const again = setInterval(() => gateway.child.kill('SIGTERM'), 20);
    const code = await gateway.end();
    clearInterval(again);
    assert.equal(code, 1);
  });

  test('npx postern: SIGTERM to npx ends the gateway in order', async (t) => {
    const npx = process.env.PATH?.split(':').some((place) => existsSync(join(place, 'npx')));
    if (!npx) return t.skip('npm is not installed');
    const config = file('gateway.toml', gatewayToml());
    const args = ['--no-install', 'postern', 'gateway', '--config', config];
    await using starter = new ServiceProcess('npx', args, {
      cwd: root,
      env: { npm_config_update_notifier: 'false' },
    });
    await starter.until('gateway.started');
    starter.child.kill('SIGTERM');
    // Ends when the last process that has standard output has ended: the gateway.
    await starter.end();
    assert.equal(starter.lines.at(-1)?.event, 'gateway.stopping');
  });

  test('the starter of npx ends with the code of the program', async () => {
    const bin = join(root, 'build/postern-bin.mjs');
    await using wrong = new ServiceProcess(process.execPath, [bin, 'gateway', '--config', path('none')]);
    assert.equal(await wrong.end(), 1);
    await using usage = new ServiceProcess(process.execPath, [bin, 'nothing']);
    assert.equal(await usage.end(), 2);
    await using gateway = new ServiceProcess(process.execPath, [
      bin,
      'gateway',
      '--config',
      file('g.toml', gatewayToml()),
    ]);
    await gateway.until('gateway.started');
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
    assert.equal(gateway.lines.at(-1)?.event, 'gateway.stopping');
  });
});

test('the starter of npx says what to do where npm has installed nothing', limit, async () => {
  const bin = join(path('bare'), 'build/postern-bin.mjs');
  mkdirSync(dirname(bin), { recursive: true });
  copyFileSync(join(root, 'build/postern-bin.mjs'), bin);
  await using bare = new ServiceProcess(process.execPath, [bin, 'status']);
  assert.equal(await bare.end(), 1);
  assert.match(bare.errors, /^postern: .* not installed; run first: npm --prefix .*bare\/ install\n$/);
});

test('SIGUSR1 opens no inspector', limit, async () => {
  const bin = join(root, 'build/postern-bin.mjs');
  const config = file('gateway.toml', gatewayToml());
  await using direct = ServiceProcess.postern(['gateway', '--config', config]);
  await using started = new ServiceProcess(process.execPath, [
    bin,
    'gateway',
    '--config',
    file('g.toml', gatewayToml()),
  ]);
  for (const gateway of [direct, started]) {
    await gateway.until('gateway.started');
    gateway.child.kill('SIGUSR1');
    // The next signal is handled after the first one.
    gateway.child.kill('SIGHUP');
    await gateway.until('config.reloaded');
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
    assert.doesNotMatch(gateway.errors, /Debugger|inspector/i);
  }
});

describe('SIGHUP reads the configuration again', { timeout: 120_000 }, () => {
  const reload = (running: ServiceProcess): number => {
    running.child.kill('SIGHUP');
    return running.lines.length;
  };

  test('a gateway says what it took over and what needs a restart, and refuses a configuration that is wrong', async () => {
    const config = file('gateway.toml', '');
    const socket = path('admin.sock');
    const write = (settings: Settings, more = '') =>
      writeFileSync(config, gatewayToml({ 'gateway.admin-socket': socket, ...settings }, more));
    write({});
    await using gateway = ServiceProcess.postern(['gateway', '--config', config]);
    await gateway.until('gateway.started');
    const devices = '[[bootstrap.device]]\nid = "urn:dev:1"\nfactory-secret = "secret of the device"\n';
    write({ 'coap.port': 5999, 'dm-server.client-secret': 'another-client-secret' }, devices);
    reload(gateway);
    assert.equal((await gateway.until('config.reloaded')).keys, 'dm-server.client-secret bootstrap.device');
    assert.equal((await gateway.until('config.restart-needed')).keys, 'coap.port');
    writeFileSync(config, 'no = [TOML');
    let from = reload(gateway);
    assert.match(String((await gateway.until('config.refused', {}, from)).reason), /not valid TOML/);
    write({ 'images.ca': '/nowhere/ca.pem' });
    from = reload(gateway);
    assert.match(String((await gateway.until('config.refused', {}, from)).reason), /images\.ca: \/nowhere/);
    await using status = ServiceProcess.postern(['status', '--socket', socket]);
    let text = '';
    status.child.stdout!.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    assert.equal(await status.end(), 0);
    assert.match(text, /configuration +refused when it was read again: images\.ca: \/nowhere/);
    assert.match(text, /restart +needed for coap\.port/);
    // The log level comes last: no further event is to be seen.
    write({ 'log.level': 'error' });
    from = reload(gateway);
    assert.equal(
      (await gateway.until('config.reloaded', {}, from)).keys,
      'dm-server.client-secret bootstrap.device log.level',
    );
    reload(gateway);
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
    assert.equal(gateway.lines.at(-1)?.event, 'config.reloaded', 'not even gateway.stopping');
  });

  test('a certificate that was renewed is shown to the connections that follow', async () => {
    const [cert, key] = [path('cert.pem'), path('key.pem')];
    selfSigned('old', { cert, key });
    await using gateway = startGateway({ 'http.port': 0, 'http.tls-cert': cert, 'http.tls-key': key });
    const { url } = await gateway.until('http.listening');
    await gateway.until('gateway.started');
    const port = Number(new URL(String(url)).port);
    const shown = async () => await certificateAt(port);
    assert.equal(await shown(), 'old');
    selfSigned('new', { cert, key });
    reload(gateway);
    assert.equal((await gateway.until('config.reloaded')).keys, '');
    assert.equal(await shown(), 'new');
    // What a file holds while another program writes it.
    const whole = readFileSync(cert, 'utf8');
    for (const content of ['', 'no certificate', whole.slice(0, whole.length / 2)]) {
      writeFileSync(cert, content);
      const from = gateway.lines.length;
      reload(gateway);
      assert.match(String((await gateway.until('config.refused', {}, from)).reason), /http\.tls-cert/);
      assert.equal(await shown(), 'new');
    }
  });

  test('the certificate of the API is taken over, also under another path; TLS for an API without it needs a restart', async () => {
    const [cert, key, other] = [path('cert.pem'), path('key.pem'), path('other.pem')];
    selfSigned('old', { cert, key });
    const tls = (file: string) => headendToml({ 'api.tls-cert': file, 'api.tls-key': key });
    const config = file('headend.toml', tls(cert));
    const args = ['headend', '--config', config, '--token-file', path('token')];
    await using headend = ServiceProcess.postern(args);
    const { url } = await headend.until('api.listening');
    await headend.until('mqtt.connect-failed');
    const port = Number(new URL(String(url)).port);
    assert.equal(await certificateAt(port), 'old');
    selfSigned('new', { cert: other, key });
    writeFileSync(config, tls(other));
    reload(headend);
    assert.equal((await headend.until('config.reloaded')).keys, 'api.tls-cert');
    assert.equal(await certificateAt(port), 'new');
    let from = headend.lines.length;
    writeFileSync(config, tls(path('none')));
    reload(headend);
    assert.match(String((await headend.until('config.refused', {}, from)).reason), /api\.tls-cert/);
    assert.equal(await certificateAt(port), 'new');
    from = headend.lines.length;
    writeFileSync(config, headendToml());
    reload(headend);
    const { keys } = await headend.until('config.restart-needed', {}, from);
    assert.equal(keys, 'api.tls-cert api.tls-key');
    assert.equal(await certificateAt(port), 'new');
  });

  test('the head-end takes gateways and devices over, the device the log level', async () => {
    const headendFile = file('headend.toml', headendToml());
    const deviceFile = file('device.toml', deviceToml({ 'network.interface': '127.0.0.1' }));
    const tokenFile = path('token');
    await using headend = ServiceProcess.postern([
      ...['headend', '--config', headendFile, '--token-file', tokenFile],
    ]);
    await using device = ServiceProcess.postern(['device', '--config', deviceFile]);
    const { url } = await headend.until('api.listening');
    await headend.until('mqtt.connect-failed');
    const more =
      '[[gateway]]\nid = "gw-7"\nclient-secret = "gateway-client-secret"\nserver-secret = "gateway-server-secret"\n';
    writeFileSync(headendFile, headendToml({ 'headend.session-timeout': 99 }, more));
    reload(headend);
    assert.equal((await headend.until('config.reloaded')).keys, 'gateway');
    assert.equal((await headend.until('config.restart-needed')).keys, 'headend.session-timeout');
    const authorization = readFileSync(tokenFile, 'utf8')
      .replace(/^Authorization: /, '')
      .trim();
    const gateways = (await (
      await fetch(`${url}/gateways`, { headers: { authorization } })
    ).json()) as readonly { id: string }[];
    assert.deepEqual(
      gateways.map(({ id }) => id),
      ['gw-7'],
    );
    await device.until('device.attach-failed');
    writeFileSync(
      deviceFile,
      deviceToml({ 'network.interface': '127.0.0.1', 'log.level': 'error', 'device.id': 'urn:dev:2' }),
    );
    reload(device);
    assert.equal((await device.until('config.reloaded')).keys, 'log.level');
  });

  test('during the start, it is remembered until the gateway runs', async () => {
    await using gateway = startGateway({ 'gateway.state': path('state.db') });
    await gateway.until('state.new-epoch');
    gateway.child.kill('SIGHUP');
    await gateway.until('config.reloaded');
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
  });

  test('commands that have no configuration end in order', async () => {
    await using demo = ServiceProcess.postern(['demo'], { XDG_RUNTIME_DIR: folder });
    await once(demo.child.stdout!, 'data');
    demo.child.kill('SIGHUP');
    assert.equal(await demo.end(), 0);
  });
});

describe('an error that no part of the program caught', limit, () => {
  const source = (name: string) => fileURLToPath(new URL(`../../src/${name}`, import.meta.url));

  test('is named and counted, and the gateway goes on', async () => {
    // Preloaded into a whole gateway: whatever throws in a callback of Node comes out here.
    const preload = file(
      'throw.mjs',
      "process.on('SIGUSR2', () => { setImmediate(() => { throw new Error('nobody catches this'); }); Promise.reject(new Error('nor this')); });",
    );
    const config = file('gateway.toml', gatewayToml());
    await using gateway = ServiceProcess.postern(['gateway', '--config', config], {
      NODE_OPTIONS: `--import=file://${preload}`,
    });
    await gateway.until('gateway.started');
    gateway.child.kill('SIGUSR2');
    await gateway.until('background.failed', {
      work: 'uncaught',
      reason: 'nobody catches this',
      failures: 1,
    });
    await gateway.until('background.failed', { work: 'uncaught', reason: 'nor this', failures: 1 });
    gateway.child.kill('SIGHUP');
    await gateway.until('config.reloaded');
    gateway.child.kill('SIGTERM');
    assert.equal(await gateway.end(), 0);
  });

  test('ends a process that cannot serve any more, with its reason and code 1', async () => {
    const program = `
      import { LogEvents } from '${source('base/log.ts')}';
      import { surviveErrors } from '${source('cli/service.ts')}';
      using survivor = surviveErrors(new LogEvents('info', 'gateway'));
      survivor.complaint = () => 'CoAP does not answer';
      setTimeout(() => { throw new Error('this broke it'); }, 1);
      await new Promise(() => { setInterval(() => {}, 1000); });`;
    await using party = new ServiceProcess(process.execPath, ['--input-type=module', '-e', program]);
    assert.equal(await party.end(), 1);
    assert.deepEqual(
      party.lines.map(({ event, reason }) => [event, reason]),
      [
        ['background.failed', 'this broke it'],
        ['process.cannot-serve', 'CoAP does not answer'],
      ],
    );
  });
});
