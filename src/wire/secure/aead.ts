import { createCipheriv, createDecipheriv } from 'node:crypto';

/** A cipher of `node:crypto` that encrypts and authenticates, with what it needs for one message. */
export interface Aead {
  /** Such as `aes-128-ccm`. */
  readonly cipher: string;
  readonly key: Uint8Array;
  /** Never used twice with the same key. */
  readonly nonce: Uint8Array;
  /** Bytes of the tag. */
  readonly tag: number;
}

/** Encrypts a content, and authenticates it together with `data` (RFC 5116). Returns the ciphertext and the tag. */
export function sealed({ cipher, key, nonce, tag }: Aead, data: Uint8Array, content: Uint8Array): Buffer[] {
  const sealing = createCipheriv(cipher as 'aes-128-ccm', key, nonce, { authTagLength: tag });
  sealing.setAAD(data, { plaintextLength: content.length });
  const encrypted = sealing.update(content);
  sealing.final();
  return [encrypted, sealing.getAuthTag()];
}

/**
 * Opens a ciphertext with its tag behind it.
 * @throws {Error} when it does not verify, or is shorter than a tag
 */
export function opened({ cipher, key, nonce, tag }: Aead, data: Uint8Array, bytes: Uint8Array): Buffer {
  const length = bytes.length - tag;
  if (length < 0) throw new Error('shorter than a tag');
  const opening = createDecipheriv(cipher as 'aes-128-ccm', key, nonce, { authTagLength: tag });
  opening.setAuthTag(bytes.subarray(length));
  opening.setAAD(data, { plaintextLength: length });
  const content = opening.update(bytes.subarray(0, length));
  opening.final();
  return content;
}
