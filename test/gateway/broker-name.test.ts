import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { otherBrokerName } from '../../src/gateway/broker-name.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { EventRecorder } from '../event-recorder.ts';
import { withAccessRules } from '../peers/access-rules.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { authority, issue } from '../wire/secure/dtls/authority.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-broker-name-'));
after(() => rmSync(folder, { recursive: true }));
const cert = join(folder, 'gw.pem');
const key = join(folder, 'gw.key');
const root = authority('Test root');
const put = (names: Parameters<typeof issue>[0]) => {
  const { pem, keyPem } = issue(names, root);
  writeFileSync(cert, pem);
  writeFileSync(key, keyPem);
  chmodSync(key, 0o600);
};
const gateway = { id: 'gw-1' };

test('a certificate with the name of the gateway, as common or alternative name, is no cause for a word', () => {
  for (const names of [
    { commonNames: ['gw-1'] },
    { commonNames: ['other'], dnsNames: ['gw-1'] },
    { commonNames: [], uris: ['gw-1'] },
  ]) {
    put(names);
    assert.equal(otherBrokerName({ gateway, mqtt: { cert } }), undefined, JSON.stringify(names));
  }
});

test('another name is told with both names; not where a user name counts, and not of a file that is wrong', () => {
  put({ commonNames: ['gw-2'], dnsNames: ['site.example'] });
  assert.deepEqual(otherBrokerName({ gateway, mqtt: { cert } }), {
    file: cert,
    reason: 'its name is CN=gw-2, DNS:site.example, and gateway.id is gw-1',
  });
  assert.equal(otherBrokerName({ gateway, mqtt: { cert, username: 'gw-1' } }), undefined);
  assert.equal(otherBrokerName({ gateway, mqtt: {} }), undefined);
  assert.equal(otherBrokerName({ gateway }), undefined);
  put({ commonNames: [] });
  assert.equal(
    otherBrokerName({ gateway, mqtt: { cert } })?.reason,
    'its name is none, and gateway.id is gw-1',
  );
  writeFileSync(cert, 'nothing');
  assert.equal(otherBrokerName({ gateway, mqtt: { cert } }), undefined);
});

test('it is told before the gateway connects, once for each name, and in the status while the broker refuses', async () => {
  await using rules = withAccessRules('pattern readwrite dm/%u/#');
  const server = issue({ commonNames: ['localhost'], ipAddresses: ['127.0.0.1'], purposes: [1] }, root);
  const files = { ca: root.pem, 'server.pem': server.pem, 'server.key': server.keyPem };
  const [ca, ...own] = Object.entries(files).map(([name, pem]) => {
    writeFileSync(join(folder, name), pem, { mode: 0o644 });
    return join(folder, name);
  });
  chmodSync(folder, 0o755);
  const tls = [`cafile ${ca}`, `certfile ${own[0]}`, `keyfile ${own[1]}`, 'require_certificate true'];
  await using broker = await startMosquitto([...rules.settings, ...tls, 'use_identity_as_username true']);
  put({ commonNames: ['gw-2'] });
  const read = () =>
    checkConfig(
      gatewayConfigSchema,
      {
        gateway: { id: 'gw-1', state: ':memory:' },
        coap: { port: 0, interfaces: ['lo'], multicast: false },
        coaps: { port: 0 },
        mqtt: { url: broker.url.replace('mqtt:', 'mqtts:'), ca, cert, key },
        'dm-server': { id: 'dm.example', 'client-secret': 'a'.repeat(16), 'server-secret': 'b'.repeat(16) },
      },
      'test',
    );
  const events = new EventRecorder();
  await using running = new Gateway(read(), { events });
  await running.start();
  await events.until('mqtt.refused');
  const names = events.all.map(({ name }) => name);
  const told = names.indexOf('mqtt.other-name');
  assert.ok(
    told >= 0 && told < names.findIndex((name) => /^mqtt\.(connect|refused)/.test(name)),
    names.join(),
  );
  assert.match(
    running.status().uplink.reason ?? '',
    /Not authorized.*; .*gw\.pem: its name is CN=gw-2, and gateway\.id is gw-1$/s,
  );
  running.reload(read);
  assert.equal(events.count('mqtt.other-name'), 1);
  put({ commonNames: ['gw-1'] });
  running.reload(read);
  put({ commonNames: ['gw-3'] });
  running.reload(read);
  assert.deepEqual(
    events.all.filter(({ name }) => name === 'mqtt.other-name').map(({ fields }) => fields.reason),
    ['gw-2', 'gw-3'].map((name) => `its name is CN=${name}, and gateway.id is gw-1`),
  );
});
