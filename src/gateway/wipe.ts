import { existsSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncFolder } from '../base/durable.ts';
import { keyFileOf } from '../base/sealing.ts';
import { actualFile } from '../base/state-lock.ts';
import type { GatewayConfig } from './config.ts';
import { imageSettings } from './settings.ts';

/** Names of files of images, complete and incomplete. */
const imageName = /^[0-9a-f]{16}[-.0-9a-z]*$/;

/**
 * Deletes the state of a gateway that does not run: first the key that its secrets are sealed by, then the state with its
 * logs, copies and backups beside it, and the images. It may be done again at any time.
 * @throws {Error} of the file system
 */
export function wipeState(config: GatewayConfig): void {
  const { state } = config.gateway;
  const { directory } = imageSettings(config);
  if (directory !== undefined && existsSync(directory))
    for (const name of readdirSync(directory)) if (imageName.test(name)) remove(join(directory, name));
  if (state === ':memory:') return;
  const file = actualFile(state);
  const folder = dirname(file);
  if (!existsSync(folder)) return;
  remove(keyFileOf(state));
  syncFolder(folder);
  const name = basename(file);
  for (const other of readdirSync(folder))
    if (other === name || other.startsWith(`${name}.`) || other.startsWith(`${name}-`))
      remove(join(folder, other));
  syncFolder(folder);
}

const remove = (path: string): void => rmSync(path, { recursive: true, force: true });
