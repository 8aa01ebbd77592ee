import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse } from 'smol-toml';
import { checkConfig, loadConfig } from '../../../src/base/config.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { gatewayConfigSchema } from '../../../src/gateway/config.ts';
import {
  checkGatewayConfig,
  enrolIfNeeded,
  loadGatewayConfig,
} from '../../../src/gateway/enrolled-config.ts';
import { provision } from '../../../src/gateway/update/provisioning.ts';
import { readAccount } from '../../../src/wire/tunnel/board-account.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { EnrolmentSite } from '../../journeys/enrolment-site.ts';
import { LeapClock } from '../../leap-clock.ts';

function board(t: TestContext, files: Readonly<Record<string, string>>) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-board-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [from, to] = [join(folder, 'medium'), join(folder, 'data')];
  mkdirSync(from);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(from, name), text);
  const run = () => provision({ from, to }, (config, file) => checkConfig(gatewayConfigSchema, config, file));
  return { from, to, run };
}

const least = `
[coap]
insecure-plain-coap = true
[mqtt]
url = "mqtts://broker.example:8883"
ca = "broker.pem"
[dm-server]
id = "dm.example"
`;
const operator = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
/** A configuration by which the board makes its own secrets. */
const own = `${least}[provision]\noperator-key = "operator.pub"\n`;
const files = { 'gateway.toml': own, 'operator.pub': operator.publicKey };

test('a board with a minimal configuration makes its own name, key pair and secrets, and writes enrolment.json', (t) => {
  const { from, to, run } = board(t, {
    ...files,
    'broker.pem': 'a certificate',
    'ntp-servers': '192.0.2.1',
  });
  const { gatewayId, udp, tcp } = run();
  assert.match(gatewayId, /^gw-[0-9a-f]{12}$/);
  assert.deepEqual([udp, tcp], [[5683], []]);
  const config = loadConfig(gatewayConfigSchema, join(to, 'config/gateway.toml'));
  assert.equal(config.gateway.id, gatewayId);
  assert.equal(
    config.mqtt?.ca,
    join(to, 'config/broker.pem'),
    'files that came along are named by their place',
  );
  assert.equal(config.update?.slots, 'rauc');
  const told = readFileSync(join(from, 'enrolment.json'), 'utf8');
  const [clientSecret, serverSecret] = [
    config['dm-server']['client-secret'],
    config['dm-server']['server-secret'],
  ];
  const account = readAccount(told, 'enrolment.json', createPrivateKey(operator.privateKey));
  assert.deepEqual(account, { id: gatewayId, clientSecret, serverSecret });
  for (const secret of [clientSecret, serverSecret])
    for (const text of [secret, Buffer.from(secret).toString('base64').slice(0, -4)])
      assert.ok(!told.includes(text), 'no secret is on the medium in clear');
  assert.equal(createPublicKey(JSON.parse(told).publicKey).asymmetricKeyType, 'ec');
  assert.deepEqual(readdirSync(from).toSorted(), ['enrolment.json', 'operator.pub'], 'nothing secret stays');
  assert.equal(statSync(join(to, 'config/gateway.toml')).mode & 0o777, 0o600);
  assert.equal(readFileSync(join(to, 'root/ntp-servers'), 'utf8'), '192.0.2.1\n');
});

test('two boards have different names; a board that is provisioned again keeps its name and secrets', (t) => {
  const one = board(t, files);
  const other = board(t, files);
  const { gatewayId } = one.run();
  assert.notEqual(other.run().gatewayId, gatewayId);
  const secret = () =>
    loadConfig(gatewayConfigSchema, join(one.to, 'config/gateway.toml'))['dm-server']['client-secret'];
  const before = secret();
  writeFileSync(join(one.from, 'gateway.toml'), own.replace('broker.example', 'other.example'));
  assert.equal(one.run().gatewayId, gatewayId);
  assert.equal(secret(), before);
});

test('a configured name and configured secrets are used, and the secrets are not in enrolment.json', (t) => {
  const given = `${least}client-secret = "client-secret-1"\nserver-secret = "server-secret-1"\n[gateway]\nid = "gw-7"\n[http]\nhost = "0.0.0.0"\nport = 8053\ninsecure-plain-http = true\n`;
  const { from, to, run } = board(t, { 'gateway.toml': given });
  assert.deepEqual(run(), { gatewayId: 'gw-7', udp: [5683], tcp: [8053], hasPlainSecrets: false });
  const told = JSON.parse(readFileSync(join(from, 'enrolment.json'), 'utf8'));
  assert.deepEqual(Object.keys(told), ['id', 'publicKey']);
  assert.equal(
    readFileSync(join(to, 'root/firewall.nft'), 'utf8'),
    'add element inet postern open_udp { 5683 }\nadd element inet postern open_tcp { 8053 }\n',
  );
});

test('where devices are served over DTLS, the firewall opens its port too; the shipped example is such a configuration', (t) => {
  const secured = least.replace('insecure-plain-coap = true', '');
  const { to, run } = board(t, {
    ...files,
    'gateway.toml': `${secured}\n[coaps]\nport = 6684\n[provision]\noperator-key = "operator.pub"\n`,
  });
  assert.deepEqual(run().udp, [5683, 6684]);
  assert.match(readFileSync(join(to, 'root/firewall.nft'), 'utf8'), /open_udp \{ 6684 \}/);
  const example = readFileSync(new URL('../../../firmware-image/gateway.toml', import.meta.url), 'utf8');
  const { coap, coaps } = checkGatewayConfig(parse(example), 'example');
  assert.deepEqual([coap['insecure-plain-coap'], coaps?.port], [false, 5684]);
});

test('a wrong configuration is refused with the reason, and its file stays in place', (t) => {
  const { from, to, run } = board(t, { ...files, 'gateway.toml': `${own}\n[coap2]\nx = 1\n` });
  assert.throws(run, /coap2: unknown key/);
  assert.ok(existsSync(join(from, 'gateway.toml')));
  assert.ok(!existsSync(join(to, 'config/gateway.toml')));
  const empty = board(t, {});
  assert.throws(empty.run, /put gateway\.toml onto the partition CONFIG/);
  const broken = board(t, { 'gateway.toml': '[gateway' });
  assert.throws(broken.run, /no TOML/);
});

test('a board that will enrol makes no secrets, keeps its claim on the data partition, and enrols with the key of the provisioning', async (t) => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend({ allow: [{ serial: 'SN-7' }] });
  const toml = `
[coap]
port = 0
insecure-plain-coap = true
[mqtt]
url = "${site.url}"
ca = "broker.pem"
[enrolment]
cert = "claim.crt"
key = "claim.key"
serial = "SN-7"
`;
  const { from, to } = board(t, {
    'gateway.toml': toml,
    'broker.pem': readFileSync(site.ca, 'utf8'),
    'claim.crt': readFileSync(site.claim.cert, 'utf8'),
    'claim.key': readFileSync(site.claim.key, 'utf8'),
  });
  const { gatewayId } = provision({ from, to }, checkGatewayConfig);
  assert.deepEqual(readdirSync(from), ['enrolment.json'], 'the claim does not stay on the medium');
  const told = JSON.parse(readFileSync(join(from, 'enrolment.json'), 'utf8'));
  assert.deepEqual(Object.keys(told), ['id', 'publicKey']);
  assert.deepEqual(readdirSync(join(to, 'identity')).toSorted(), ['gateway.key', 'gateway.pub', 'id']);
  const key = readFileSync(join(to, 'identity/gateway.key'), 'utf8');
  const file = join(to, 'config/gateway.toml');
  const machine = { clock: new LeapClock(), entropy: systemEntropy, events: new EventRecorder() };
  assert.equal(await enrolIfNeeded(loadGatewayConfig(file), machine, new AbortController().signal), true);
  assert.equal(readFileSync(join(to, 'identity/gateway.key'), 'utf8'), key);
  const config = loadGatewayConfig(file);
  assert.equal(config.mqtt?.key, join(to, 'identity/gateway.key'));
  assert.equal(config['dm-server'].id, 'dm.example');
  const [record] = headend.enrolment?.list(1) ?? [];
  assert.deepEqual([record?.gateway, record?.by], [gatewayId, 'list']);
  const { publicKey } = new X509Certificate(readFileSync(config.mqtt?.cert ?? ''));
  assert.equal(publicKey.export({ type: 'spki', format: 'pem' }), told.publicKey);
});

test('what the agent of the board allows is a file of its own, and it ends with the next configuration', (t) => {
  const { from, to, run } = board(t, {
    ...files,
    'gateway.toml': `${own}[update]\nslots = "rauc"\nallow-older = true\n`,
    'broker.pem': 'x',
  });
  run();
  assert.ok(existsSync(join(to, 'root/allow-older')));
  assert.equal(statSync(join(to, 'root')).mode & 0o777, 0o700);
  writeFileSync(join(from, 'gateway.toml'), own);
  writeFileSync(join(from, 'broker.pem'), 'x');
  run();
  assert.ok(!existsSync(join(to, 'root/allow-older')));
});

test('a file that the configuration names is taken over whatever its name ends in', (t) => {
  const { from, to, run } = board(t, {
    ...files,
    'gateway.toml': `${own}[images]\nsigning-keys = ["images.pub"]\n`,
    'images.pub': 'a key',
  });
  run();
  assert.equal(readFileSync(join(to, 'config/images.pub'), 'utf8'), 'a key');
  assert.ok(!existsSync(join(from, 'images.pub')));
});

test('a board that makes its own secrets needs the key of the operator, or the word to leave them in clear', (t) => {
  const neither = board(t, { 'gateway.toml': least });
  assert.throws(neither.run, /provision\.operator-key[\s\S]*insecure-plain-secrets/);
  assert.deepEqual(readdirSync(neither.from), ['gateway.toml'], 'nothing is on the medium');
  const plain = board(t, { 'gateway.toml': `${least}[provision]\ninsecure-plain-secrets = true\n` });
  assert.equal(plain.run().hasPlainSecrets, true);
  const told = readFileSync(join(plain.from, 'enrolment.json'), 'utf8');
  assert.equal(readAccount(told, 'x', undefined).clientSecret, JSON.parse(told).secrets.clientSecret);
  const both = board(t, { ...files, 'gateway.toml': `${own}insecure-plain-secrets = true\n` });
  assert.throws(both.run, /exclude each other/);
});

test('a key of the operator that is missing, private, of another kind or no key is refused, and nothing is done', (t) => {
  const other = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' });
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey;
  for (const [key, why] of [
    [undefined, /operator\.pub cannot be read/],
    [operator.privateKey, /is the private key/],
    [String(other), /no public key of P-256/],
    [String(p384.export({ type: 'spki', format: 'pem' })), /no public key of P-256/],
    ['x', /no public key of P-256/],
  ] as const) {
    const { from, to, run } = board(t, {
      'gateway.toml': own,
      ...(key !== undefined && { 'operator.pub': key }),
    });
    assert.throws(run, why);
    assert.ok(existsSync(join(from, 'gateway.toml')));
    assert.ok(!existsSync(join(from, 'enrolment.json')));
    assert.ok(!existsSync(join(to, 'config/gateway.toml')));
  }
});

test('a provisioning that was cut off before the medium was cleared gives the same account again', (t) => {
  const { from, to, run } = board(t, files);
  run();
  const key = createPrivateKey(operator.privateKey);
  const told = () => readAccount(readFileSync(join(from, 'enrolment.json'), 'utf8'), 'x', key);
  const first = told();
  // The files are still there, and the one that tells of the board is cut off.
  for (const [name, text] of Object.entries(files)) writeFileSync(join(from, name), text);
  writeFileSync(join(from, 'enrolment.json'), '{ "id": "gw');
  assert.throws(told, /no enrolment\.json/);
  run();
  assert.deepEqual(told(), first);
  assert.equal(
    loadConfig(gatewayConfigSchema, join(to, 'config/gateway.toml'))['dm-server']['client-secret'],
    first.clientSecret,
  );
});

test('what root reads of the network is made of checked values, and ends with the next configuration', (t) => {
  const network = `[network]
proxy = "http://proxy.example:3128"
no-proxy = ["*.plant.example"]
[[network.interface]]
name = "eth0"
vlan = 20
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
gateways = ["192.0.2.1", "fe80::1"]
dns = ["192.0.2.53"]
[[network.interface]]
name = "wlan0"
[network.interface.wifi]
ssid = "plant \\"; reboot"
password = "$(reboot)'x"
country = "DE"
`;
  const { from, to, run } = board(t, { ...files, 'gateway.toml': own + network });
  run();
  const hex = (text: string) => Buffer.from(text).toString('hex');
  const [key] = /[0-9a-f]{64}/.exec(readFileSync(join(to, 'root/network'), 'utf8')) ?? [];
  assert.equal(
    readFileSync(join(to, 'root/network'), 'utf8'),
    `fall-back 10
proxy http://proxy.example:3128 *.plant.example
interface eth0.20 eth0 20 100 uplink 0
address 192.0.2.10/24
address 2001:db8::10/64
gateway 192.0.2.1
gateway fe80::1
dns 192.0.2.53
interface wlan0 wlan0 0 200 uplink 1
wifi DE ${hex('plant "; reboot')} ${key} ${hex("$(reboot)'x")}
dhcp
`,
  );
  assert.equal(statSync(join(to, 'root/network')).mode & 0o777, 0o600);
  assert.doesNotMatch(readFileSync(join(to, 'config/gateway.toml'), 'utf8'), /network|operator-key/);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(from, name), text);
  run();
  assert.ok(!existsSync(join(to, 'root/network')));
});

test('a child gateway names its parent to root, and an image without Wi-Fi says so', (t) => {
  const child = `[coap]
insecure-plain-coap = true
[parent]
id = "gw-0"
uri = "coaps://[fe80::1%25eth0]:5684"
factory-secret = "factory-secret-1"
[dm-server]
id = "gw-0"
[provision]
operator-key = "operator.pub"
[network]
`;
  const { to, run } = board(t, { ...files, 'gateway.toml': child });
  run();
  assert.match(readFileSync(join(to, 'root/network'), 'utf8'), /^parent fe80::1$/m);
  const wifi =
    '[[network.interface]]\nname = "wlan0"\nwifi = { ssid = "a", password = "password", country = "DE" }\n';
  const made = board(t, { ...files, 'gateway.toml': own + wifi });
  const with_ = (...parts: string[]) =>
    provision({ from: made.from, to: made.to, parts, isTrial: true }, checkGatewayConfig);
  assert.throws(() => with_(), /this image has no wifi/);
  assert.equal(with_('wifi').tcp.length, 0);
  assert.deepEqual(
    readdirSync(made.from).toSorted(),
    ['gateway.toml', 'operator.pub'],
    'a trial changes nothing',
  );
});

test('time servers are checked line by line, also those of another system, and their authority must be one', (t) => {
  const lines = '\ufeff# ours\r\nntp.example nts ntsport 4460\r\n\r\n2001:db8::7  port 1123 # local\r\n';
  const good = board(t, { ...files, 'ntp-servers': lines });
  good.run();
  assert.equal(
    readFileSync(join(good.to, 'root/ntp-servers'), 'utf8'),
    'ntp.example nts ntsport 4460\n2001:db8::7 port 1123\n',
  );
  for (const [text, why] of [
    ['ntp.example\nntp.example nst', /line 2: unknown word "nst"/],
    ['ntp.example port x', /line 1: port needs a number/],
    ['-x', /line 1: it begins with no host/],
    ['ntp.example\ncommand reboot'.replace('command', '$(reboot)'), /line 2: it begins with no host/],
    [Array(9).fill('ntp.example').join('\n'), /line 9: more than 8 servers/],
  ] as const)
    assert.throws(board(t, { ...files, 'ntp-servers': text }).run, why);
  assert.throws(
    board(t, { ...files, 'ntp-ca.pem': '-----BEGIN CERTIFICATE-----' }).run,
    /no certificate in it/,
  );
});
