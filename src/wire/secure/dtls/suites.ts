/** How the premaster secret is agreed on. */
export type KeyExchange = 'psk' | 'ecdhe-psk' | 'ecdhe-ecdsa';

/** A cipher suite. The PRF of all of them is of SHA-256 (RFC 5246 section 5), and all keys for encryption have 16 bytes. */
export interface Suite {
  readonly id: number;
  /** Name of the IANA registry. */
  readonly name: string;
  readonly exchange: KeyExchange;
  readonly cipher: 'aes-128-ccm' | 'aes-128-gcm' | 'aes-128-cbc';
  /** Bytes of the authentication tag, or of the MAC. */
  readonly tag: number;
}

const suite = (
  id: number,
  name: string,
  exchange: KeyExchange,
  cipher: Suite['cipher'],
  tag: number,
): Suite => ({
  id,
  name,
  exchange,
  cipher,
  tag,
});

/** Suites with pre-shared keys, the preferred one first: what RFC 7925 section 4.2 requires, then the rest. */
export const pskSuites: readonly Suite[] = [
  suite(0xc0a8, 'TLS_PSK_WITH_AES_128_CCM_8', 'psk', 'aes-128-ccm', 8), // RFC 6655
  suite(0xd003, 'TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256', 'ecdhe-psk', 'aes-128-ccm', 8), // RFC 8442
  suite(0xd005, 'TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256', 'ecdhe-psk', 'aes-128-ccm', 16), // RFC 8442
  suite(0xc0a4, 'TLS_PSK_WITH_AES_128_CCM', 'psk', 'aes-128-ccm', 16), // RFC 6655
  suite(0x00a8, 'TLS_PSK_WITH_AES_128_GCM_SHA256', 'psk', 'aes-128-gcm', 16), // RFC 5487
  suite(0xc037, 'TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256', 'ecdhe-psk', 'aes-128-cbc', 32), // RFC 5489
  suite(0x00ae, 'TLS_PSK_WITH_AES_128_CBC_SHA256', 'psk', 'aes-128-cbc', 32), // RFC 5487
];

/** Suites with certificates and raw public keys, the preferred one first: what RFC 7925 sections 4.3 and 4.4 require, then the rest. */
export const certificateSuites: readonly Suite[] = [
  suite(0xc0ae, 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8', 'ecdhe-ecdsa', 'aes-128-ccm', 8), // RFC 7251
  suite(0xc0ac, 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM', 'ecdhe-ecdsa', 'aes-128-ccm', 16), // RFC 7251
  suite(0xc02b, 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256', 'ecdhe-ecdsa', 'aes-128-gcm', 16), // RFC 5289
];

/** All suites that are known, the preferred one first. */
export const suites: readonly Suite[] = [...pskSuites, ...certificateSuites];

/** The suite with this number. */
export const suiteOf = (id: number): Suite | undefined => suites.find((each) => each.id === id);

/** Whether the suite takes an AEAD. The others take CBC and a MAC. */
export const isAead = ({ cipher }: Suite): boolean => cipher !== 'aes-128-cbc';

/** Bytes of an encryption key. */
export const keyBytes = 16;

/** Bytes of what each direction has besides its key: the fixed part of the nonce (RFC 5288, RFC 6655), or the MAC key. */
export const saltBytes = (of: Suite): number => (isAead(of) ? 4 : 32);
