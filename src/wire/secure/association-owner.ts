import type { Remote } from '../coap/message.ts';
import type { Association } from './dtls/association.ts';

/** Whose key has opened an association, and of what kind it is. */
export type Owner = Pick<Remote, 'identity' | 'credential' | 'party'>;

/** What CoAP knows of the peer of an association. */
export const remoteOf = (association: Association | undefined): Remote | undefined =>
  association?.owner as Remote | undefined;

/** The device in an event about an association, where its name is not the identity. */
export function deviceOf(association: Association): { readonly device?: string } {
  const device = remoteOf(association)?.identity;
  return device === undefined || device === association.identity ? {} : { device };
}
