import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import {
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import type { Hardware } from '../../firmware-image/qemu/hardware.ts';
import { flash, Machine } from '../../firmware-image/qemu/machine.ts';
import { mebibyte, startOf } from '../../firmware-image/recipe/layout.ts';
import { output, run } from '../../firmware-image/recipe/tools.ts';
import type { EventName } from '../../src/base/event-table.ts';
import { type BootState, BootStateCopies, copyBytes } from '../../src/gateway/update/boot-state.ts';
import { secrets } from '../journeys/site.ts';
import { selfSigned } from '../peers/certificates.ts';

/** Address at which the guest reaches this machine's loopback interface. */
export const host = '10.0.2.2';

/** Milliseconds that a start or an update may take when a board is emulated on a busy machine. */
export const patience = { start: 120_000, update: 420_000 } as const;

/** What a board is flashed with, and its hardware. */
export interface BoardParts {
  /** Disk image from the recipe. */
  readonly disk: string;
  readonly hardware: Hardware;
  /** URL of the broker, as seen from this machine. By default nothing answers there. */
  readonly brokerUrl?: string;
  /** DevIds of devices that the gateway may bootstrap. */
  readonly devices?: readonly string[];
  /** Pre-shared keys of devices that come over DTLS. Without them it is not served. */
  readonly dtlsDevices?: readonly { readonly identity: string; readonly key: string }[];
  /** The table `update` of the gateway's configuration. */
  readonly update?: Readonly<Record<string, unknown>>;
  /** PEM text of the authority that certifies the servers of updates. */
  readonly updateAuthority?: string;
  /** Where the recovery system finds a bundle. */
  readonly recoveryUrl?: string;
  /** The table `network` of the board. */
  readonly network?: Readonly<Record<string, unknown>>;
  /** NTP servers, in the form of chrony's directive `server`. */
  readonly timeServers?: readonly string[];
}

/** Most serial logs that are kept in dist/firmware/serial. */
const keptLogs = 20;
/** A port of the guest that no configuration opens. */
const closedPort = 4321;

/** An emulated gateway board that was flashed, with its configuration. Tests see it from the outside only. */
export class Board implements AsyncDisposable {
  readonly folder: string;
  readonly disk: string;
  readonly coapPort: number;
  /** Port of this machine that is forwarded to the board's port for CoAP over DTLS. */
  readonly coapsPort: number;
  /** Port of this machine that is forwarded to a TCP port of the board that is not open. */
  readonly closedPort: number;
  readonly machine: Machine;

  private constructor(folder: string, ports: Record<'coap' | 'coaps' | 'closed', number>, parts: BoardParts) {
    this.folder = folder;
    this.disk = join(folder, 'disk.img');
    this.coapPort = ports.coap;
    this.coapsPort = ports.coaps;
    this.closedPort = ports.closed;
    this.machine = new Machine({
      folder,
      disk: this.disk,
      hardware: parts.hardware,
      udp: { 5683: ports.coap, 5684: ports.coaps },
      tcp: { [closedPort]: ports.closed },
      kernelArguments: 'postern.log=console',
    });
  }

  static async flash(parts: BoardParts): Promise<Board> {
    const folder = mkdtempSync(join(tmpdir(), 'postern-board-'));
    const ports = {
      coap: await freePort('udp'),
      coaps: await freePort('udp'),
      closed: await freePort('tcp'),
    };
    const board = new Board(folder, ports, parts);
    const { brokerUrl = 'mqtt://127.0.0.1:1', devices = [], dtlsDevices } = parts;
    const authority = parts.updateAuthority === undefined ? {} : { ca: 'updates.crt' };
    const config = stringify({
      gateway: { id: 'gw-1' },
      coap: { leisure: 50, 'insecure-plain-coap': true, advertise: `127.0.0.1:${board.coapPort}` },
      ...(dtlsDevices && { coaps: { device: dtlsDevices } }),
      mqtt: { url: brokerUrl.replace('127.0.0.1', host) },
      'dm-server': {
        id: 'dm.example',
        'client-secret': secrets.gatewayClient,
        'server-secret': secrets.gatewayServer,
      },
      bootstrap: { device: devices.map((id) => ({ id, 'factory-secret': secrets.factory(id) })) },
      images: authority,
      update: { ...parts.update, ...authority },
      ...(parts.network && { network: parts.network }),
    });
    const files = {
      'gateway.toml': config,
      ...(parts.updateAuthority !== undefined && { 'updates.crt': parts.updateAuthority }),
      ...(parts.recoveryUrl !== undefined && { 'recovery-url': `${parts.recoveryUrl}\n` }),
      ...(parts.timeServers && { 'ntp-servers': parts.timeServers.map((one) => `${one}\n`).join('') }),
    };
    flash(parts.disk, board.disk, files);
    return board;
  }

  /** Switches the board on, and waits until the gateway serves. Returns the milliseconds since its last power-on or reset. */
  async start(): Promise<number> {
    const started = this.event('gateway.started', patience.start);
    this.machine.start();
    await started;
    return this.machine.age;
  }

  /** Fields of the next event of the gateway with this name. */
  async event(name: EventName, milliseconds: number = patience.update): Promise<Record<string, unknown>> {
    const [line] = await this.machine.says(new RegExp(`\\{.*"event":"${name}".*\\}`), milliseconds);
    return JSON.parse(line) as Record<string, unknown>;
  }

  /** Reads the boot state from the disk. */
  bootState(): BootState {
    return this.#bootStateCopies().read();
  }

  /** Writes the boot state to the disk. The board must be switched off. */
  changeBootState(changes: Partial<BootState>): void {
    this.#bootStateCopies().change(changes);
    for (const name of bootStateParts)
      run('dd', [
        `if=${join(this.folder, name)}`,
        `of=${this.disk}`,
        ...placeOf(name, 'seek'),
        'conv=notrunc',
      ]);
  }

  #bootStateCopies(): BootStateCopies {
    const copies = bootStateParts.map((name) => {
      const file = join(this.folder, name);
      run('dd', [`if=${this.disk}`, `of=${file}`, ...placeOf(name, 'skip')]);
      return file;
    });
    return new BootStateCopies([copies[0]!, copies[1]!]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine[Symbol.asyncDispose]();
    keepSerialLog(this.folder);
    if (!process.env.POSTERN_KEEP_BOARDS) rmSync(this.folder, { recursive: true });
  }
}

const bootStateParts = ['state-1', 'state-2'] as const;

/** Arguments for dd that select the block with a copy of the boot state. */
const placeOf = (name: (typeof bootStateParts)[number], verb: 'seek' | 'skip'): string[] => [
  `bs=${copyBytes}`,
  'count=1',
  `${verb}=${(startOf(name) * mebibyte) / copyBytes}`,
];

/** Copies the serial log of a board to dist/firmware/serial, and deletes the oldest logs there. */
function keepSerialLog(folder: string): void {
  const kept = join(output, 'serial');
  mkdirSync(kept, { recursive: true });
  copyFileSync(join(folder, 'serial.log'), join(kept, `${new Date().toISOString()}.log`));
  for (const old of readdirSync(kept).toSorted().slice(0, -keptLogs)) rmSync(join(kept, old));
}

async function freePort(protocol: 'udp' | 'tcp'): Promise<number> {
  const socket =
    protocol === 'udp' ? createSocket('udp4').bind(0, '127.0.0.1') : createTcpServer().listen(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address() as AddressInfo;
  socket.close();
  return port;
}

/**
 * Serves files to the guest over HTTPS, also ranges of them, and the index of a bundle if there is one. `given` is paths by name.
 */
export async function bundleServer(given: Readonly<Record<string, string>>) {
  const files: Record<string, string> = { ...given };
  let isBreaking = false;
  let sent = 0;
  const folder = mkdtempSync(join(tmpdir(), 'postern-updates-'));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')] as const;
  selfSigned('updates', { key, cert }, '-addext', `subjectAltName=IP:${host}`);
  const tls = { key: readFileSync(key), cert: readFileSync(cert) };
  rmSync(folder, { recursive: true });
  const server = createServer(tls, (request, response) => {
    const [, name = '', index = ''] = /^\/(.*?)(\.blocks)?$/.exec(request.url ?? '') ?? [];
    const file = (files[name] ?? '') + index;
    if (!existsSync(file)) return response.writeHead(404).end();
    const { size } = statSync(file);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    if (start >= size) return response.writeHead(416).end();
    const end = Number(range?.[2] || size - 1);
    response.writeHead(range ? 206 : 200, {
      etag: `"${size}"`,
      'content-length': end + 1 - start,
      ...(range && { 'content-range': `bytes ${start}-${end}/${size}` }),
    });
    if (isBreaking && range?.[2] && end - start > 65_536) {
      isBreaking = false;
      return createReadStream(file, { start, end: start + 32_768 })
        .on('end', () => response.destroy())
        .pipe(response, { end: false });
    }
    sent += end + 1 - start;
    return createReadStream(file, { start, end }).pipe(response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    /** PEM text; the certificate is self-signed. */
    certificate: String(tls.cert),
    url: (name: string) => `https://${host}:${port}/${name}`,
    /** From now on the path `name` leads to this file. */
    serve: (name: string, file: string) => {
      files[name] = file;
    },
    /** The next range of more than 64 KiB breaks off in its middle. */
    breakNext: () => {
      isBreaking = true;
    },
    /** Bytes of all answers that did not break off. */
    sent: () => sent,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
