import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceDurably, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';

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

const texts = ['server', 'code', 'url', 'ca', 'cert', 'key', 'username', 'password'] as const;
/** Octets of the data of the Exec. */
const mostBytes = 32_768;

/**
 * Reads an order.
 * @throws {PosternError} `malformed`
 */
export function readTransferOrder(json: string): TransferOrder {
  let read: Readonly<Record<string, unknown>>;
  try {
    if (json.length > mostBytes) throw new Error('it is too long');
    read = { ...JSON.parse(json) };
  } catch (cause) {
    throw new PosternError('malformed', `Transfer: ${asPosternError(cause).message}`, { cause });
  }
  const { server, code, url, ca, cert, key, username, keep = true } = read;
  const given = texts.filter((name) => read[name] !== undefined);
  const isWhole =
    server !== undefined &&
    code !== undefined &&
    typeof keep === 'boolean' &&
    (cert === undefined) === (key === undefined) &&
    (cert === undefined || username === undefined) &&
    (url === undefined ? ca === undefined : /^(mqtts?|ssl|tcp|wss?):\/\/[^\s/]/.test(String(url))) &&
    given.every((name) => typeof read[name] === 'string' && read[name] !== '');
  if (!isWhole)
    throw new PosternError(
      'malformed',
      'Transfer: texts for server and code are needed; url with ca; cert with key, or username with password; and keep, true or false',
    );
  return { ...Object.fromEntries(given.map((name) => [name, read[name]])), keep } as unknown as TransferOrder;
}

const orderFile = 'order.json';

/**
 * Stores an order in a folder that is made anew. Returns what puts the folder in its place.
 * @throws {PosternError} `storage`
 */
export function stageTransfer(order: TransferOrder, folder: string): () => void {
  const part = `${folder}.new`;
  try {
    rmSync(part, { recursive: true, force: true });
    makeFolder(part, { mode: 0o700 });
    const { url, ca, cert, key } = order;
    for (const [name, pem] of Object.entries({ 'ca.pem': ca, 'claim.pem': cert, 'claim.key': key }))
      if (pem !== undefined) writeDurably(join(part, name), pem);
    writeDurably(join(part, 'owner.json'), JSON.stringify({ url, ca: ca !== undefined }));
    writeDurably(join(part, orderFile), JSON.stringify(order));
  } catch (cause) {
    throw new PosternError('storage', `${part}: ${asPosternError(cause).message}`, { cause });
  }
  return () => {
    rmSync(folder, { recursive: true, force: true });
    replaceDurably(part, folder);
  };
}

/** The order in a folder. Undefined when there is none. */
export function storedTransfer(folder: string): TransferOrder | undefined {
  const file = join(folder, orderFile);
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as TransferOrder) : undefined;
}
