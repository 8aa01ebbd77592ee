/** How the premaster secret is agreed on. */
export type KeyExchange = 'psk' | 'ecdhe-psk';

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

/** All suites that are known, the preferred one first: what RFC 7925 section 4.2 requires, then the rest. */
export const suites: readonly Suite[] = [
  suite(0xc0a8, 'TLS_PSK_WITH_AES_128_CCM_8', 'psk', 'aes-128-ccm', 8), // RFC 6655
  suite(0xd003, 'TLS_ECDHE_PSK_WITH_AES_128_CCM_8_SHA256', 'ecdhe-psk', 'aes-128-ccm', 8), // RFC 8442
  suite(0xd005, 'TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256', 'ecdhe-psk', 'aes-128-ccm', 16), // RFC 8442
  suite(0xc0a4, 'TLS_PSK_WITH_AES_128_CCM', 'psk', 'aes-128-ccm', 16), // RFC 6655
  suite(0x00a8, 'TLS_PSK_WITH_AES_128_GCM_SHA256', 'psk', 'aes-128-gcm', 16), // RFC 5487
  suite(0xc037, 'TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256', 'ecdhe-psk', 'aes-128-cbc', 32), // RFC 5489
  suite(0x00ae, 'TLS_PSK_WITH_AES_128_CBC_SHA256', 'psk', 'aes-128-cbc', 32), // RFC 5487
];

/** The suite with this number. */
export const suiteOf = (id: number): Suite | undefined => suites.find((each) => each.id === id);

/** Whether the suite takes an AEAD. The others take CBC and a MAC. */
export const isAead = ({ cipher }: Suite): boolean => cipher !== 'aes-128-cbc';

/** Bytes of an encryption key. */
export const keyBytes = 16;

/** Bytes of what each direction has besides its key: the fixed part of the nonce (RFC 5288, RFC 6655), or the MAC key. */
export const saltBytes = (of: Suite): number => (isAead(of) ? 4 : 32);
