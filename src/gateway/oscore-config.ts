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
                  v.pipe(text, v.maxBytes(128, 'at most 128 bytes')),
                  'Name of the device; of an LwM2M client its endpoint name',
                ),
                ...contextKeys,
                'bootstrap-only': described(
                  v.optional(v.boolean(), false),
                  'The device has this context from the factory. It is good for the bootstrap alone, which gives the device another one',
                ),
              }),
            ),
            v.check(
              (devices) => new Set(devices.map(({ identity }) => identity)).size === devices.length,
              'each identity once',
            ),
          ),
          [],
        ),
        'Devices and their security contexts, one each',
      ),
    }),
  ),
  'OSCORE (RFC 8613) on the sockets of `coap`. Off without this table',
);
