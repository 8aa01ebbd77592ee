import * as v from 'valibot';
import { described, secret, text } from '../base/config.ts';
import { mostIdBytes } from '../wire/secure/oscore/keys.ts';

/** Whether the digits of a key are pairs, at least 8 of them. */
export const isHex = (digits: string): boolean => /^([0-9a-fA-F]{2}){8,}$/.test(digits);

/** At most `most` octets in hexadecimal digits. */
const hexOctets = (most: number) =>
  v.pipe(
    v.string(),
    v.regex(/^([0-9a-fA-F]{2})*$/, 'pairs of hexadecimal digits'),
    v.maxLength(2 * most, `at most ${most} bytes in hexadecimal digits`),
  );

/** The table `oscore` of a gateway's configuration. */
export const oscoreSection = described(
  v.optional(
    v.strictObject({
      device: described(
        v.optional(
          v.pipe(
            v.array(
              v.strictObject({
                identity: described(
                  v.pipe(text, v.maxBytes(128, 'an identity of at most 128 bytes')),
                  'Who the device is to the gateway. For an LwM2M client its endpoint name',
                ),
                'master-secret': described(
                  secret,
                  'The Master Secret: text, or bytes in hexadecimal digits behind `hex:`. Random, of 16 bytes or more',
                ),
                'master-salt': described(
                  v.optional(hexOctets(64), ''),
                  'The Master Salt in hexadecimal digits, if there is one',
                ),
                'id-context': described(
                  v.optional(hexOctets(64)),
                  'The ID Context in hexadecimal digits, if there is one',
                ),
                'sender-id': described(
                  hexOctets(mostIdBytes),
                  'Sender ID of the gateway in hexadecimal digits, at most 7 bytes. It may be empty',
                ),
                'recipient-id': described(
                  hexOctets(mostIdBytes),
                  'Recipient ID of the gateway, which is the Sender ID of the device',
                ),
              }),
            ),
            v.check(
              (devices) => new Set(devices.map(({ identity }) => identity)).size === devices.length,
              'each identity once',
            ),
            v.check(
              (devices) =>
                devices.every(({ 'master-secret': key }) => !key.startsWith('hex:') || isHex(key.slice(4))),
              'pairs of hexadecimal digits behind hex: in master-secret, at least 8 of them',
            ),
          ),
          [],
        ),
        'Devices and their security contexts. Each context is of one device',
      ),
    }),
  ),
  'OSCORE (RFC 8613) on the sockets of `coap`, with AES-CCM-16-64-128 and HKDF SHA-256. Off without this table',
);
