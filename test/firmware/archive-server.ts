import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('archive-server-process.ts', import.meta.url));

/**
 * A mirror of Debian's archive: serves the files of a folder by HTTP. It is a process of its own, because the recipe does nothing else
 * while it downloads.
 */
export class ArchiveServer implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly url: string;

  private constructor(server: ChildProcess, folder: string, port: number) {
    this.#process = server;
    this.#folder = folder;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async open(folder: string): Promise<ArchiveServer> {
    const server = spawn(process.execPath, [program, folder, `${folder}.asked`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [port] = await once(server.stdout!, 'data');
    return new ArchiveServer(server, folder, Number(port));
  }

  /** Paths that were asked for. */
  get asked(): string[] {
    const file = `${this.#folder}.asked`;
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
  }

  /** Has each further answer break off. */
  breakOff(): void {
    writeFileSync(`${this.#folder}.breaks`, '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill();
    await once(this.#process, 'exit');
  }
}
