import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import { ServiceProcess } from '../cli/service-process.ts';
import { freePair } from '../peers/free-pair.ts';
import type { EnrolmentSite } from './enrolment-site.ts';
import { secrets, type Toml } from './site.ts';

/** Device that boards serve. It has a factory secret. */
export const deviceId = 'urn:dev:stays:1';

/** A board that is a process, with its files in a folder of its own. It can be killed and started again. */
export class DepartingBoard implements AsyncDisposable {
  readonly folder: string;
  readonly port: number;
  readonly #site: EnrolmentSite;
  readonly #name: string;
  #process: ServiceProcess | undefined;

  /** @param disk folder in which the folder of the board is made; that of the site by default */
  static async make(
    site: EnrolmentSite,
    name = 'gw-1',
    port?: number,
    disk = site.folder,
  ): Promise<DepartingBoard> {
    return new DepartingBoard(site, name, port ?? (await freePair()), disk);
  }

  private constructor(site: EnrolmentSite, name: string, port: number, disk: string) {
    this.#site = site;
    this.#name = name;
    this.folder = mkdtempSync(join(disk, 'board-'));
    this.port = port;
  }

  /** Starts the board, and returns its process. */
  start(enrolment: Toml = {}, program: readonly string[] = []): ServiceProcess {
    const { folder, port } = this;
    const file = join(folder, 'gateway.toml');
    const tables = {
      gateway: { id: this.#name, state: this.state, 'admin-socket': this.socket },
      coap: { port, interfaces: ['lo'], leisure: 50 },
      coaps: { port: port + 1 },
      mqtt: { url: this.#site.url, ca: this.#site.ca },
      enrolment: { ...this.#site.claim, ...enrolment },
      bootstrap: { device: [{ id: deviceId, 'factory-secret': secrets.factory(deviceId) }] },
    };
    writeFileSync(file, stringify(tables));
    const args = ['gateway', '--config', file];
    const [command, ...more] = program;
    this.#process =
      command === undefined ? ServiceProcess.postern(args) : new ServiceProcess(command, [...more, ...args]);
    return this.#process;
  }

  get state(): string {
    return join(this.folder, 'state', 'state.db');
  }

  get socket(): string {
    return join(this.folder, 'admin.sock');
  }

  /** What is left of its state and of its identity. */
  get files(): string[] {
    return readdirSync(join(this.folder, 'state'), { recursive: true }).map(String).toSorted();
  }

  /** What `postern status` says. */
  status(): string {
    const main = new URL('../../src/cli/main.ts', import.meta.url).pathname;
    const { stdout, stderr } = spawnSync(process.execPath, [main, 'status', '--socket', this.socket], {
      encoding: 'utf8',
    });
    return stdout + stderr;
  }

  async kill(): Promise<void> {
    const { child } = this.#process!;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.[Symbol.asyncDispose]();
  }
}
