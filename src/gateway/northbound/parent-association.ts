import { PosternError } from '../../base/errors.ts';
import type { DmAccount } from '../../mo/dm-acc.ts';
import type { Remote } from '../../wire/coap/message.ts';
import type { OwnAssociation } from '../../wire/secure/own-association.ts';
import { factoryIdentity, factoryKey } from '../../wire/secure/transport-keys.ts';

/** What a request of the parent has as its `Remote.credential`. */
export const parentCredential = 'parent';

export interface ParentAssociationParts {
  readonly gatewayId: string;
  readonly parentId: string;
  readonly host: string;
  readonly port: number;
  readonly factorySecret: () => string;
  readonly transport: Pick<OwnAssociation, 'connect' | 'connectedAs' | 'leaveBy' | 'disconnect'>;
  /** Called when the parent has ended the association. */
  readonly ended: (reason: string) => void;
}

/**
 * The DTLS association of a child gateway with its parent. It is opened by the key of the child's account, or, for the bootstrap, by
 * the key that the factory secret gives: a child is a device of its parent.
 */
export class ParentAssociation {
  readonly #parts: ParentAssociationParts;

  constructor(parts: ParentAssociationParts) {
    this.#parts = parts;
  }

  /**
   * Opens the association with the key of the account, or, without an account, with the factory key. One that is open with this
   * key is used on, also from another own address.
   * @throws {PosternError} `unavailable` without a way to the parent; `timeout` when it is silent; `forbidden` when it refuses the key
   */
  async open(account: DmAccount | undefined, local: string | undefined): Promise<void> {
    const { transport, host, port, parentId: identity, ended } = this.#parts;
    if (local === undefined) throw new PosternError('unavailable', `no interface leads to ${host}`);
    const proof = this.#keyOf(account);
    if (transport.connectedAs(host, port) === proof.identity) {
      transport.leaveBy(local);
      return;
    }
    const owner: Pick<Remote, 'identity' | 'credential'> = { identity, credential: parentCredential };
    await transport.connect({ address: host, port, ...proof, owner, ended }, local);
  }

  /** Whether requests can go through the association with the key of this account. */
  isOpen(account: DmAccount | undefined): boolean {
    const { transport, host, port } = this.#parts;
    return transport.connectedAs(host, port) === this.#keyOf(account).identity;
  }

  /** Whether there is an association, whatever key opened it. */
  get isThere(): boolean {
    const { transport, host, port } = this.#parts;
    return transport.connectedAs(host, port) !== undefined;
  }

  /** Ends the association. */
  close(): void {
    this.#parts.transport.disconnect();
  }

  #keyOf(account: DmAccount | undefined): { readonly identity: string; readonly key: Uint8Array } {
    const { gatewayId, factorySecret } = this.#parts;
    const own = account?.transport;
    if (own && 'key' in own) return { identity: own.identity, key: Buffer.from(own.key) };
    return { identity: factoryIdentity(gatewayId), key: factoryKey(factorySecret(), gatewayId) };
  }
}

/** Whether an account has a key for DTLS. One from a bootstrap over plain CoAP has none. */
export const hasKey = ({ transport }: DmAccount): boolean => transport !== undefined && 'key' in transport;
