import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { configurationPage } from '../../src/cli/config-reference.ts';
import { startAedes } from '../peers/brokers.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-cli-'));
after(() => rmSync(folder, { recursive: true }));
const limit = { timeout: 60_000 };

const start = (...args: string[]) =>
  spawn(process.execPath, [join(root, 'src/cli/main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_RUNTIME_DIR: folder },
  });

async function postern(...args: string[]) {
  const child = start(...args);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  return { code, stdout, stderr };
}

const file = (name: string, text: string) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const gatewayToml = (url: string) => `
[gateway]
id = "gw-cli"
state = ":memory:"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "${url}"
[dm-server]
id = "dm.example"
client-secret = "gateway-client-secret"
server-secret = "gateway-server-secret"
`;

describe('help and usage', limit, () => {
  test('--help lists every command, and each command has its own help', async () => {
    const { stdout, code } = await postern('--help');
    assert.equal(code, 0);
    const commands = stdout.split('\n').flatMap((line) => /^ {2}(\w+) /.exec(line)?.[1] ?? []);
    assert.deepEqual(commands, [
      'demo',
      'gateway',
      'launch',
      'update',
      'provision',
      'backup',
      'restore',
      'status',
      'devices',
      'reset',
      'join',
      'ddf',
      'account',
      'headend',
      'device',
    ]);
    for (const command of commands)
      assert.match((await postern(command, '--help')).stdout, new RegExp(`Usage: postern ${command}`));
  });

  test('an unknown command or option ends with code 2 and a hint', async () => {
    const command = await postern('frobnicate');
    assert.deepEqual([command.code, command.stdout], [2, '']);
    assert.match(command.stderr, /no command 'frobnicate'[\s\S]*gateway/);
    const option = await postern('status', '--sokcet', 'x');
    assert.equal(option.code, 2);
    assert.match(option.stderr, /--sokcet[\s\S]*--help/);
  });

  test('ddf prints the DDF of an object, and lists the existing objects for an unknown name', async () => {
    const { code, stdout } = await postern('ddf', '--mo', 'GwConfig');
    assert.equal(code, 0);
    assert.match(stdout, /^<MgmtTree xmlns="syncml:dmddf1\.2">/);
    assert.match(stdout, /<NodeName>BootstrapMethods<\/NodeName>/);
    const wrong = await postern('ddf', '--mo', 'Nothing');
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /expected one of DevInfo, .*, found 'Nothing'/);
  });

  test('a Node that is too old is named, and nothing is begun', async () => {
    const old =
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '22.9.0' } });";
    const child = spawn(
      process.execPath,
      ['--import', `data:text/javascript,${old}`, join(root, 'src/cli/main.ts'), 'gateway'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'close')]);
    assert.equal(code, 1);
    assert.match(errors, /^postern: Node 24 or newer is needed; this is Node 22\.9\.0, .*node\n$/);
  });

  test('status reports that no gateway is running', async () => {
    const { code, stderr } = await postern('status');
    assert.equal(code, 1);
    assert.match(stderr, /no gateway answers at .*admin\.sock/);
  });
});

describe('an invalid configuration', limit, () => {
  const good = gatewayToml('mqtt://127.0.0.1:1');
  const cases: [string, string, RegExp][] = [
    ['not TOML', '[gateway\nid = 1', /bad\.toml: line 1, column \d+: not valid TOML/],
    ['a key too many', `${good}colour = "red"`, /bad\.toml: dm-server\.colour: unknown key/],
    [
      'a key too few',
      good.replace('id = "gw-cli"', ''),
      /bad\.toml: gateway\.id: this key is missing; expected an identifier/,
    ],
    [
      'a value of the wrong type',
      good.replace('port = 0', 'port = "x"'),
      /bad\.toml: coap\.port: expected a whole number from 0 to 65535, found "x"/,
    ],
    [
      'a value out of range',
      good.replace('port = 0', 'port = 70000'),
      /coap\.port: expected a whole number from 0 to 65535, found 70000/,
    ],
    ['a wrong URL', gatewayToml('http://x'), /mqtt\.url: expected a URL such as mqtt:.*, found "http:\/\/x"/],
    [
      'a wrong list item',
      `${good}[[bootstrap.device]]\nid = ""\nfactory-secret = "long enough"`,
      /bootstrap\.device\[0\]\.id: expected a device ID \(DevId\) of .*, found ""/,
    ],
    [
      'a secret that is too short, which the message does not repeat',
      good.replace('"gateway-client-secret"', '"short"'),
      /dm-server\.client-secret: expected a secret of 8 to 255 characters, found a text of 5 characters/,
    ],
  ];
  for (const [what, text, message] of cases)
    test(what, async () => {
      const { code, stderr, stdout } = await postern('gateway', '--config', file('bad.toml', text));
      assert.equal(code, 1);
      assert.match(stdout, /^\{.*"event":"process\.start-failed".*\}\n$/);
      assert.match(stderr, message);
      assert.doesNotMatch(stderr, /short"/);
    });

  test('the configurations of all parties are checked, with all errors at once', async () => {
    const { stderr } = await postern(
      'headend',
      '--config',
      file('bad.toml', '[headend]\nroute = "a/b"\n[mqtt]\n'),
    );
    assert.match(
      stderr,
      /headend\.id: this key is missing[\s\S]*headend\.route: expected an identifier[\s\S]*mqtt\.url: this key is missing/,
    );
    assert.match(
      (await postern('device', '--id', 'x', '--gateway', 'http://x')).stderr,
      /network\.gateway: expected a URI such as coap:/,
    );
    assert.match(
      (await postern('gateway', '--config', join(folder, 'none.toml'))).stderr,
      /none\.toml: there is no such file/,
    );
  });

  test('--check says that it is valid', async () => {
    const { code, stdout } = await postern('gateway', '--check', '--config', file('good.toml', good));
    assert.deepEqual([code, stdout.trim().endsWith('is valid')], [0, true]);
  });

  test('the factory secret of a device comes from a file or the environment, and is never an option', async () => {
    const refused = await postern('device', '--id', 'x', '--factory-secret', 'a factory secret', '--check');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /list of processes; use --factory-secret-file FILE/);
    assert.doesNotMatch(refused.stderr, /a factory secret/);
    const file = join(folder, 'secret.txt');
    writeFileSync(file, 'short\n');
    const short = await postern('device', '--id', 'x', '--factory-secret-file', file, '--check');
    assert.match(short.stderr, /device\.factory-secret: expected a secret of 8 to 255 characters/);
    const client = await postern('device', '--id', 'x', '--lwm2m', '--factory-secret-file', file, '--check');
    assert.equal(client.stderr, short.stderr, 'an LwM2M client takes it too');
    writeFileSync(file, 'long enough\n');
    const good = await postern('device', '--id', 'x', '--factory-secret-file', file, '--check');
    assert.equal(good.code, 0, good.stderr);
    const none = await postern('device', '--id', 'x', '--factory-secret-file', `${file}.gone`, '--check');
    assert.match(none.stderr, /--factory-secret-file: .*cannot be read \(ENOENT\)/);
    process.env.POSTERN_FACTORY_SECRET = 'short';
    const fromEnvironment = await postern('device', '--id', 'x', '--check');
    delete process.env.POSTERN_FACTORY_SECRET;
    assert.match(fromEnvironment.stderr, /device\.factory-secret: expected a secret/);
  });

  test('a configuration without a word about security is valid: devices are served over DTLS', async () => {
    const plain = good.replace(/.*insecure-plain-coap.*\n/, '');
    const { code, stdout } = await postern('gateway', '--check', '--config', file('secure.toml', plain));
    assert.deepEqual([code, stdout.trim().endsWith('is valid')], [0, true]);
  });

  test('--check refuses what the start refuses: devices without security, where that is not allowed by name', async () => {
    const lwm2m = `${good}\n[[lwm2m.device]]\nid = "a"\n`;
    for (const [text, key] of [[lwm2m, /lwm2m\.insecure-no-security/]] as const) {
      const { code, stdout, stderr } = await postern(
        'gateway',
        '--check',
        '--config',
        file('bad.toml', text),
      );
      assert.deepEqual([code, stdout], [1, '']);
      assert.match(stderr, key);
    }
  });

  test('--check reads the files that the configuration names', async () => {
    const named = good.replace('mqtt://', 'mqtts://').replace('[mqtt]', '[mqtt]\nca = "/no/such/ca.pem"');
    const { code, stderr } = await postern('gateway', '--check', '--config', file('tls.toml', named));
    assert.equal(code, 1);
    assert.match(stderr, /tls\.toml: mqtt\.ca: \/no\/such\/ca\.pem cannot be read \(ENOENT\)/);
  });
});

test(
  'a gateway shows its status, refuses a second one, logs JSON without secrets, and ends cleanly',
  limit,
  async () => {
    await using broker = await startAedes();
    const child = start('gateway', '--config', file('gateway.toml', gatewayToml(broker.url)));
    const lines: string[] = [];
    const connected = Promise.withResolvers<void>();
    createInterface(child.stdout).on('line', (line) => {
      lines.push(line);
      if (JSON.parse(line).event === 'mqtt.connected') connected.resolve();
    });
    await connected.promise;
    const status = JSON.parse((await postern('status', '--json')).stdout);
    assert.deepEqual([status.gateway, status.uplink.connected], ['gw-cli', true]);
    assert.match((await postern('status')).stdout, /security\s+none: plain CoAP/);
    assert.match((await postern('devices')).stdout, /no device has attached yet/);
    assert.match((await postern('join')).stdout, /^join window: closed/);
    const opening = await postern('join', '--minutes', '1', '--devices', '1');
    assert.match(`${opening.code} ${opening.stderr}`, /^1 .*set coaps\.key-file/);
    const second = await postern('gateway', '--config', file('gateway.toml', gatewayToml(broker.url)));
    assert.equal(second.code, 1);
    assert.match(second.stderr, /gateway\.admin-socket: .*admin\.sock: another gateway serves it/);
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const [code] = await ended;
    assert.equal(code, 0);
    const events = lines.map((line) => JSON.parse(line).event);
    assert.ok(events.includes('coap.insecure'), 'the log says that CoAP is not secured');
    assert.ok(events.includes('gateway.stopping'));
    assert.doesNotMatch(lines.join('\n'), /client-secret|server-secret/);
  },
);

test('docs/configuration.md is up to date with the schemas', () => {
  assert.equal(readFileSync(join(root, 'docs/configuration.md'), 'utf8'), configurationPage());
});
