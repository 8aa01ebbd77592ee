import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'smol-toml';
import type { Headend } from '../../src/headend/headend.ts';
import { type Site, secrets } from '../journeys/site.ts';

const program = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));

/** Something that somebody outside of the gateway knows from this time on: it was acknowledged or promised. */
export interface Promised {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly time: bigint;
  readonly what:
    | { readonly kind: 'bootstrapped' | 'attached' | 'alerted'; readonly device: string }
    | { readonly kind: 'delivered'; readonly device: string; readonly sequence: number }
    | { readonly kind: 'setting'; readonly value: string };
}

/** The configuration of the gateway under load. */
export const gatewayToml = (folder: string, broker: string, devices: readonly string[], port = 0) => ({
  gateway: { id: 'gw-1', state: join(folder, 'state.db'), 'admin-socket': join(folder, '..', 'admin.sock') },
  coap: { port, interfaces: ['lo'], leisure: 50, 'insecure-plain-coap': true },
  mqtt: { url: broker },
  'dm-server': {
    id: 'dm.example',
    'client-secret': secrets.gatewayClient,
    'server-secret': secrets.gatewayServer,
  },
  bootstrap: { device: devices.map((id) => ({ id, 'factory-secret': secrets.factory(id) })) },
});

/** A gateway as a process of its own. Its log is read line by line. */
export class GatewayProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly coapPort: Promise<number>;

  /** @param logged called with each event of the gateway */
  constructor(
    config: string,
    env: NodeJS.ProcessEnv,
    logged: (event: Readonly<Record<string, unknown>>) => void = () => {},
  ) {
    this.child = spawn(process.execPath, [program, 'gateway', '--config', config], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.coapPort = promise;
    this.coapPort.catch(() => {});
    createInterface(this.child.stdout!).on('line', (line) => {
      const event = JSON.parse(line) as Record<string, unknown>;
      if (event.event === 'gateway.started') resolve(Number(event.port));
      logged(event);
    });
    this.child.once('exit', (code) => reject(new Error(`the gateway ended with ${code}`)));
  }

  /** Ends the process at once, as the kernel does without memory. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Writes the configuration, and returns its path. The state is in a folder of its own. */
export function writeConfig(folder: string, broker: string, devices: readonly string[], port = 0): string {
  const state = join(folder, 'state');
  mkdirSync(state, { recursive: true });
  const file = join(folder, 'gateway.toml');
  writeFileSync(file, stringify(gatewayToml(state, broker, devices, port)));
  return file;
}

/**
 * Work of all kinds at one time: devices are bootstrapped and attach, the DM server changes a setting again and again, and a
 * fan-out runs. Returns what was promised, and when.
 */
export async function work(
  site: Site,
  headend: Headend,
  port: number,
  devices: readonly string[],
  promised: Promised[],
): Promise<void> {
  const note = (what: Promised['what']) => void promised.push({ time: process.hrtime.bigint(), what });
  const settings = (async () => {
    for (let round = 0; round < 12; round++) {
      const value = round % 2 === 0 ? 'false' : 'true';
      const [outcome] = await headend.manage('gw-1', [
        { name: 'Replace', uri: './GwConfig/DetachAlert', data: value },
      ]);
      if (outcome?.status === 200) note({ kind: 'setting', value });
    }
  })();
  const crowd = devices.map(async (id) => {
    const device = site.device(id, { coapPort: port }, { factory: true });
    void site.deviceEvents
      .until('device.bootstrapped', { device: id })
      .then(() => note({ kind: 'bootstrapped', device: id }));
    void site.headendEvents
      .until('alert.device-attach', { device: id })
      .then(() => note({ kind: 'alerted', device: id }));
    await device.start();
    await device.attached;
    note({ kind: 'attached', device: id });
    await site.headendEvents.until('alert.device-attach', { device: id });
  });
  await Promise.all([settings, ...crowd]);
  const ended = site.headendEvents.next('alert.command-fanout');
  await headend.fanOut('gw-1', {
    name: 'label',
    targets: {},
    returnFormat: 3,
    command:
      '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>x</Data></Item></Replace>',
  });
  await ended;
}
