import { hkdfSync } from 'node:crypto';
import { toCbor } from '../../../base/cbor.ts';
import { opened, sealed } from '../aead.ts';
import { mostPivBytes } from './option.ts';

/** What two parties agree on before (RFC 8613 section 3.2). The algorithms are AES-CCM-16-64-128 and HKDF with SHA-256. */
export interface OscoreParameters {
  readonly masterSecret: Uint8Array;
  readonly masterSalt?: Uint8Array | undefined;
  readonly idContext?: Uint8Array | undefined;
  /** Names this party. At most `mostIdBytes`. */
  readonly senderId: Uint8Array;
  /** Names the other party. */
  readonly recipientId: Uint8Array;
}

/** A request that was protected: all that its response is bound to (section 5.4). */
export interface RequestBinding {
  readonly kid: Uint8Array;
  readonly piv: Uint8Array;
}

const keyBytes = 16;
const nonceBytes = 13;
const tagBytes = 8;
/** Most octets of a Sender ID or Recipient ID: those of the nonce without its first one and the Partial IV (section 3.3). */
export const mostIdBytes = nonceBytes - 1 - mostPivBytes;
/** Identifier of AES-CCM-16-64-128 (RFC 8152 section 10.2). */
const algorithm = 10;

const version = 1;
const none = new Uint8Array();

/** The array `info` of the key derivation (section 3.2.1). */
export const derivationInfo = (
  id: Uint8Array,
  idContext: Uint8Array | undefined,
  type: 'Key' | 'IV',
  length: number,
): Buffer => toCbor([id, idContext ?? null, algorithm, type, length]);

/** The data that is authenticated besides the content (section 5.4). No option is of class I, so it holds none. */
export const authenticatedData = ({ kid, piv }: RequestBinding): Buffer =>
  toCbor(['Encrypt0', none, toCbor([version, [algorithm], kid, piv, none])]);

/** The keys of a security context. */
export class OscoreKeys {
  readonly parameters: OscoreParameters;
  readonly senderKey: Uint8Array;
  readonly recipientKey: Uint8Array;
  readonly commonIv: Uint8Array;

  constructor(parameters: OscoreParameters) {
    const { masterSecret, masterSalt = none, idContext, senderId, recipientId } = parameters;
    const derived = (id: Uint8Array, type: 'Key' | 'IV', length: number) =>
      Buffer.from(
        hkdfSync('sha256', masterSecret, masterSalt, derivationInfo(id, idContext, type, length), length),
      );
    this.parameters = parameters;
    this.senderKey = derived(senderId, 'Key', keyBytes);
    this.recipientKey = derived(recipientId, 'Key', keyBytes);
    this.commonIv = derived(none, 'IV', nonceBytes);
  }

  /** The nonce of a Partial IV that the party with this ID has made (section 5.2). */
  nonce(id: Uint8Array, piv: Uint8Array): Buffer {
    const nonce = Buffer.alloc(nonceBytes);
    nonce[0] = id.length;
    nonce.set(id, 1 + mostIdBytes - id.length);
    nonce.set(piv, nonceBytes - piv.length);
    for (const [at, byte] of this.commonIv.entries()) nonce[at]! ^= byte;
    return nonce;
  }

  /**
   * Protects a content.
   * @param piv the own Partial IV. Without it the nonce of the request is used, which is allowed once for each request
   */
  seal(request: RequestBinding, piv: Uint8Array | undefined, content: Uint8Array): Buffer {
    const { senderId } = this.parameters;
    const nonce = piv ? this.nonce(senderId, piv) : this.nonce(request.kid, request.piv);
    return Buffer.concat(sealed(aead(this.senderKey, nonce), authenticatedData(request), content));
  }

  /** Opens what the other party has protected. Undefined when it does not verify. */
  open(request: RequestBinding, piv: Uint8Array | undefined, bytes: Uint8Array): Buffer | undefined {
    const { recipientId } = this.parameters;
    const nonce = piv ? this.nonce(recipientId, piv) : this.nonce(request.kid, request.piv);
    try {
      return opened(aead(this.recipientKey, nonce), authenticatedData(request), bytes);
    } catch {
      return undefined;
    }
  }
}

const aead = (key: Uint8Array, nonce: Uint8Array) => ({ cipher: 'aes-128-ccm', key, nonce, tag: tagBytes });
