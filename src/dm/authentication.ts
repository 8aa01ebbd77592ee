import type { Entropy } from '../base/entropy.ts';
import { md5Credential, sameBytes } from '../syncml/digest.ts';
import type { Chal, Cred, Status, SyncHdr } from '../syncml/message.ts';
import { DmStatus } from './status.ts';

/** How one side proves itself to the other: a name, a secret, and the nonce that the other side gave. */
export interface Credential {
  readonly name: string;
  readonly secret: string;
  readonly nonce: Uint8Array;
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

const method = 'syncml:auth-md5';
const nonceBytes = 16;
/** Wrong proofs in one session, of either side, before it ends: the second comes with the nonce of the first answer. */
const attempts = 2;

/**
 * Authentication of both sides of one session by syncml:auth-md5 (OMA DM security 1.2.1, section 5.3). A nonce is good
 * for one session. A challenge's nonce lives in the session only, and the stored one changes when a proof was right: so
 * nobody without the secret can bring the two sides out of step.
 */
export class SessionAuthentication {
  readonly #account: Account;
  readonly #save: SaveNonces;
  readonly #entropy: Entropy;
  #ownNonce: Uint8Array;
  #peerNonce: Uint8Array;
  #peerProved = false;
  #ownAccepted = false;
  #peerFailures = 0;
  #ownFailures = 0;

  constructor(account: Account, save: SaveNonces, entropy: Entropy) {
    this.#account = account;
    this.#save = save;
    this.#entropy = entropy;
    this.#ownNonce = account.own.nonce;
    this.#peerNonce = account.peer.nonce;
  }

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

  /** For the next header; none once the other side has accepted one for the session. */
  credential(): { cred?: Cred } {
    if (this.#ownAccepted) return {};
    const { name, secret } = this.#account.own;
    return {
      cred: { meta: { format: 'b64', type: method }, data: md5Credential(name, secret, this.#ownNonce) },
    };
  }

  /** Judges the header of the other side's message: 212, 401 or 407, with a challenge where one is due. */
  judge(header: SyncHdr): { status: number; chal?: Chal } {
    if (this.#peerProved) return { status: DmStatus.Authenticated };
    if (this.#isRight(header)) {
      this.#peerProved = true;
      this.#peerNonce = this.#entropy.bytes(nonceBytes);
      this.#save({ peer: this.#peerNonce });
      return { status: DmStatus.Authenticated, chal: this.#challenge() };
    }
    this.#peerFailures++;
    this.#peerNonce = this.#entropy.bytes(nonceBytes);
    return {
      status: header.cred ? DmStatus.InvalidCredentials : DmStatus.MissingCredentials,
      chal: this.#challenge(),
    };
  }

  /** The verdict that `judge` gave goes out: the other side learns its next nonce. */
  tell(): void {
    if (this.#peerProved) this.#save({ told: this.#peerNonce });
  }

  /** The other side's verdict on this side's header: true when it may go on. */
  heed({ data, chal }: Pick<Status, 'data' | 'chal'>): boolean {
    const nonce = chal?.meta.nextNonce;
    if (data === DmStatus.Authenticated) {
      if (nonce && !this.#ownAccepted) {
        this.#ownNonce = nonce;
        this.#save({ own: nonce });
      }
      this.#ownAccepted = true;
      return true;
    }
    if (data === DmStatus.Ok) {
      if (nonce) this.#ownNonce = nonce;
      return true;
    }
    this.#ownFailures++;
    if (chal && chal.meta.type !== method) this.#ownFailures = attempts;
    if (nonce) this.#ownNonce = nonce;
    return false;
  }

  #isRight({ cred, source }: SyncHdr): boolean {
    const { name, secret } = this.#account.peer;
    if (!cred || (cred.meta?.type !== undefined && cred.meta.type !== method)) return false;
    if (source.locName !== undefined && source.locName !== name) return false;
    return sameBytes(cred.data, md5Credential(name, secret, this.#peerNonce));
  }

  #challenge(): Chal {
    return { meta: { format: 'b64', type: method, nextNonce: this.#peerNonce } };
  }
}
