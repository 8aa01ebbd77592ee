import type { Entropy } from '../base/entropy.ts';
import { ownBytes } from '../base/own-bytes.ts';
import { basicCredential, md5Credential, messageMac, sameBytes } from '../wire/syncml/digest.ts';
import type { Chal, Cred, Status, SyncHdr } from '../wire/syncml/message.ts';
import type { Challenge } from './challenges.ts';
import { formatHmac, parseHmac } from './hmac-header.ts';
import { DmStatus } from './status.ts';

/**
 * Authentication schemes (OMA DM security 1.2.1, section 5.3). `basic` sends the secret itself, `md5` a digest of
 * secret and nonce, `mac` a MAC over each message.
 */
export const schemes = ['basic', 'md5', 'mac'] as const;
export type Scheme = (typeof schemes)[number];

const typeOf: Readonly<Record<Scheme, string>> = {
  basic: 'syncml:auth-basic',
  md5: 'syncml:auth-md5',
  mac: 'syncml:auth-MAC',
};
const schemeOf = (type: string | undefined): Scheme | undefined =>
  schemes.find((scheme) => typeOf[scheme].toLowerCase() === (type ?? typeOf.md5).toLowerCase());

/** How one side proves itself to the other: by a name, a secret, and a nonce that the other side gave. */
export interface Credential {
  readonly name: string;
  readonly secret: string;
  readonly nonce: Uint8Array;
  /**
   * Schemes that may be used, the preferred one first; only `md5` when absent. The other side may ask this side for any
   * of its schemes. A challenge to the other side names the first of its schemes.
   */
  readonly schemes?: readonly Scheme[];
}

/** What two parties share: the credential of this side, and the credential of the other side (the peer). */
export interface Account {
  readonly own: Credential;
  readonly peer: Credential;
}

/**
 * Stores nonces for the next session. `own` is the nonce for this side's proof. `peer` is the nonce that the other side
 * must use. `told` is the last `peer` nonce that was sent to the other side: it can be older than `peer`, because a
 * client that has no further message to send cannot announce a new nonce.
 */
export type SaveNonces = (nonces: {
  readonly own?: Uint8Array;
  readonly peer?: Uint8Array;
  readonly told?: Uint8Array;
}) => void;

/** A received message as it came: its octets and its header `x-syncml-hmac`, which a MAC is checked against. */
export interface Seal {
  readonly body: Uint8Array;
  /** Coding of the octets. The answer has the same. */
  readonly mediaType?: string;
  readonly hmac?: string | undefined;
}

/** Least bytes of a nonce that nobody guesses. A shorter one is that of an account made by hand, before its first session. */
const unguessable = 8;

/**
 * Whether a message is a guess when its proof is wrong. The first message of a session may have a nonce that is not good any
 * more, so it is answered by a challenge before failures are counted. A wrong password needs no challenge.
 * @param stored nonce that the proof should have
 */
export const isGuess = ({ cred, msgId }: SyncHdr, seal: Seal, stored: Uint8Array): boolean =>
  (cred !== undefined || seal.hmac !== undefined) &&
  (msgId > 1 || stored.length < unguessable || (cred !== undefined && schemeOf(cred.meta?.type) === 'basic'));

/**
 * The credential of a party that is locked out: only a proof by a nonce that no other party knows is good. So nobody can
 * guess, and nobody can lock out a party that has kept its nonce.
 */
export const locked = ({ schemes, ...credential }: Credential): Credential => ({
  ...credential,
  schemes:
    credential.nonce.length < unguessable ? [] : (schemes ?? ['md5']).filter((each) => each !== 'basic'),
});

const nonceBytes = 16;
/**
 * Failed proofs of one side after which the session ends. There is a second attempt because the answer to the first one
 * brings a new nonce.
 */
const attempts = 2;

export interface AuthenticationParts {
  readonly account: Account;
  readonly saveNonces: SaveNonces;
  readonly entropy: Entropy;
  readonly challenge?: Challenge;
  readonly asksEach?: boolean;
  readonly isPeerVerified?: boolean;
}

/**
 * Authentication of both sides in one session. A nonce is valid for one session, with MAC for one message. The nonce of
 * a challenge is kept in the session only. The stored nonce changes only after a correct proof, so a party without the
 * secret cannot make the nonces of the two sides differ.
 */
export class SessionAuthentication {
  readonly #account: Account;
  readonly #save: SaveNonces;
  readonly #entropy: Entropy;
  readonly #ownSchemes: readonly Scheme[];
  readonly #peerSchemes: readonly Scheme[];
  #ownScheme: Scheme;
  #ownNonce: Uint8Array;
  /** Nonces that a proof of the other side may have. */
  #peerNonces: readonly Uint8Array[];
  readonly #challenge: Challenge | undefined;
  readonly #asksEach: boolean;
  readonly #isPeerVerified: boolean;
  #peerProved = false;
  /** The other side uses MAC, so a message without a MAC is refused. */
  #sealedOnly = false;
  #ownAccepted = false;
  #peerFailures = 0;
  #ownFailures = 0;
  /** Nonce for the next session from a side that had not proved itself. It is stored when that side does. */
  #unprovenNonce: Uint8Array | undefined;

  /**
   * The parts are those of `SessionParts`: nonces for a side that has not proved itself are random, of this session alone, where
   * there is no `challenge`.
   */
  constructor({
    account,
    saveNonces: save,
    entropy,
    challenge,
    asksEach = false,
    isPeerVerified = false,
  }: AuthenticationParts) {
    this.#asksEach = asksEach;
    this.#isPeerVerified = isPeerVerified;
    const { own, peer } = account;
    this.#account = account;
    this.#save = save;
    this.#entropy = entropy;
    this.#ownSchemes = own.schemes ?? ['md5'];
    this.#peerSchemes = peer.schemes ?? ['md5'];
    this.#ownScheme = this.#ownSchemes[0] ?? 'md5';
    this.#ownNonce = own.nonce;
    this.#challenge = challenge;
    this.#peerNonces = [peer.nonce, ...(challenge?.good ?? [])];
  }

  /** Whether the other side has proved itself: in this session, or with MAC in its last message. */
  get peerProved(): boolean {
    return this.#peerProved;
  }

  /** Name by which this side proves itself. */
  get ownName(): string {
    return this.#account.own.name;
  }

  /** Whether one of the two sides has no attempt left. */
  get exhausted(): boolean {
    return this.#peerFailures >= attempts || this.#ownFailures >= attempts;
  }

  /** Whether the other side has no attempt left. */
  get peerExhausted(): boolean {
    return this.#peerFailures >= attempts;
  }

  /**
   * The element Cred for the next header. Empty when the other side has accepted this side for the session, and always
   * empty with MAC.
   */
  credential(): { cred?: Cred } {
    if (this.#ownAccepted || this.#ownScheme === 'mac' || this.withholdsPassword) return {};
    const { name, secret } = this.#account.own;
    const data =
      this.#ownScheme === 'basic'
        ? basicCredential(name, secret)
        : md5Credential(name, secret, this.#ownNonce);
    return { cred: { meta: { format: 'b64', type: typeOf[this.#ownScheme] }, data } };
  }

  /**
   * Whether this side would have to send its password itself (`basic`), and does not know yet to whom. Anyone may ask for it: it
   * is sent only to a side that has proved itself, or that the transport has verified.
   */
  get withholdsPassword(): boolean {
    return this.#ownScheme === 'basic' && !this.#peerProved && !this.#isPeerVerified;
  }

  /** Value of `x-syncml-hmac` for an encoded message. Undefined unless this side uses MAC. */
  seal(body: Uint8Array): string | undefined {
    if (this.#ownScheme !== 'mac') return undefined;
    const { name, secret } = this.#account.own;
    return formatHmac({ name, mac: messageMac(name, secret, this.#ownNonce, body) });
  }

  /** Whether a message has a correct proof of the other side. Changes nothing. */
  recognises(header: SyncHdr, seal: Seal | undefined): boolean {
    return this.#provedBy(header, seal) !== undefined;
  }

  /** Whether the other side, after its proof, may send messages without one. It may not with MAC. Changes nothing. */
  get needsNoProof(): boolean {
    return this.#peerProved && !this.#sealedOnly;
  }

  /**
   * Checks the other side's proof in a message. Returns the status for its header (200, 212, 401 or 407) and the
   * challenge that goes with it, if any.
   */
  judge(header: SyncHdr, seal: Seal | undefined): { status: number; chal?: Chal } {
    const scheme = this.#provedBy(header, seal);
    const isAsked = scheme === 'mac' || (this.#asksEach && scheme !== undefined);
    if (!isAsked && this.needsNoProof) return { status: DmStatus.Authenticated };
    if (scheme !== undefined) {
      this.#peerProved = true;
      const own = this.#unprovenNonce;
      this.#unprovenNonce = undefined;
      if (scheme === 'basic') {
        if (own) this.#save({ own });
        return { status: isAsked ? DmStatus.Ok : DmStatus.Authenticated };
      }
      const peer = this.#entropy.bytes(nonceBytes);
      this.#peerNonces = [peer];
      this.#save({ peer, ...(own && { own }) });
      // Where each message has its own proof (section 5.4), the status is 200, with a nonce for the next message.
      if (scheme === 'mac') this.#sealedOnly = true;
      return { status: isAsked ? DmStatus.Ok : DmStatus.Authenticated, chal: this.#chal(scheme) };
    }
    this.#peerProved = false;
    this.#peerFailures++;
    this.#peerNonces = [this.#challenge?.nonce ?? this.#entropy.bytes(nonceBytes)];
    const tried = header.cred !== undefined || seal?.hmac !== undefined;
    return {
      status: tried ? DmStatus.InvalidCredentials : DmStatus.MissingCredentials,
      chal: this.#chal(this.#peerSchemes[0] ?? 'md5'),
    };
  }

  /** Records that the challenge of `judge` is sent, so that the other side will know its next nonce. */
  tell(): void {
    const [told] = this.#peerNonces;
    if (this.#peerProved && told) this.#save({ told });
  }

  /** Takes the other side's status for this side's header. Returns whether the other side accepted it. */
  heed({ data, chal }: Pick<Status, 'data' | 'chal'>): boolean {
    const nonce = chal?.meta.nextNonce && ownBytes(chal.meta.nextNonce);
    if (data === DmStatus.Authenticated || data === DmStatus.Ok) {
      const keeps = this.#ownScheme === 'mac' || !this.#ownAccepted;
      if (nonce) this.#ownNonce = nonce;
      if (nonce && keeps && this.needsNoProof) this.#save({ own: nonce });
      else if (nonce && keeps) this.#unprovenNonce = nonce;
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

  /** The scheme of the correct proof in the header or in the MAC. Undefined when there is no correct proof. */
  #provedBy({ cred, source }: SyncHdr, seal: Seal | undefined): Scheme | undefined {
    const { name, secret } = this.#account.peer;
    if (this.#peerSchemes.includes('mac') && seal?.hmac !== undefined) {
      const proof = parseHmac(seal.hmac);
      const isRight = (nonce: Uint8Array) =>
        proof !== undefined && sameBytes(proof.mac, messageMac(name, secret, nonce, seal.body));
      if (proof?.name === name && this.#peerNonces.some(isRight)) return 'mac';
    }
    const scheme = cred && schemeOf(cred.meta?.type);
    if (!cred || !scheme || scheme === 'mac' || !this.#peerSchemes.includes(scheme)) return undefined;
    if (scheme === 'basic') return sameBytes(cred.data, basicCredential(name, secret)) ? scheme : undefined;
    if (source.locName !== undefined && source.locName !== name) return undefined;
    return this.#peerNonces.some((nonce) => sameBytes(cred.data, md5Credential(name, secret, nonce)))
      ? scheme
      : undefined;
  }

  #chal(scheme: Scheme): Chal {
    const type = typeOf[scheme];
    return scheme === 'basic'
      ? { meta: { format: 'b64', type } }
      : { meta: { format: 'b64', type, nextNonce: this.#peerNonces[0]! } };
  }
}
