import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { mediaTypeOf } from '../wire/coap/content-formats.ts';
import { Option } from '../wire/coap/options.ts';
import { encodeProof, proofMac } from '../wire/syncml/bootstrap-proof.ts';
import { verifyBootstrap } from '../wire/syncml/bootstrap-security.ts';
import { decodeMessage } from '../wire/syncml/codec.ts';
import { decodeTnds } from '../wire/syncml/tnds.ts';
import { type DmAccount, readAccount } from './dm-acc.ts';

/** What a bootstrap server answered, whatever stack brought it. */
export interface BootstrapAnswer {
  readonly isSuccess: boolean;
  /** `2.04`, and what was said with it, for a person. */
  readonly description: string;
  readonly contentFormat: number | undefined;
  readonly payload: Uint8Array;
  option(number: number): Uint8Array | undefined;
}

export interface IssuedBootstrap {
  readonly document: Uint8Array;
  readonly mediaType: string;
  /** Protection, as DM Bootstrap has it beside the content type. */
  readonly security: string;
  /** What the bootstrap must hold to be the answer to this request, in hexadecimal. */
  readonly nonce: string;
}

const nonceBytes = 16;

/**
 * Asks a local bootstrap server (GwMO section 8.4.2): proves the factory secret by its challenge.
 * @throws {PosternError} `unavailable`, `unauthorized`, and what `post` throws
 */
export async function requestBootstrap(
  deviceId: string,
  secret: string,
  entropy: Entropy,
  post: (options: Readonly<Record<number, Uint8Array>>, payload?: Uint8Array) => Promise<BootstrapAnswer>,
): Promise<IssuedBootstrap> {
  const challenge = (await post({})).option(Option.Echo.number);
  if (!challenge) throw new PosternError('unavailable', 'the bootstrap server gave no challenge');
  const deviceNonce = entropy.bytes(nonceBytes);
  const proof = encodeProof({ deviceNonce, mac: proofMac(secret, challenge, deviceId, deviceNonce) });
  const answer = await post({ [Option.Echo.number]: challenge }, proof);
  if (!answer.isSuccess)
    throw new PosternError('unauthorized', `the bootstrap server answered ${answer.description}`);
  return {
    document: answer.payload,
    mediaType: mediaTypeOf(answer.contentFormat ?? 0) ?? '',
    security: Buffer.from(answer.option(Option.BootstrapMac.number) ?? '').toString(),
    nonce: Buffer.from(deviceNonce).toString('hex'),
  };
}

/**
 * The account that a bootstrap of the DM profile gives, once it is known to come from who knows the secret.
 * @throws {PosternError} `unauthorized`, `malformed`
 */
export function accountOf(issued: IssuedBootstrap, deviceId: string, secret: string): DmAccount {
  const { document, mediaType, security, nonce } = issued;
  verifyBootstrap(document, security, { network: secret, pin: undefined });
  const { header, commands } = decodeMessage(document, mediaType);
  const [command] = commands;
  if (header.target.locUri !== deviceId || command?.name !== 'Add')
    throw new PosternError('unauthorized', `this bootstrap is not for ${deviceId}`);
  const account = readAccount(decodeTnds(command.items[0]?.data ?? '').root);
  if (account.bootstrapNonce !== nonce)
    throw new PosternError('unauthorized', 'the bootstrap answers another request');
  return account;
}
