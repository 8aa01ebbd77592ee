import * as v from 'valibot';
import { described, secret } from '../../../base/config.ts';
import { mostIdBytes, type OscoreParameters } from './keys.ts';

/** A key as octets. It is text, or hexadecimal digits behind `hex:`. */
export const keyOctets = (key: string): Buffer =>
  key.startsWith('hex:') ? Buffer.from(key.slice(4), 'hex') : Buffer.from(key);

/** Whether a key is text, or pairs of hexadecimal digits behind `hex:`, at least 8 of them. */
export const isKey = (key: string): boolean =>
  !key.startsWith('hex:') || /^([0-9a-fA-F]{2}){8,}$/.test(key.slice(4));

/** What protects a device, as a key of a configuration. */
export const deviceSecurity = v.optional(v.picklist(['dtls', 'oscore'], '"dtls" or "oscore"'), 'dtls');

/** At most `most` octets in hexadecimal digits. */
const hexOctets = (most: number) =>
  v.pipe(
    v.string(),
    v.regex(RegExp(`^([0-9a-fA-F]{2}){0,${most}}$`), `at most ${most} pairs of hexadecimal digits`),
  );

/** The keys of a configuration that give a security context. */
export const contextKeys = {
  'master-secret': described(
    v.pipe(secret, v.check(isKey, '8 or more pairs of hexadecimal digits behind hex:')),
    'Master Secret: text, or hexadecimal digits behind `hex:`. Random, of 16 bytes or more',
  ),
  'master-salt': described(v.optional(hexOctets(64), ''), 'Master Salt in hexadecimal digits'),
  'id-context': described(v.optional(hexOctets(64)), 'ID Context in hexadecimal digits'),
  'sender-id': described(hexOctets(mostIdBytes), 'Own Sender ID in hexadecimal digits, of 0 to 7 bytes'),
  'recipient-id': described(hexOctets(mostIdBytes), 'Sender ID of the other side'),
};

const contextTable = v.object(contextKeys);

/** The security context that a table of a configuration gives. */
export const parametersOf = (table: v.InferOutput<typeof contextTable>): OscoreParameters => ({
  masterSecret: keyOctets(table['master-secret']),
  masterSalt: Buffer.from(table['master-salt'], 'hex'),
  idContext: table['id-context'] === undefined ? undefined : Buffer.from(table['id-context'], 'hex'),
  senderId: Buffer.from(table['sender-id'], 'hex'),
  recipientId: Buffer.from(table['recipient-id'], 'hex'),
});
