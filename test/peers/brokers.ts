import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Aedes } from 'aedes';

/** A broker for a test, which can be stopped and started again at the same address. */
export interface Broker extends AsyncDisposable {
  readonly url: string;
  stop(): Promise<void>;
  restart(): Promise<void>;
}

const portOf = (server: Server): number => {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no TCP port');
  return address.port;
};

/** Starts aedes in this process, which speaks MQTT 3.1.1. */
export async function startAedes(): Promise<Broker> {
  let port = 0;
  let stop = async () => {};
  const start = async () => {
    const broker = await Aedes.createBroker();
    const server = createServer({ noDelay: true }, broker.handle);
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    port = portOf(server);
    stop = async () => {
      const closed = once(server, 'close');
      server.close();
      await new Promise<void>((resolve) => broker.close(() => resolve()));
      await closed;
    };
  };
  await start();
  return {
    url: `mqtt://127.0.0.1:${port}`,
    stop: () => stop(),
    restart: start,
    [Symbol.asyncDispose]: () => stop(),
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts mosquitto as a process, which speaks MQTT 5. `settings` are further lines of its configuration. */
export async function startMosquitto(
  settings: readonly string[] = ['allow_anonymous true'],
): Promise<Broker> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'postern-mosquitto-'));
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(
    file,
    [`listener ${port} 127.0.0.1`, 'log_dest stderr', 'connection_messages true', ...settings, ''].join('\n'),
  );
  let child: ChildProcess | undefined;
  const start = async () => {
    const started = spawn('mosquitto', ['-c', file], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    child = started;
    const lines = createInterface(started.stderr!);
    await new Promise<void>((resolve, reject) => {
      started.once('exit', (code) => reject(new Error(`mosquitto ended with ${code}`)));
      lines.on('line', (line) => {
        if (/mosquitto version .* running/.test(line)) resolve();
      });
    });
  };
  const stop = async () => {
    if (!child || child.exitCode !== null) return;
    const ended = once(child, 'exit');
    child.kill();
    await ended;
  };
  await start();
  return {
    url: `mqtt://127.0.0.1:${port}`,
    stop,
    restart: start,
    [Symbol.asyncDispose]: async () => {
      await stop();
      rmSync(folder, { recursive: true });
    },
  };
}
