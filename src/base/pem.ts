import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';

/**
 * Reads a PEM file: certificates or a key. A file that is being replaced may be empty for a moment. TLS would take that for
 * "none is configured": it would serve without a certificate, or trust the authorities of the machine.
 * @param what key of the configuration, for the error message
 * @param read reads the file, in place of `readNamedFile`
 * @throws {PosternError} `configuration` when the file cannot be read, or holds nothing in PEM
 */
export function readPem(file: string, what: string, read = readNamedFile): string {
  let text: string;
  try {
    text = read(file).toString();
  } catch (cause) {
    throw new PosternError('configuration', `${what}: ${file} ${asPosternError(cause).message}`, { cause });
  }
  if (!text.includes('-----BEGIN '))
    throw new PosternError('configuration', `${what}: ${file} holds nothing in PEM`);
  return text;
}
