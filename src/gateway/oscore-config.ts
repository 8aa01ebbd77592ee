import * as v from 'valibot';
import { described, text } from '../base/config.ts';
import { contextKeys } from '../wire/secure/oscore/config.ts';

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
                ...contextKeys,
              }),
            ),
            v.check(
              (devices) => new Set(devices.map(({ identity }) => identity)).size === devices.length,
              'each identity once',
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
