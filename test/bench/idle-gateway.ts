import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { transaction } from '../../src/base/database.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Credentials } from '../../src/gateway/store/credentials.ts';
import { Inventory } from '../../src/gateway/store/inventory.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { GatewayMode } from '../../src/mo/device-record.ts';
import { freePort, startMosquitto } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { sealingOf } from '../state-files.ts';
import { deviceId, secrets } from './crowd.ts';

export interface IdleGateway extends AsyncDisposable {
  readonly process: ChildProcess;
}

/** A state file in which so many devices are attached. */
async function attachedState(file: string, size: number): Promise<void> {
  const database = openDatabase(file, gatewaySchema);
  const credentials = new Credentials(database, size, sealingOf(file));
  const inventory = new Inventory(database, size);
  transaction(database, () => {
    for (let at = 0; at < size; at++) {
      const id = deviceId(at);
      credentials.put({
        deviceId: id,
        clientName: id,
        clientSecret: secrets.client(id),
        clientNonce: Buffer.alloc(16, at),
        serverSecret: secrets.server(id),
        serverNonce: Buffer.alloc(16, at + 1),
        origin: 'local',
        attached: true,
      });
      inventory.put({
        deviceId: id,
        state: 'attached',
        mode: GatewayMode.Transparent,
        origin: 'local',
        address: `coap://127.0.0.1:${20_000 + at}`,
        lastSeen: Date.now(),
        manufacturer: 'Maker',
        model: 'T1',
        firmware: '1.0.0',
        protocol: 'OMA-DM',
        isGateway: false,
      });
    }
  });
  await database.close();
}

export interface IdleOptions {
  /** Attached before the start. */
  readonly devices?: number;
  /** Whether the broker is reached by TLS. */
  readonly tls?: boolean;
  /** Whether the broker is reached over a WebSocket. */
  readonly websocket?: boolean;
  /** Added to the environment of the process. */
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * A gateway that is connected to a broker and does nothing.
 * @param program arguments of Node that start it
 */
export async function idleGateway(
  program: readonly string[],
  { devices = 0, tls = false, websocket = false, env = {} }: IdleOptions = {},
): Promise<IdleGateway> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-idle-'));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  if (tls) selfSigned('localhost', { key, cert }, '-addext', 'subjectAltName=IP:127.0.0.1');
  const port = await freePort();
  const broker = await startMosquitto([
    'allow_anonymous true',
    // A listener of its own: mosquitto does not start with one for WebSockets alone.
    ...(websocket ? [`listener ${port} 127.0.0.1`, 'protocol websockets'] : []),
    ...(tls ? [`certfile ${cert}`, `keyfile ${key}`, 'user root'] : []),
  ]);
  const scheme = `${websocket ? 'ws' : 'mqtt'}${tls ? 's' : ''}:`;
  const state = join(folder, 'state.db');
  if (devices > 0) await attachedState(state, devices);
  const file = join(folder, 'gateway.toml');
  const known = Array.from({ length: devices }, (_, at) => deviceId(at));
  writeFileSync(
    file,
    `[gateway]
id = "gw-1"
state = "${state}"
admin-socket = "${join(folder, 'admin.sock')}"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "${websocket ? `${scheme}//127.0.0.1:${port}` : broker.url.replace('mqtt:', scheme)}"
${tls ? `ca = "${cert}"` : ''}
[dm-server]
id = "dm.example"
client-secret = "${secrets.gatewayClient}"
server-secret = "${secrets.gatewayServer}"
[limits]
devices = 10000
${known.map((id) => `[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "${secrets.factory(id)}"\n`).join('')}`,
  );
  const gateway = spawn(process.execPath, [...program, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const log = createInterface(gateway.stdout!);
  const connected = Promise.withResolvers<void>();
  log.on('line', (line) => {
    if (line.includes('"mqtt.connected"')) connected.resolve();
  });
  gateway.once('exit', (code) => connected.reject(new Error(`the gateway ended with ${code}`)));
  await connected.promise;
  return {
    process: gateway,
    [Symbol.asyncDispose]: async () => {
      const ended = once(gateway, 'exit');
      gateway.kill();
      await ended;
      await broker[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    },
  };
}
