import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceDurably, syncFolder, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';
import type { IdentityFiles } from './identity-files.ts';

/** An order to pass a gateway to another owner, as the data of the Exec has it, in JSON. */
export interface TransferOrder {
  /** ServerID of the next owner. Only this DM server is asked, and only its grant is taken. */
  readonly server: string;
  /** One-time code that the next owner made for this gateway. */
  readonly code: string;
  /** The next owner's broker; absent where both have the same one. */
  readonly url?: string;
  /** Authorities for that broker, PEM. */
  readonly ca?: string;
  /** Claim certificate and its key there, PEM. */
  readonly cert?: string;
  readonly key?: string;
  /** Or a user name and password there. */
  readonly username?: string;
  readonly password?: string;
  /** Whether the devices that are attached, and the site's settings, stay. */
  readonly keep: boolean;
}

/** Characters of the data of the Exec. */
const longest = 32_768;

/**
 * Reads an order. What the next broker does not take is found out when it is asked: the gateway then stays with its owner.
 * @throws {PosternError} `malformed`
 */
export function readTransferOrder(json: string): TransferOrder {
  try {
    const { keep = true, ...texts } = JSON.parse(json.slice(0, longest)) as TransferOrder;
    const isWhole = Object.values(texts).every((text) => typeof text === 'string');
    const isPaired = !texts.cert === !texts.key && !texts.username === !texts.password;
    if (texts.server && texts.code && isWhole && isPaired && typeof keep === 'boolean')
      return { ...texts, keep };
  } catch {}
  throw new PosternError(
    'malformed',
    'Transfer: JSON with server, code and keep is needed; cert and key, username and password are pairs',
  );
}

const orderFile = 'order.json';

/**
 * Stores an order in a folder that is made anew. Returns what puts the folder in its place.
 * @throws {PosternError} `storage`
 */
export function stageTransfer(order: TransferOrder, folder: string, files: IdentityFiles): () => void {
  const part = `${folder}.new`;
  try {
    rmSync(part, { recursive: true, force: true });
    makeFolder(part, { mode: 0o700 });
    const { url, ca, cert, key } = order;
    for (const [name, pem] of Object.entries({ 'ca.pem': ca, 'claim.pem': cert }))
      if (pem !== undefined) writeDurably(join(part, name), pem);
    if (key !== undefined) files.write(join(part, 'claim.key'), key);
    writeDurably(join(part, 'owner.json'), JSON.stringify({ url, ca: ca !== undefined }));
    files.write(join(part, orderFile), JSON.stringify(order));
  } catch (cause) {
    throw new PosternError('storage', `${part}: ${asPosternError(cause).message}`, { cause });
  }
  return () => {
    // A later order of the same package has taken its place, and is stored already.
    if (!existsSync(part)) return;
    rmSync(folder, { recursive: true, force: true });
    replaceDurably(part, folder);
  };
}

/** Gives up the transfer in a folder. It is over when the order is gone, whatever else is left after a power cut. */
export function dropTransfer(folder: string): void {
  if (!existsSync(folder)) return;
  rmSync(join(folder, orderFile), { force: true });
  syncFolder(folder);
  rmSync(folder, { recursive: true });
}

/**
 * The order in a folder. Undefined when there is none.
 * @throws {PosternError} `configuration` when another key has encrypted it
 */
export function storedTransfer(folder: string, files: IdentityFiles): TransferOrder | undefined {
  const file = join(folder, orderFile);
  return existsSync(file) ? (JSON.parse(files.read(file).toString()) as TransferOrder) : undefined;
}
