import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Aedes } from 'aedes';

/** A broker for a test, which can be stopped and started again at the same address. */
export interface Broker extends AsyncDisposable {
  readonly url: string;
  stop(): Promise<void>;
  /** @throws after the broker was disposed of: a test that timed out runs on, and nobody would stop the broker again */
  restart(): Promise<void>;
}

/** A mosquitto that a test starts. */
export interface Mosquitto extends Broker {
  /** Makes mosquitto read its files again, such as access rules. */
  reload(): void;
}

/** Makes a broker of the two functions that start and stop it. */
function brokerOf(url: string, start: () => Promise<void>, stop: () => Promise<void>): Broker {
  let isDisposed = false;
  return {
    url,
    stop,
    restart: async () => {
      if (isDisposed) throw new Error('the test of this broker has ended');
      await start();
    },
    [Symbol.asyncDispose]: async () => {
      isDisposed = true;
      await stop();
    },
  };
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
    const sockets = new Set<Socket>();
    const server = createServer({ noDelay: true }, (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      broker.handle(socket);
    });
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    port = portOf(server);
    stop = async () => {
      const closed = once(server, 'close');
      server.close();
      await new Promise<void>((resolve) => broker.close(() => resolve()));
      // aedes closes the clients it has accepted. One that has just connected would stay, and the server with it.
      for (const socket of sockets) socket.destroy();
      await closed;
    };
  };
  await start();
  return brokerOf(`mqtt://127.0.0.1:${port}`, start, () => stop());
}

/** A TCP port of the loopback interface that nobody uses now. */
export async function freePort(): Promise<number> {
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
): Promise<Mosquitto> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'postern-mosquitto-'));
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(
    file,
    [`listener ${port} 127.0.0.1`, 'log_dest stderr', 'connection_messages true', ...settings, ''].join('\n'),
  );
  let child: ChildProcess | undefined;
  // A process that ends early does not dispose of its brokers.
  const end = () => void child?.kill();
  process.once('exit', end);
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
  const broker = brokerOf(`mqtt://127.0.0.1:${port}`, start, stop);
  return {
    ...broker,
    reload: () => void child?.kill('SIGHUP'),
    [Symbol.asyncDispose]: async () => {
      await broker[Symbol.asyncDispose]();
      process.off('exit', end);
      rmSync(folder, { recursive: true });
    },
  };
}
