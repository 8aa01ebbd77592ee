import { fork } from 'node:child_process';
import { once } from 'node:events';

/** What the client can be told, and what it tells. */
export type Told = { readonly kind: 'dump' } | { readonly kind: 'leave' };
export type Telling =
  | { readonly kind: 'registered'; readonly status: string }
  | { readonly kind: 'dump'; readonly light: unknown }
  | { readonly kind: 'left'; readonly status: string };

/** An LwM2M client that others wrote (`coap-node`), in a process of its own: it has no end but that of its process. */
export class StockLwM2mClient implements AsyncDisposable {
  readonly #process;

  constructor(name: string, port: number) {
    this.#process = fork(new URL('lwm2m-client-process.ts', import.meta.url), [name, String(port)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill();
    await once(this.#process, 'exit');
  }

  async ask(told: Told): Promise<Telling> {
    this.#process.send(told);
    return await this.next();
  }

  async next(): Promise<Telling> {
    const [telling] = await once(this.#process, 'message');
    return telling as Telling;
  }
}
