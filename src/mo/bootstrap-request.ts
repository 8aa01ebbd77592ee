import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { mediaTypeOf } from '../wire/coap/content-formats.ts';
import { Option } from '../wire/coap/options.ts';
import { encodeProof, proofMac } from '../wire/syncml/bootstrap-proof.ts';
import { verifyBootstrap } from '../wire/syncml/bootstrap-security.ts';
import { decodeDocument } from '../wire/syncml/codec.ts';
import { decodeTnds } from '../wire/syncml/tnds.ts';
import { type DmAccount, readAccount } from './dm-acc.ts';

/** The answer of a bootstrap server, independent of the CoAP stack that received it. */
export interface BootstrapAnswer {
  readonly isSuccess: boolean;
  /** Response code such as `2.04`, with the diagnostic text if there is one, for people. */
  readonly description: string;
  /** CoAP Content-Format. */
  readonly contentFormat: number | undefined;
  readonly payload: Uint8Array;
  /** Value of the CoAP option with this number. */
  option(number: number): Uint8Array | undefined;
}

/** A bootstrap message as the server issued it. */
export interface IssuedBootstrap {
  readonly document: Uint8Array;
  readonly mediaType: string;
  /** The protection of the message: the parameters SEC and MAC that DM Bootstrap has beside the content type. */
  readonly security: string;
  /** Nonce of the request, in hexadecimal. A bootstrap message without it answers another request. */
  readonly nonce: string;
}

const nonceBytes = 16;

/**
 * Asks a local bootstrap server for a bootstrap message (GwMO section 8.4.2). The device proves its factory secret by
 * the challenge of the server.
 * @param offered a challenge of the server that came with its link, if any. When it is too old by now, the server gives another
 * @param post sends a POST to the server, with CoAP options by their numbers
 * @throws {PosternError} `unavailable` when the server gives no challenge, `unauthorized` when it refuses
 * @throws what `post` throws
 */
export async function requestBootstrap(
  deviceId: string,
  secret: string,
  entropy: Entropy,
  post: (options: Readonly<Record<number, Uint8Array>>, payload?: Uint8Array) => Promise<BootstrapAnswer>,
  offered?: Uint8Array,
): Promise<IssuedBootstrap> {
  const deviceNonce = entropy.bytes(nonceBytes);
  const prove = async (challenge: Uint8Array | undefined) => {
    if (!challenge) throw new PosternError('unavailable', 'the bootstrap server gave no challenge');
    const proof = encodeProof({ deviceNonce, mac: proofMac(secret, challenge, deviceId, deviceNonce) });
    return await post({ [Option.Echo.number]: challenge }, proof);
  };
  const challenge = (answer: BootstrapAnswer) => answer.option(Option.Echo.number);
  const early = offered && (await prove(offered));
  const another = early && !early.isSuccess && challenge(early);
  const answer = early ? (another ? await prove(another) : early) : await prove(challenge(await post({})));
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
 * Reads the DM account from a bootstrap message of the DM profile. Checks first that the sender knows the secret.
 * @throws {PosternError} `unauthorized` for a wrong MAC, another device or another request; `malformed`
 */
export function accountOf(issued: IssuedBootstrap, deviceId: string, secret: string): DmAccount {
  const { document, mediaType, security, nonce } = issued;
  verifyBootstrap(document, security, { network: secret, pin: undefined });
  const { header, commands } = decodeDocument(document, mediaType);
  const [command] = commands;
  if (header.target.locUri !== deviceId || command?.name !== 'Add')
    throw new PosternError('unauthorized', `this bootstrap is not for ${deviceId}`);
  const account = readAccount(decodeTnds(command.items[0]?.data ?? '').root);
  if (account.bootstrapNonce !== nonce)
    throw new PosternError('unauthorized', 'the bootstrap answers another request');
  return account;
}
