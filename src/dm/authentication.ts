import type { Entropy } from '../base/entropy.ts';
import { basicCredential, md5Credential, messageMac, sameBytes } from '../wire/syncml/digest.ts';
import type { Chal, Cred, Status, SyncHdr } from '../wire/syncml/message.ts';
import { formatHmac, parseHmac } from './hmac-header.ts';
import { DmStatus } from './status.ts';

/** Ways to prove oneself (OMA DM security 1.2.1, section 5.3): secret in clear, digest with a nonce, MAC over each message. */
export const schemes = ['basic', 'md5', 'mac'] as const;
export type Scheme = (typeof schemes)[number];

const typeOf: Readonly<Record<Scheme, string>> = {
  basic: 'syncml:auth-basic',
  md5: 'syncml:auth-md5',
  mac: 'syncml:auth-MAC',
};
const schemeOf = (type: string | undefined): Scheme | undefined =>
  schemes.find((scheme) => typeOf[scheme].toLowerCase() === (type ?? typeOf.md5).toLowerCase());

/** How one side proves itself to the other: a name, a secret, and the nonce that the other side gave. */
export interface Credential {
  readonly name: string;
  readonly secret: string;
  readonly nonce: Uint8Array;
  /**
   * Schemes that may be used, the preferred one first; `md5` when absent. Of this side, the other may ask for any of
   * them; of the other side, the first is what it is challenged with.
   */
  readonly schemes?: readonly Scheme[];
}

/** What two parties share: how this side proves itself, and how the other does. */
export interface Account {
  readonly own: Credential;
  readonly peer: Credential;
}

/**
 * Keeps the nonces for the next session. `own` is for this side's proof, `peer` is what the other side must use, and
 * `told` is the `peer` that it was told: a client that has nothing to answer cannot tell.
 */
export type SaveNonces = (nonces: {
  readonly own?: Uint8Array;
  readonly peer?: Uint8Array;
  readonly told?: Uint8Array;
}) => void;

/** A message as it came over the wire, with its `x-syncml-hmac`, for who proves itself by MAC. */
export interface Seal {
  readonly body: Uint8Array;
  readonly hmac?: string | undefined;
}

const nonceBytes = 16;
/** Wrong proofs in one session, of either side, before it ends: the second comes with the nonce of the first answer. */
const attempts = 2;

/**
 * Authentication of both sides of one session. A nonce is good for one session, by MAC for one message. A challenge's
 * nonce lives in the session only, and the stored one changes when a proof was right: so nobody without the secret can
 * bring the two sides out of step.
 */
export class SessionAuthentication {
  readonly #account: Account;
  readonly #save: SaveNonces;
  readonly #entropy: Entropy;
  readonly #ownSchemes: readonly Scheme[];
  readonly #peerSchemes: readonly Scheme[];
  #ownScheme: Scheme;
  #ownNonce: Uint8Array;
  #peerNonce: Uint8Array;
  #peerProved = false;
  /** The other side proves each message, so one without a proof is refused. */
  #sealedOnly = false;
  #ownAccepted = false;
  #peerFailures = 0;
  #ownFailures = 0;

  constructor(account: Account, save: SaveNonces, entropy: Entropy) {
    const { own, peer } = account;
    this.#account = account;
    this.#save = save;
    this.#entropy = entropy;
    this.#ownSchemes = own.schemes ?? ['md5'];
    this.#peerSchemes = peer.schemes ?? ['md5'];
    this.#ownScheme = this.#ownSchemes[0] ?? 'md5';
    this.#ownNonce = own.nonce;
    this.#peerNonce = peer.nonce;
  }

  /** The other side has proved itself, in this session or, by MAC, in its last message. */
  get peerProved(): boolean {
    return this.#peerProved;
  }

  get ownName(): string {
    return this.#account.own.name;
  }

  /** No further attempt is allowed, to one side or the other. */
  get exhausted(): boolean {
    return this.#peerFailures >= attempts || this.#ownFailures >= attempts;
  }

  /** Of them, by the other side. */
  get peerExhausted(): boolean {
    return this.#peerFailures >= attempts;
  }

  /** For the next header; none once the other side has accepted one for the session, nor by MAC. */
  credential(): { cred?: Cred } {
    if (this.#ownAccepted || this.#ownScheme === 'mac') return {};
    const { name, secret } = this.#account.own;
    const data =
      this.#ownScheme === 'basic'
        ? basicCredential(name, secret)
        : md5Credential(name, secret, this.#ownNonce);
    return { cred: { meta: { format: 'b64', type: typeOf[this.#ownScheme] }, data } };
  }

  /** `x-syncml-hmac` of the message that goes out next, where this side proves itself by MAC. */
  seal(body: Uint8Array): string | undefined {
    if (this.#ownScheme !== 'mac') return undefined;
    const { name, secret } = this.#account.own;
    return formatHmac({ name, mac: messageMac(name, secret, this.#ownNonce, body) });
  }

  /** Judges the header of the other side's message: 200, 212, 401 or 407, with a challenge where one is due. */
  judge(header: SyncHdr, seal: Seal | undefined): { status: number; chal?: Chal } {
    const scheme = this.#provedBy(header, seal);
    if (this.#peerProved && scheme !== 'mac' && !this.#sealedOnly) return { status: DmStatus.Authenticated };
    if (scheme !== undefined) {
      this.#peerProved = true;
      if (scheme === 'basic') return { status: DmStatus.Authenticated };
      this.#peerNonce = this.#entropy.bytes(nonceBytes);
      this.#save({ peer: this.#peerNonce });
      // By MAC each message is proved for itself (section 5.4): 200, and a nonce for the next one.
      if (scheme === 'mac') this.#sealedOnly = true;
      return {
        status: scheme === 'mac' ? DmStatus.Ok : DmStatus.Authenticated,
        chal: this.#challenge(scheme),
      };
    }
    this.#peerProved = false;
    this.#peerFailures++;
    this.#peerNonce = this.#entropy.bytes(nonceBytes);
    const tried = header.cred !== undefined || seal?.hmac !== undefined;
    return {
      status: tried ? DmStatus.InvalidCredentials : DmStatus.MissingCredentials,
      chal: this.#challenge(this.#peerSchemes[0] ?? 'md5'),
    };
  }

  /** The verdict that `judge` gave goes out: the other side learns its next nonce. */
  tell(): void {
    if (this.#peerProved) this.#save({ told: this.#peerNonce });
  }

  /** The other side's verdict on this side's header: true when it may go on. */
  heed({ data, chal }: Pick<Status, 'data' | 'chal'>): boolean {
    const nonce = chal?.meta.nextNonce;
    if (data === DmStatus.Authenticated || data === DmStatus.Ok) {
      const keeps = this.#ownScheme === 'mac' || (data === DmStatus.Authenticated && !this.#ownAccepted);
      if (nonce) this.#ownNonce = nonce;
      if (nonce && keeps) this.#save({ own: nonce });
      if (data === DmStatus.Authenticated && this.#ownScheme !== 'mac') this.#ownAccepted = true;
      return true;
    }
    this.#ownFailures++;
    this.#ownAccepted = false;
    if (chal) {
      const asked = schemeOf(chal.meta.type);
      if (asked && this.#ownSchemes.includes(asked)) this.#ownScheme = asked;
      else this.#ownFailures = attempts;
    }
    if (nonce) this.#ownNonce = nonce;
    return false;
  }

  /** The scheme by which this header, or the message's seal, is right. */
  #provedBy({ cred, source }: SyncHdr, seal: Seal | undefined): Scheme | undefined {
    const { name, secret } = this.#account.peer;
    if (this.#peerSchemes.includes('mac') && seal?.hmac !== undefined) {
      const proof = parseHmac(seal.hmac);
      const right =
        proof?.name === name && sameBytes(proof.mac, messageMac(name, secret, this.#peerNonce, seal.body));
      if (right) return 'mac';
    }
    const scheme = cred && schemeOf(cred.meta?.type);
    if (!cred || !scheme || scheme === 'mac' || !this.#peerSchemes.includes(scheme)) return undefined;
    if (scheme === 'basic') return sameBytes(cred.data, basicCredential(name, secret)) ? scheme : undefined;
    if (source.locName !== undefined && source.locName !== name) return undefined;
    return sameBytes(cred.data, md5Credential(name, secret, this.#peerNonce)) ? scheme : undefined;
  }

  #challenge(scheme: Scheme): Chal {
    const type = typeOf[scheme];
    return scheme === 'basic'
      ? { meta: { format: 'b64', type } }
      : { meta: { format: 'b64', type, nextNonce: this.#peerNonce } };
  }
}
