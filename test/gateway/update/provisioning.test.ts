import assert from 'node:assert/strict';
import { createPublicKey, X509Certificate } from 'node:crypto';
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

test('a board with a minimal configuration makes its own name, key pair and secrets, and writes enrolment.json', (t) => {
  const { from, to, run } = board(t, {
    'gateway.toml': least,
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
  const told = JSON.parse(readFileSync(join(from, 'enrolment.json'), 'utf8'));
  assert.deepEqual(
    [told.id, told.clientSecret, told.serverSecret],
    [gatewayId, config['dm-server']['client-secret'], config['dm-server']['server-secret']],
  );
  assert.equal(createPublicKey(told.publicKey).asymmetricKeyType, 'ec');
  assert.deepEqual(readdirSync(from), ['enrolment.json'], 'nothing secret stays on the medium');
  assert.equal(statSync(join(to, 'config/gateway.toml')).mode & 0o777, 0o600);
  assert.equal(readFileSync(join(to, 'root/ntp-servers'), 'utf8'), '192.0.2.1');
});

test('two boards have different names; a board that is provisioned again keeps its name and secrets', (t) => {
  const one = board(t, { 'gateway.toml': least });
  const other = board(t, { 'gateway.toml': least });
  const { gatewayId } = one.run();
  assert.notEqual(other.run().gatewayId, gatewayId);
  const secret = () =>
    loadConfig(gatewayConfigSchema, join(one.to, 'config/gateway.toml'))['dm-server']['client-secret'];
  const before = secret();
  writeFileSync(join(one.from, 'gateway.toml'), least.replace('broker.example', 'other.example'));
  assert.equal(one.run().gatewayId, gatewayId);
  assert.equal(secret(), before);
});

test('a configured name and configured secrets are used, and the secrets are not in enrolment.json', (t) => {
  const given = `${least}client-secret = "client-secret-1"\nserver-secret = "server-secret-1"\n[gateway]\nid = "gw-7"\n[http]\nhost = "0.0.0.0"\nport = 8053\ninsecure-plain-http = true\n`;
  const { from, to, run } = board(t, { 'gateway.toml': given });
  assert.deepEqual(run(), { gatewayId: 'gw-7', udp: [5683], tcp: [8053] });
  const told = JSON.parse(readFileSync(join(from, 'enrolment.json'), 'utf8'));
  assert.deepEqual(Object.keys(told), ['id', 'publicKey']);
  assert.equal(
    readFileSync(join(to, 'root/firewall.nft'), 'utf8'),
    'add element inet postern open_udp { 5683 }\nadd element inet postern open_tcp { 8053 }\n',
  );
});

test('where devices are served over DTLS, the firewall opens its port too; the shipped example is such a configuration', (t) => {
  const secured = least.replace('insecure-plain-coap = true', '');
  const { to, run } = board(t, { 'gateway.toml': `${secured}\n[coaps]\nport = 6684\n` });
  assert.deepEqual(run().udp, [5683, 6684]);
  assert.match(readFileSync(join(to, 'root/firewall.nft'), 'utf8'), /open_udp \{ 6684 \}/);
  const example = readFileSync(new URL('../../../firmware-image/gateway.toml', import.meta.url), 'utf8');
  const { coap, coaps } = checkGatewayConfig(parse(example), 'example');
  assert.deepEqual([coap['insecure-plain-coap'], coaps?.port], [false, 5684]);
});

test('a wrong configuration is refused with the reason, and its file stays in place', (t) => {
  const { from, to, run } = board(t, { 'gateway.toml': `${least}\n[coap2]\nx = 1\n` });
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
    'gateway.toml': `${least}[update]\nslots = "rauc"\nallow-older = true\n`,
    'broker.pem': 'x',
  });
  run();
  assert.ok(existsSync(join(to, 'root/allow-older')));
  assert.equal(statSync(join(to, 'root')).mode & 0o777, 0o700);
  writeFileSync(join(from, 'gateway.toml'), least);
  writeFileSync(join(from, 'broker.pem'), 'x');
  run();
  assert.ok(!existsSync(join(to, 'root/allow-older')));
});
