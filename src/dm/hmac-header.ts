/** Transport header of DM's integrity protection (OMA DM security 1.2.1, section 5.4). */
export const hmacHeader = 'x-syncml-hmac';

export interface MessageProof {
  readonly name: string;
  /** Base64. */
  readonly mac: string;
}

/** Value of the header `x-syncml-hmac`. */
export const formatHmac = ({ name, mac }: MessageProof): string =>
  `algorithm=MD5, username="${name}", mac=${mac}`;

/** Reads the header's value; none when it is another algorithm's, or no proof. */
export function parseHmac(value: string): MessageProof | undefined {
  const fields = new Map<string, string>();
  for (const [, key = '', quoted, plain] of value.matchAll(/([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^,\s]+))/g))
    fields.set(key.toLowerCase(), quoted ?? plain ?? '');
  const { algorithm = 'MD5', username: name, mac } = Object.fromEntries(fields);
  return algorithm.toUpperCase() === 'MD5' && name !== undefined && mac !== undefined
    ? { name, mac }
    : undefined;
}
