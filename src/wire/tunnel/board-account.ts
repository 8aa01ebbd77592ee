import type { KeyObject } from 'node:crypto';
import * as v from 'valibot';
import { checkConfig, identifier, secret } from '../../base/config.ts';
import { PosternError } from '../../base/errors.ts';
import { openSealed, sealTo } from './hpke.ts';

/** The secrets of the DM account that a board has made for itself. */
export interface BoardSecrets {
  readonly clientSecret: string;
  readonly serverSecret: string;
}

/**
 * What a board tells the operator of its DM server: `enrolment.json` on its medium (docs/firmware.md). With neither of the last two,
 * the account comes from elsewhere.
 */
export interface BoardRecord {
  /** ServerID. */
  readonly id: string;
  /** PEM text. */
  readonly publicKey: string;
  /** `BoardSecrets` as JSON, sealed by HPKE to the key of the operator; base64. */
  readonly sealed?: string | undefined;
  /** The secrets in clear, where the operator allows it. */
  readonly secrets?: BoardSecrets | undefined;
}

/** `info` of HPKE for an account. */
const info = Buffer.from('postern board 1');
/** The account opens with the name and the key of its board alone. */
const boundTo = ({ id, publicKey }: BoardRecord): Buffer => Buffer.from(`${id}\n${publicKey}`);

/** Seals the secrets of a board to the key of the operator. */
export const sealAccount = (
  record: BoardRecord,
  { clientSecret, serverSecret }: BoardSecrets,
  operator: KeyObject,
): BoardRecord => ({
  ...record,
  sealed: sealTo(
    operator,
    info,
    Buffer.from(JSON.stringify({ clientSecret, serverSecret })),
    boundTo(record),
  ).toString('base64'),
});

const secretsSchema = v.strictObject({ clientSecret: secret, serverSecret: secret });
const longest = { key: 4096, sealed: 16_384 } as const;
const recordSchema = v.strictObject({
  id: identifier,
  publicKey: v.pipe(v.string(), v.maxLength(longest.key, 'a PEM public key')),
  sealed: v.optional(v.pipe(v.string(), v.maxLength(longest.sealed, 'sealed secrets'))),
  secrets: v.optional(secretsSchema),
});

/**
 * Reads the account of a board.
 * @param text content of `enrolment.json`
 * @param name name of the file, for the error messages
 * @param operator private key of the operator, on P-256; undefined when there is none
 * @throws {PosternError} `configuration` when it is no such file, has no account, or needs the key; `malformed` when it was sealed to
 *   another key, or was changed
 */
export function readAccount(
  text: string,
  name: string,
  operator: KeyObject | undefined,
): BoardSecrets & { readonly id: string } {
  const record = checkConfig(recordSchema, parsed(text, name), name);
  const { id, sealed, secrets } = record;
  if (sealed === undefined) {
    if (secrets) return { id, ...secrets };
    throw new PosternError(
      'configuration',
      `${name}: ${id} has made no account: its configuration gave the secrets, or the head-end enrols it`,
    );
  }
  if (!operator)
    throw new PosternError('configuration', `${name}: the account of ${id} is sealed; give the private key`);
  const opened = openSealed(operator, info, Buffer.from(sealed, 'base64'), boundTo(record));
  return { id, ...checkConfig(secretsSchema, parsed(opened.toString(), name), name) };
}

function parsed(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new PosternError('configuration', `${name}: it is not JSON, so it is no enrolment.json`, { cause });
  }
}
