import { fork } from 'node:child_process';
import { once } from 'node:events';

/** Messages to the client's process. */
export type Told = { readonly kind: 'dump' } | { readonly kind: 'leave' };
/** Messages from the client's process. */
export type Telling =
  | { readonly kind: 'registered'; readonly status: string }
  | { readonly kind: 'dump'; readonly light: unknown }
  | { readonly kind: 'left'; readonly status: string };

/** The LwM2M client `coap-node`, in a process of its own, since it can only be stopped by ending its process. */
export class StockLwM2mClient implements AsyncDisposable {
  readonly #process;

  constructor(name: string, port: number) {
    this.#process = fork(new URL('lwm2m-client-process.ts', import.meta.url), [name, String(port)]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill();
    await once(this.#process, 'exit');
  }

  /** Sends a message, and resolves with the next message from the client. */
  async ask(told: Told): Promise<Telling> {
    this.#process.send(told);
    return await this.next();
  }

  /** Resolves with the next message from the client. */
  async next(): Promise<Telling> {
    const [telling] = await once(this.#process, 'message');
    return telling as Telling;
  }
}
