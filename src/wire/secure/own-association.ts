import type { Remote } from '../coap/message.ts';
import type { Association } from './dtls/association.ts';
import type { DtlsEndpoint } from './dtls/endpoint.ts';
import type { Session } from './dtls/sessions.ts';

/** Who the server of an own association is, and what opens the association. */
export interface SecureServer {
  readonly address: string;
  readonly port: number;
  /** Identity and pre-shared key of this end. */
  readonly identity: string;
  readonly key: Uint8Array;
  /** Whom requests through the association come from. */
  readonly owner: Pick<Remote, 'identity' | 'credential'>;
  /** Called when the server has ended the association, or it gave way to others. */
  readonly ended: (reason: string) => void;
}

export interface OwnAssociationParts {
  readonly dtls: DtlsEndpoint;
  /** Makes an association known to CoAP. */
  readonly opened: (association: Association, owner: SecureServer['owner']) => void;
  /** Forgets an association that this end has closed. */
  readonly forget: (association: Association, reason: string) => void;
}

/** The association that this end opens as a client: that of a gateway with its parent. */
export class OwnAssociation {
  readonly #parts: OwnAssociationParts;
  /** A handshake makes it anew after a restart, so it is not stored. */
  #current: { readonly server: SecureServer; readonly association: Association } | undefined;
  /** Makes the next handshake with the same key short. */
  #session: Session | undefined;

  constructor(parts: OwnAssociationParts) {
    this.#parts = parts;
  }

  /**
   * Opens an association with a server, in the place of the one that was opened before. The peer may be asked by its address, and
   * may ask, as long as the association lives. There is one server at a time.
   * @param local own address, which must have been opened
   * @throws {PosternError} as `Connector.connect`; `forbidden` also when the server answers and does not take the key
   */
  async connect(server: SecureServer, local: string): Promise<void> {
    const { address, port, identity, key, owner } = server;
    const { dtls, opened } = this.#parts;
    this.disconnect();
    const session = this.#session?.identity === identity ? this.#session : undefined;
    // A session that does not lead to an association is not tried twice.
    this.#session = undefined;
    const made = await dtls.connect({ address, port, local }, { identity, key, session });
    const { association } = made;
    this.#session = made.session;
    this.#current = { server, association };
    opened(association, owner);
  }

  /** The identity with which this end has an association with a server at this address and port. */
  connectedAs(address: string, port: number): string | undefined {
    const association = this.#current?.association;
    return association && this.#parts.dtls.at(address, port) === association
      ? association.identity
      : undefined;
  }

  /** The own association leaves by another own address from now on. The server follows its connection ID. */
  leaveBy(local: string): void {
    const association = this.#current?.association;
    if (association) association.place = { ...association.place, local };
  }

  /** Ends the own association, and tells the server so. */
  disconnect(): void {
    const association = this.#current?.association;
    this.#current = undefined;
    if (!association) return;
    this.#parts.dtls.close(association);
    this.#parts.forget(association, 'this end closed it');
  }

  /** Notes that an association has ended. Returns what to call with the reason; undefined if it is another one. */
  end(association: Association): SecureServer['ended'] | undefined {
    if (this.#current?.association !== association) return undefined;
    const { ended } = this.#current.server;
    this.#current = undefined;
    return ended;
  }
}
