import type { Clock } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import type { HalfOpenLimits } from './acceptor.ts';
import type { Association, Place } from './association.ts';
import type { AssociationLimits } from './association-table.ts';
import type { Certificates } from './certificates.ts';
import type { Handshake } from './handshake.ts';
import type { Suite } from './suites.ts';

/** Bounds of one endpoint. */
export interface DtlsLimits extends AssociationLimits {
  /** Sessions that clients may resume. */
  readonly sessions: number;
  readonly halfOpen: HalfOpenLimits;
  /** Handshakes that this end has begun. */
  readonly outgoing: number;
  /** Associations whose last flight may be sent again. */
  readonly lingering: number;
}

export const dtlsDefaults: DtlsLimits = {
  associations: 10_000,
  perIdentity: 4,
  sessions: 10_000,
  halfOpen: { entries: 1024, perAddress: 64, perPrefix: 512 },
  outgoing: 256,
  lingering: 1024,
};

/** What an endpoint needs from its surroundings. */
export interface DtlsParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, place: Place) => void;
  /** Gets the content of each record of application data. */
  readonly received: (association: Association, content: Buffer) => void;
  /** Called when a handshake that a client began has succeeded. */
  readonly opened?: (association: Association) => void;
  /** Called when an association has ended, unless it was closed from here. */
  readonly closed?: (association: Association, reason: string) => void;
  /** Called before the sequence numbers of an association run out that are reserved, for each record until there are more. */
  readonly runningOut?: (association: Association) => void;
  /**
   * Called for the newest record of a peer that came from elsewhere than those before. `confirm` is to follow when the peer is
   * known to receive there.
   */
  readonly moved?: (association: Association) => void;
  /** Called when a handshake that a client began has ended without success. */
  readonly refused?: (place: Place, reason: string, claimed: string) => void;
  /** Absent, the endpoint is a client only. */
  readonly server?: {
    /** The key of an identity; undefined when it is unknown. */
    readonly keyOf: (identity: string) => Uint8Array | undefined;
    /** What certificates and raw public keys need, as it is now. Absent or undefined, they are not served. */
    readonly certificates?: () => Certificates | undefined;
    /** Whether a client at this address, which receives there, may begin a handshake. All may if absent. */
    readonly admits?: (address: string, tokens?: number) => boolean;
  };
  /** Suites that are accepted and offered, the preferred one first; all by default. */
  readonly suites?: readonly Suite[];
  readonly limits?: Partial<DtlsLimits>;
  /** Gets master secrets in the format of NSS, for analysers of captures. */
  readonly keyLog?: (line: string) => void;
}

/** Handshakes that this end has begun. A server begins none. */
export interface Initiator {
  readonly size: number;
  /** The handshake that runs with a remote. */
  at(remote: string): Handshake | undefined;
  stop(): void;
}
