import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { replaceDurably, syncFolder, writeDurably } from '../base/durable.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { actualFile } from '../base/state-lock.ts';
import type { GatewayConfig } from './config.ts';
import { wipeState } from './wipe.ts';

/**
 * The order to reset a gateway: its state is deleted, and it starts anew with its configuration and its identity. The order is a
 * file beside the state, with the name of who gave it. It stays until the state is deleted, and its other name until the DM server
 * is to be told. So a power cut at any time leads back to the step that it interrupted.
 */
const markOf = ({ gateway: { state } }: GatewayConfig): string => {
  const file = actualFile(state);
  return join(dirname(file), `reset-${basename(file)}`);
};
const doneOf = (config: GatewayConfig): string => `${markOf(config)}-done`;

/**
 * Checks an order. Returns the function that stores it.
 * @param name must be the ID of this gateway, so that nobody resets another gateway than the one that was meant
 * @throws {PosternError} `malformed` for another name. The function: errors of the file system
 */
export function resetOrder(config: GatewayConfig, name: unknown, by: string): () => void {
  const { id, state } = config.gateway;
  if (name !== id)
    throw new PosternError('malformed', `this is ${id}: name it to delete its state (postern reset ${id})`);
  return () => {
    // A state in memory is gone without it.
    if (state !== ':memory:') writeDurably(markOf(config), by);
  };
}

/**
 * Deletes the state, if that was ordered. To be called while nobody has the state open.
 * @throws {Error} of the file system
 */
export function resetIfOrdered(config: GatewayConfig, events: Events): void {
  if (!existsSync(markOf(config))) return;
  wipeState(config);
  replaceDurably(markOf(config), doneOf(config));
  events.emit('gateway.reset', { by: resetBy(config)! });
}

/** Who ordered the reset of which the DM server is to be told. */
export const resetBy = (config: GatewayConfig): string | undefined =>
  existsSync(doneOf(config)) ? readFileSync(doneOf(config), 'utf8') : undefined;

/** What the DM server is told is stored. @throws {Error} of the file system */
export function endReset(config: GatewayConfig): void {
  rmSync(doneOf(config));
  syncFolder(dirname(doneOf(config)));
}
