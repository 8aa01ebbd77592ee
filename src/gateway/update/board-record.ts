import { createPublicKey, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { readNamedFile } from '../../base/named-file.ts';
import { type BoardRecord, type BoardSecrets, sealAccount } from '../../wire/tunnel/board-account.ts';
import type { BoardConfig } from './board-config.ts';

/**
 * The record with the secrets as the operator wants to have them.
 * @param from folder of the medium, where the key is
 * @throws {PosternError} `configuration` when nothing says how
 */
export function protectedRecord(
  record: BoardRecord,
  secrets: BoardSecrets,
  wanted: BoardConfig['provision'],
  from: string,
): BoardRecord {
  const name = wanted['operator-key'];
  if (name !== undefined) return sealAccount(record, secrets, operatorKey(join(from, name)));
  if (wanted['insecure-plain-secrets']) return { ...record, secrets };
  throw new PosternError(
    'configuration',
    `${join(from, 'gateway.toml')}: this board makes its own secrets and leaves them on CONFIG for you: set provision.operator-key, to which they are sealed (postern account --new-key), or provision.insecure-plain-secrets = true; a table [enrolment], or client-secret and server-secret in [dm-server], need neither`,
  );
}

/** @throws {PosternError} `configuration` */
function operatorKey(file: string): KeyObject {
  const fault = (why: string, cause?: unknown) =>
    new PosternError('configuration', `provision.operator-key: ${file} ${why}`, { cause });
  let content: Buffer;
  try {
    content = readNamedFile(file);
  } catch (cause) {
    throw fault(asPosternError(cause).message, cause);
  }
  // A public key would be taken out of it, and the private one would be on every medium.
  if (/PRIVATE KEY/.test(content.toString())) throw fault('is the private key; put the public one there');
  try {
    const key = createPublicKey(content);
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key;
  } catch {
    // Something else than a key.
  }
  throw fault('holds no public key of P-256');
}
