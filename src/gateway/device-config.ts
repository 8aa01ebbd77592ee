import { isIP } from 'node:net';
import * as v from 'valibot';
import {
  anySecret,
  authSchemes,
  described,
  distinct,
  fileOf,
  httpTls,
  identifier,
  integerBetween,
  port,
  secret,
  text,
  together,
} from '../base/config.ts';
import { isLoopbackHost } from '../base/loopback.ts';
import { deviceId } from '../wire/device-id.ts';
import { deviceSecurity, isKey } from '../wire/secure/oscore/config.ts';

const httpPath = v.pipe(v.string(), v.regex(/^\/[!-~]*$/, 'a path such as /dm'));
/** What protects a device that is bootstrapped. */
const security = described(
  deviceSecurity,
  'What its account is for: DTLS, or OSCORE, which needs the table `oscore`. Its factory secret then gives a security context for the bootstrap too',
);

/** The table `[http]` of the gateway's configuration, with the devices that have an account made by hand. */
export const httpSection = described(
  v.optional(
    v.pipe(
      v.strictObject({
        host: described(v.optional(text, '127.0.0.1'), 'Address to listen at'),
        port: described(v.optional(port, 8053), 'TCP port; 0 means a free one'),
        path: described(v.optional(httpPath, '/dm'), 'Path for packages of sessions with the gateway'),
        'bootstrap-path': described(v.optional(httpPath, '/dm/bs'), 'Path for local bootstrap'),
        'tunnel-path': described(
          v.optional(httpPath, '/dm/t'),
          'Path for packages to a DM server; `/{ServerID}` follows it',
        ),
        'server-id': described(
          v.optional(identifier),
          "ServerID that these devices have for the gateway; by default the gateway's name",
        ),
        ...httpTls('all messages'),
        'client-ca': described(
          v.optional(fileOf('authorities')),
          'PEM file of the authorities of the devices. TLS then asks each client for a certificate, and takes no connection without one of these authorities. The certificate opens the connection alone: a device proves itself in its session as without one',
        ),
        device: described(
          v.optional(
            v.pipe(
              v.array(
                v.strictObject({
                  id: described(deviceId, 'DevId of the End Device, as its packages name it'),
                  'client-name': described(v.optional(text), 'User name of the device; by default its DevId'),
                  'client-secret': described(
                    anySecret,
                    'Password of the device. One of less than 8 characters is taken, with a warning',
                  ),
                  'client-auth': authSchemes(
                    'Schemes that the device may use: `basic`, `md5`, `mac`. The gateway challenges with the first',
                  ),
                  'server-name': described(
                    v.optional(text),
                    'User name of the gateway towards this device (AAuthName of the credential SRVCRED); by default the ServerID',
                  ),
                  'server-secret': described(anySecret, 'Password of the gateway towards this device'),
                  'server-auth': authSchemes('Schemes that the gateway may use'),
                }),
              ),
              distinct(),
            ),
            [],
          ),
          'Devices with an account made by hand on both sides, such as stock OMA DM clients',
        ),
      }),
      together('tls-cert', 'tls-key'),
      v.check(
        (http) => http['client-ca'] === undefined || http['tls-cert'] !== undefined,
        'client-ca is there without tls-cert and tls-key; only TLS asks for a certificate',
      ),
      v.check(
        (http) => new Set([http.path, http['bootstrap-path'], http['tunnel-path']]).size === 3,
        'path, bootstrap-path and tunnel-path must differ from each other',
      ),
      v.check(
        ({ host, ...http }) =>
          isLoopbackHost(host) || http['tls-cert'] !== undefined || http['insecure-plain-http'],
        'host is not loopback; it needs tls-cert and tls-key, or insecure-plain-http = true',
      ),
    ),
  ),
  'HTTP binding, for OMA DM clients without CoAP. Off without this table',
);

/** The table `[bootstrap]`: devices that the local bootstrap server knows. */
export const bootstrapSection = v.optional(
  v.strictObject({
    device: described(
      v.optional(
        v.pipe(
          v.array(
            v.strictObject({
              id: described(deviceId, 'DevId of the End Device'),
              'factory-secret': described(secret, 'Its factory secret'),
              pin: described(
                v.optional(text),
                'A PIN that a person also enters at the device. The bootstrap is then protected by both',
              ),
              gateway: described(
                v.optional(v.boolean(), false),
                'The device may be a DM Gateway with its own devices (GwMO 1.1)',
              ),
              security,
            }),
          ),
          distinct(),
        ),
        [],
      ),
      'Devices that the local bootstrap server may bootstrap (GwMO 8.4.2). A device that was bootstrapped and is no longer listed loses its credential',
    ),
  }),
  {},
);

/** The table `[lwm2m]`: clients of the adaptation mode. */
export const lwm2mSection = described(
  v.optional(
    v.strictObject({
      device: described(
        v.optional(
          v.pipe(
            v.array(
              v.strictObject({
                id: described(deviceId, 'Endpoint name'),
                'factory-secret': described(
                  v.optional(secret),
                  'Its factory secret, from which it derives the key for its bootstrap as a device of `bootstrap.device` does',
                ),
                'bootstrap-identity': described(
                  v.optional(v.pipe(text, v.maxBytes(128, 'an identity of at most 128 bytes'))),
                  'Identity of its pre-shared key for the bootstrap; by default its endpoint name',
                ),
                'bootstrap-key': described(
                  v.optional(
                    v.pipe(secret, v.check(isKey, '8 or more pairs of hexadecimal digits behind hex:')),
                  ),
                  'Its pre-shared key for the bootstrap, and for nothing else: text, or bytes in hexadecimal digits behind `hex:`.',
                ),
                security,
              }),
            ),
            distinct(),
          ),
          [],
        ),
        'LwM2M clients that may bootstrap and register here. A client that is no longer listed loses the key that a bootstrap gave it',
      ),
      lifetime: described(
        v.optional(integerBetween(60, 2_592_000), 3600),
        'Lifetime of registrations in seconds, for clients that were bootstrapped here',
      ),
      'insecure-no-security': described(
        v.optional(v.boolean(), false),
        'Serve LwM2M clients without DTLS or OSCORE. Clients are then not authenticated: anyone who knows an endpoint name can take its place',
      ),
    }),
  ),
  'Adaptation mode, for devices that speak LwM2M instead of OMA DM. Off without this table',
);

/** The URI of a device on the private network: by its IP address, since a name could be anybody's. */
const deviceUri = v.pipe(
  v.string(),
  v.check((uri) => {
    const { protocol, hostname = '', search = '', hash = '' } = URL.parse(uri) ?? {};
    const host = hostname.replace(/^\[|\]$/g, '');
    return protocol === 'coap:' && isIP(host) !== 0 && search + hash === '';
  }, 'a URI such as coap://192.0.2.7 or coap://[2001:db8::7]:5683, with the IP address of the device'),
);

/** The table `[coap-devices]`: devices that speak nothing but CoAP. */
export const coapDevicesSection = described(
  v.optional(
    v.strictObject({
      device: described(
        v.pipe(
          v.array(
            v.strictObject({
              id: described(deviceId, 'Name of the device'),
              uri: described(deviceUri, 'Its address; a path stands before the paths of all its resources'),
            }),
          ),
          v.maxLength(1024, 'at most 1024 devices'),
          distinct(),
        ),
        'The devices. Each is attached when it has answered. One that is no longer listed is detached at the next start',
      ),
      'insecure-plain-coap': described(
        v.literal(
          true,
          'true: these devices are managed over CoAP without security, which must be allowed by name',
        ),
        'Manage these devices over CoAP without DTLS or OSCORE. Nothing proves them: whoever is at their addresses reads what is written, and answers for them',
      ),
    }),
  ),
  'Adaptation mode for devices that speak plain CoAP with `/.well-known/core`, without LwM2M ([adapters.md](adapters.md)). Off without this table',
);

interface Listed {
  readonly device: readonly {
    readonly id: string;
    readonly security: 'dtls' | 'oscore';
    readonly 'factory-secret'?: string | undefined;
  }[];
}

/** The devices of a configuration that are to use OSCORE. */
export const oscoreDevices = (config: {
  readonly bootstrap: Listed;
  readonly lwm2m?: Listed | undefined;
}): Listed['device'] =>
  [...config.bootstrap.device, ...(config.lwm2m?.device ?? [])].filter(
    ({ security }) => security === 'oscore',
  );
