import * as v from 'valibot';
import { described, identifier, logSection, mqttSection, port, secret, text, whole } from './base/config.ts';

const deviceId = v.pipe(
  v.string(),
  v.minLength(1, 'a device ID'),
  v.maxLength(200, 'a device ID of at most 200 characters'),
);

/** The gateway's configuration file: one schema for checking, defaults and the reference page. */
export const gatewayConfigSchema = v.strictObject({
  gateway: v.strictObject({
    id: described(
      identifier,
      "The gateway's name: in its topics, and as ServerID in the accounts of its devices",
    ),
    state: described(
      v.optional(text, '/var/lib/postern/state.db'),
      'File that holds all durable state; `:memory:` forgets it at the end',
    ),
    'admin-socket': described(
      v.optional(text),
      'Unix socket of the admin API, which `postern status` reads; by default below XDG_RUNTIME_DIR or the temporary folder',
    ),
  }),
  coap: v.optional(
    v.strictObject({
      port: described(v.optional(port, 5683), 'UDP port; 0 takes a free one'),
      interfaces: described(
        v.optional(v.array(text), []),
        'Names of the network interfaces to serve, all when empty; they may come later',
      ),
      multicast: described(v.optional(v.boolean(), true), 'Whether discovery by multicast is answered'),
      leisure: described(
        v.optional(whole(0, 60_000), 5000),
        'Milliseconds over which answers to a multicast are spread (RFC 7252 section 8.2)',
      ),
      'insecure-plain-coap': described(
        v.optional(v.boolean(), false),
        'Serve devices over CoAP without DTLS or OSCORE. Anyone on the private network can read what is said, bootstrapped secrets as well',
      ),
    }),
    {},
  ),
  mqtt: mqttSection,
  'dm-server': v.strictObject({
    id: described(identifier, 'ServerID of the DM server'),
    'client-secret': described(secret, 'Secret by which this gateway proves itself to the DM server'),
    'server-secret': described(secret, 'Secret by which the DM server proves itself to this gateway'),
    encoding: described(
      v.optional(v.picklist(['xml', 'wbxml', 'cbor'], '"xml", "wbxml" or "cbor"'), 'xml'),
      "Coding of the gateway's own DM packages; any DM server knows XML",
    ),
  }),
  tunnel: v.optional(
    v.strictObject({
      servers: described(
        v.optional(v.array(identifier)),
        'ServerIDs that devices may reach through the tunnel; the DM server alone by default',
      ),
      timeout: described(
        v.optional(whole(1, 300), 60),
        'Seconds that the DM server may take to answer a package',
      ),
    }),
    {},
  ),
  bootstrap: v.optional(
    v.strictObject({
      device: described(
        v.optional(
          v.array(
            v.strictObject({
              id: described(deviceId, 'DevId of the End Device'),
              'factory-secret': described(secret, 'The secret that it left its factory with'),
              pin: described(
                v.optional(text),
                'A PIN that somebody tells the device as well: its bootstrap is protected by both then',
              ),
            }),
          ),
          [],
        ),
        'Devices that the local bootstrap server may bootstrap (GwMO 8.4.2)',
      ),
    }),
    {},
  ),
  limits: v.optional(
    v.strictObject({
      devices: described(
        v.optional(whole(1, 100_000), 1000),
        'End Devices that are held; a new one beyond is refused',
      ),
      outbox: described(
        v.optional(whole(1, 1_000_000), 10_000),
        'Alerts that wait for the DM server; at the bound the oldest goes, and is counted',
      ),
    }),
    {},
  ),
  log: logSection,
});

export type GatewayConfig = v.InferOutput<typeof gatewayConfigSchema>;
