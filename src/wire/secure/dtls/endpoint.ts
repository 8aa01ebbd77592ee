import type { Place } from './association.ts';
import type { ServedCertificates } from './client-handshake.ts';
import { Connector } from './connector.ts';
import type { DtlsParts } from './endpoint-parts.ts';
import type { Established } from './handshake.ts';
import { DtlsServer } from './server.ts';
import type { Session } from './sessions.ts';
import { suites as allSuites } from './suites.ts';

/** What a client proves itself with. */
export interface ClientCredentials {
  readonly identity: string;
  /** The pre-shared key. Absent with certificates. */
  readonly key?: Uint8Array;
  readonly certificates?: ServedCertificates;
  /** A session of an earlier handshake with the same server and identity. */
  readonly session?: Session | undefined;
  /** Whether the server is to use a connection ID in its records; true by default. */
  readonly wantsCid?: boolean;
}

/** A DTLS 1.2 endpoint that also begins handshakes. It is apart from the server, so that one who begins none does without its code. */
export class DtlsEndpoint extends DtlsServer {
  readonly #connector: Connector;

  constructor(parts: DtlsParts) {
    super(parts);
    this.#connector = new Connector(this.surroundings, this.limits.outgoing);
    this.initiator = this.#connector;
  }

  /**
   * Begins an association as client. Resolves when the server has proved that it has the same key.
   * @throws {PosternError} as `Connector.connect`
   */
  async connect(place: Place, credentials: ClientCredentials): Promise<Established> {
    const { suites: all = allSuites } = this.parts;
    const isCertified = credentials.certificates !== undefined;
    const suites = all.filter(({ exchange }) => (exchange === 'ecdhe-ecdsa') === isCertified);
    const { wantsCid = true, ...proof } = credentials;
    const cid = wantsCid ? this.newCid() : undefined;
    return await this.#connector.connect(
      place,
      { ...proof, suites, cid },
      // At once, since the server's first data may be in the same datagram.
      (established) => this.adopt(established),
    );
  }
}
