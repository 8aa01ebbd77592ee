/** Name of the transport header that carries a message's MAC (OMA DM security 1.2.1, section 5.4). */
export const hmacHeader = 'x-syncml-hmac';

/** The MAC of one message and the name of its sender. */
export interface MessageProof {
  readonly name: string;
  /** Base64. */
  readonly mac: string;
}

/** Writes the value of the header `x-syncml-hmac`. */
export const formatHmac = ({ name, mac }: MessageProof): string =>
  `algorithm=MD5, username="${name}", mac=${mac}`;

/** Characters of the header: a name of 255 and a MAC need half of them. The time to read it grows with their square. */
const longest = 1024;

/**
 * Reads the value of the header. Returns undefined for an algorithm other than MD5, and when name or MAC is missing, or the value
 * is too long.
 */
export function parseHmac(value: string): MessageProof | undefined {
  if (value.length > longest) return undefined;
  const fields = new Map<string, string>();
  for (const [, key = '', quoted, plain] of value.matchAll(/([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^,\s]+))/g))
    fields.set(key.toLowerCase(), quoted ?? plain ?? '');
  const { algorithm = 'MD5', username: name, mac } = Object.fromEntries(fields);
  return algorithm.toUpperCase() === 'MD5' && name !== undefined && mac !== undefined
    ? { name, mac }
    : undefined;
}
