import { createHmac } from 'node:crypto';
import type { AssociationState } from './dtls/association.ts';
import { keyOf } from './dtls/association-table.ts';

/** Sequence numbers that an association may use after what is stored of it, in one run of the process. */
export const reservedBlock = 1024;

/** An association as it comes out of the store. */
export interface StoredAssociation {
  readonly state: AssociationState;
  /** `credentialMark` of the pre-shared key with which it was opened; empty with a certificate or a raw public key. */
  readonly credential: string;
  /** Nothing was received after it was stored. */
  readonly isClean: boolean;
}

/** What tells apart the stored associations. */
export type AssociationName = Pick<AssociationState, 'identity' | 'ownCid' | 'place'>;

/**
 * Tells apart the associations of one identity: by the connection ID, or where there is none, by address and port, which do not
 * change then.
 */
export const nameOf = ({ ownCid, place }: Omit<AssociationName, 'identity'>): string =>
  ownCid === undefined ? keyOf(place) : `${ownCid}`;

/** Where associations outlive the process. */
export interface AssociationStore {
  /** What was stored. To be called once in a run: it counts the blocks of sequence numbers that earlier runs may have used. */
  load(): readonly StoredAssociation[];
  /** Stores associations, or what is new of them. Their `keys` are copies, which may be overwritten. */
  save(associations: readonly StoredAssociation[]): void;
  remove(association: AssociationName): void;
  /** Resolves when what was saved survives a power cut. */
  settled(): Promise<void>;
}

/** Tells keys apart without giving them away. */
export const credentialMark = (key: Uint8Array): string =>
  createHmac('sha256', key).update('postern association').digest('base64url').slice(0, 16);
