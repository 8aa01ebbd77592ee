import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { replaceDurably, syncFolder, writeDurably } from '../base/durable.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { actualFile } from '../base/state-lock.ts';
import type { GatewayConfig } from './config.ts';
import { wipeState } from './wipe.ts';

/** Most characters of who ordered a reset. */
const longest = 200;

/**
 * The order to reset a gateway: its state is deleted, and it starts anew with its configuration and its identity. The order is a
 * file beside the state, with the name of who gave it. It stays until the state is deleted, and its other name `-done` until the DM
 * server is to be told. So a power cut at any time leads back to the step that it interrupted.
 */
export class FactoryReset {
  readonly #config: GatewayConfig;
  /** The order; undefined for a state in memory. */
  readonly #mark: string | undefined;

  constructor(config: GatewayConfig) {
    const { state } = config.gateway;
    this.#config = config;
    if (state === ':memory:') return;
    const file = actualFile(state);
    this.#mark = join(dirname(file), `reset-${basename(file)}`);
  }

  /**
   * Checks an order. Returns the function that stores it.
   * @param name must be the ID of this gateway, so that nobody resets another gateway than the one that was meant
   * @throws {PosternError} `malformed` for another name, `notAllowed` for a state in memory. The function: `storage`
   */
  order(name: unknown, by: string): () => void {
    const { id } = this.#config.gateway;
    const mark = this.#mark;
    if (name !== id) throw new PosternError('malformed', `this is ${id}`);
    if (mark === undefined) throw new PosternError('notAllowed', 'the state is in memory');
    return () => {
      try {
        writeDurably(mark, by.slice(0, longest));
      } catch (cause) {
        throw new PosternError('storage', `${mark}: ${asPosternError(cause).message}`, { cause });
      }
    };
  }

  /**
   * Deletes the state, if that was ordered. To be called while nobody has the state open.
   * @throws {Error} of the file system
   */
  carryOut(events: Events): void {
    const mark = this.#mark;
    if (mark === undefined || !existsSync(mark)) return;
    wipeState(this.#config);
    replaceDurably(mark, `${mark}-done`);
    events.emit('gateway.reset', { gateway: this.#config.gateway.id, by: this.by! });
  }

  /** Who ordered the reset of which the DM server is to be told. */
  get by(): string | undefined {
    const done = `${this.#mark}-done`;
    return this.#mark !== undefined && existsSync(done) ? readFileSync(done, 'utf8') : undefined;
  }

  /** What the DM server is told is stored. @throws {Error} of the file system */
  end(): void {
    rmSync(`${this.#mark}-done`, { force: true });
    if (this.#mark !== undefined) syncFolder(dirname(this.#mark));
  }
}
