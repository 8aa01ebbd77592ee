import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Code } from '../../src/wire/coap/codes.ts';
import { Option, text } from '../../src/wire/coap/options.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { Foreign, without } from '../peers/foreign.ts';
import { key, SocketEnd } from '../wire/secure/dtls/socket-end.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-coaps-'));
after(() => rmSync(folder, { recursive: true }));
const file = join(folder, 'gateway.toml');

/** Writes the configuration of a gateway with these keys of devices, by identity. */
function configure(keys: Readonly<Record<string, string>>, port = 0, more = ''): void {
  const devices = Object.entries(keys).map(
    ([identity, key]) => `[[coaps.device]]\nidentity = "${identity}"\nkey = "${key}"\n`,
  );
  const plain = 'port = 0\ninterfaces = ["lo"]\nmulticast = false\ninsecure-plain-coap = true';
  const server = 'id = "dm.example"\nclient-secret = "client-secret"\nserver-secret = "server-secret"';
  const clients =
    '[lwm2m]\ninsecure-no-security = true\n[[lwm2m.device]]\nid = "id"\n[[lwm2m.device]]\nid = "other"';
  writeFileSync(
    file,
    `[gateway]\nid = "gw-1"\nstate = "${join(folder, 'state.db')}"\nadmin-socket = "${join(folder, 'admin.sock')}"\n[coap]\n${plain}\n[coaps]\nport = ${port}\n
     ${devices.join('')}[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[dm-server]\n${server}\n${clients}\n${more}`,
  );
}

async function started() {
  const gateway = ServiceProcess.postern(['gateway', '--config', file]);
  await gateway.until('gateway.started');
  const [, secure] = gateway.lines.filter(
    ({ event, address }) => event === 'coap.listening' && address === '127.0.0.1',
  );
  return { gateway, port: Number(secure?.port) };
}

for (const program of ['coap-client-openssl', 'coap-client-gnutls'])
  describe(`a gateway process and ${program}`, { skip: without(program) }, () => {
    const ask = async (port: number, path: string, user: string, key: string, ...more: string[]) => {
      await using client = new Foreign(program, [
        ...['-B', '3', '-v', '6', '-u', user, '-k', key, ...more],
        `coaps://127.0.0.1:${port}${path}`,
      ]);
      return await client.ended();
    };

    test('a device with its key is served, and nobody else; a new key takes effect at once', async () => {
      configure({ id: 'sesame-sesame-16', other: 'hex:6f746865722d6f746865722d6f7468' });
      const { gateway, port } = await started();
      await using _gateway = gateway;
      assert.match(await ask(port, '/.well-known/core', 'id', 'sesame-sesame-16'), /<\/bs>|<\/rd>|<\/dm>/);
      await gateway.until('dtls.opened', { identity: 'id', peer: '127.0.0.1' });
      await gateway.until('dtls.closed', { identity: 'id' });
      assert.match(await ask(port, '/.well-known/core', 'other', 'other-other-oth'), /<\/rd>/);
      assert.doesNotMatch(await ask(port, '/.well-known/core', 'id', 'sesame-sesame-17'), /<\/rd>/);
      assert.doesNotMatch(await ask(port, '/.well-known/core', 'nobody', 'sesame-sesame-16'), /<\/rd>/);

      configure({ id: 'sesame-sesame-18' });
      gateway.child.kill('SIGHUP');
      await gateway.until('config.reloaded');
      assert.doesNotMatch(await ask(port, '/.well-known/core', 'id', 'sesame-sesame-16'), /<\/rd>/);
      assert.match(await ask(port, '/.well-known/core', 'id', 'sesame-sesame-18'), /<\/rd>/);
      gateway.child.kill('SIGTERM');
      assert.equal(await gateway.end(), 0);
    });

    test('an LwM2M client does not register under the name of another', async () => {
      configure({ id: 'sesame-sesame-16' });
      const { gateway, port } = await started();
      await using _gateway = gateway;
      const register = ['-m', 'post', '-t', '40', '-e', '</1/0>,</3/0>'];
      const as = (name: string) =>
        ask(port, `/rd?ep=${name}&lt=60&lwm2m=1.1&b=U`, 'id', 'sesame-sesame-16', ...register);
      assert.match(await as('other'), /4\.03/);
      await gateway.until('registration.refused', { device: 'other' });
      assert.match(await as('id'), /2\.01/);
      await gateway.until('registration.taken', { device: 'id' });
    });
  });

test('limits.associations: the device that was silent for longest shakes hands again', async () => {
  const names = Array.from({ length: 18 }, (_, at) => `device-${at}`);
  configure(Object.fromEntries(names.map((name) => [name, `${key}`])), 0, '[limits]\nassociations = 16');
  const { gateway, port } = await started();
  await using _gateway = gateway;
  await using device = await SocketEnd.open({ server: undefined as never });
  for (const identity of names)
    await device.dtls.connect({ address: '127.0.0.1', port, local: '' }, { identity, key });
  await gateway.until('dtls.closed', { identity: names[0]!, reason: 'there are too many' });
  await gateway.until('dtls.full', { associations: 16 });
  gateway.child.kill('SIGTERM');
  assert.equal(await gateway.end(), 0);
  assert.equal(gateway.lines.filter(({ event }) => event === 'dtls.full').length, 1, 'once in an hour');
});

test('after a stop, and after kill -9, a device goes on in its association, without a handshake', async () => {
  await using device = await SocketEnd.open({ server: undefined as never });
  const settings = { id: `${key}` };
  configure(settings);
  const first = await started();
  await using _first = first.gateway;
  const { port } = first;
  await device.dtls.connect({ address: '127.0.0.1', port, local: '' }, { identity: 'id', key });
  const ask = async () => {
    const { code } = await device.coap.request('127.0.0.1', port, {
      code: Code.GET,
      options: [text(Option.UriPath, '.well-known'), text(Option.UriPath, 'core')],
      payload: new Uint8Array(),
      timeout: 20_000,
    });
    assert.equal(code, Code.Content);
  };
  await ask();
  configure(settings, port);
  let running = first.gateway;
  // At the stop it is stored, with all that was received. What the second run receives is not stored.
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    running.child.kill(signal);
    await running.end();
    running = (await started()).gateway;
    await ask();
    assert.ok(!running.lines.some(({ event }) => event === 'dtls.opened'), signal);
  }
  running.child.kill('SIGTERM');
  await running.end();
  assert.ok((statSync(join(folder, 'state.db.key')).mode & 0o077) === 0, 'nobody else reads the key');
});

test('a configuration with an identity twice, or a key that is not hexadecimal, is refused', () => {
  const run = () => spawnSync(process.execPath, ['src/cli/main.ts', 'gateway', '--config', file]);
  configure({ id: 'hex:0011' });
  assert.match(run().stderr.toString(), /hexadecimal/);
  configure({ id: 'hex:001122334455667788' });
  writeFileSync(file, `[[coaps.device]]\nidentity = "id"\nkey = "sesame-sesame-16"\n`, { flag: 'a' });
  assert.match(run().stderr.toString(), /coaps/);
});
