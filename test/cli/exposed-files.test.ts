import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { selfSigned } from '../peers/certificates.ts';
import { ServiceProcess } from './service-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-exposed-'));
after(() => rmSync(folder, { recursive: true }));
chmodSync(folder, 0o755);
const [key, cert] = [join(folder, 'key'), join(folder, 'cert')];
selfSigned('party', { key, cert });

const broker = `url = "mqtts://127.0.0.1:1"\ncert = "${cert}"\nkey = "${key}"`;
const secrets = 'client-secret = "long enough 1"\nserver-secret = "long enough 2"';
const parties = {
  gateway: `[gateway]\nid = "gw-1"\nstate = ":memory:"\nadmin-socket = "${folder}/admin.sock"\n[coap]\nport = 0\ninterfaces = ["lo"]\n[coaps]\nport = 0\n[mqtt]\n${broker}\n[dm-server]\nid = "dm.example"\n${secrets}\n`,
  headend: `[headend]\nid = "dm.example"\nstate = ":memory:"\n[api]\nport = 0\n[mqtt]\n${broker}\n[[gateway]]\nid = "gw-1"\n${secrets}\n`,
  device:
    '[device]\nid = "urn:dev:1"\nfactory-secret = "secret of the device"\n[network]\ninterface = "127.0.0.1"\n',
} as const;
/** What a party tells after its start. */
const running = {
  gateway: 'gateway.started',
  headend: 'api.listening',
  device: 'device.attach-failed',
} as const;

for (const party of ['gateway', 'headend', 'device'] as const)
  test(`${party}: files with secrets that all users can open are told once; those of the group are not`, {
    timeout: 60_000,
  }, async () => {
    const file = join(folder, `${party}.toml`);
    writeFileSync(file, parties[party]);
    const start = () => ServiceProcess.postern([party, '--config', file]);
    const told = ({ lines }: ServiceProcess) =>
      lines.filter(({ event }) => event === 'config.exposed').map((line) => line.file);
    const named = party === 'device' ? [file] : [file, key];
    for (const mode of [0o666, 0o644]) {
      for (const one of named) chmodSync(one, mode);
      await using exposed = start();
      const line = await exposed.until('config.exposed', { file });
      assert.match(String(line.reason), new RegExp(`mode ${mode.toString(8)}.*run chmod 640 ${file}`));
      await exposed.until(running[party]);
      if (party !== 'device') {
        exposed.child.kill('SIGHUP');
        await exposed.until('config.reloaded');
      }
      assert.deepEqual(told(exposed), named);
    }
    for (const one of named) chmodSync(one, 0o640);
    await using closed = start();
    await closed.until(running[party]);
    assert.deepEqual(told(closed), []);
  });

test('the keys of the gateway itself, which a copy has opened to all users, are told', {
  timeout: 60_000,
}, async () => {
  const file = join(folder, 'own.toml');
  writeFileSync(file, parties.gateway.replace(':memory:', join(folder, 'state.db')), { mode: 0o600 });
  chmodSync(key, 0o600);
  const own = [join(folder, 'state.db.key'), join(folder, 'identity.key')];
  for (const one of own) writeFileSync(one, Buffer.alloc(32, 1), { mode: 0o644 });
  await using gateway = ServiceProcess.postern(['gateway', '--config', file]);
  await gateway.until('gateway.started');
  const told = gateway.lines.filter(({ event }) => event === 'config.exposed');
  assert.deepEqual(
    told.map((line) => line.file),
    own,
  );
});
