import * as v from 'valibot';
import {
  authSchemes,
  described,
  identifier,
  integerBetween,
  logSection,
  mqttSection,
  port,
  secret,
  text,
} from '../base/config.ts';
import { gwmoSection } from '../mo/vocabulary.ts';

const httpPath = v.pipe(v.string(), v.regex(/^\/[!-~]*$/, 'a path such as /dm'));
/** Of a stock client, which may have a short one. */
const anySecret = text;
const deviceId = v.pipe(
  v.string(),
  v.minLength(1, 'a device ID'),
  v.maxLength(200, 'a device ID of at most 200 characters'),
);

const gatewayTables = v.strictObject({
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
        v.optional(integerBetween(0, 60_000), 5000),
        'Milliseconds over which answers to a multicast are spread (RFC 7252 section 8.2)',
      ),
      advertise: described(
        v.optional(
          v.pipe(
            v.string(),
            v.regex(/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$/, 'host:port, as in 192.0.2.1:5683'),
          ),
        ),
        'Host and port by which devices reach this gateway, where they do not by the address that answers them: behind a port that is forwarded, as containers have it',
      ),
      'insecure-plain-coap': described(
        v.optional(v.boolean(), false),
        'Serve devices over CoAP without DTLS or OSCORE. Anyone on the private network can read what is said, bootstrapped secrets as well',
      ),
    }),
    {},
  ),
  http: described(
    v.optional(
      v.strictObject({
        host: described(v.optional(text, '127.0.0.1'), 'Address to listen at'),
        port: described(v.optional(port, 8053), 'TCP port; 0 takes a free one'),
        path: described(
          v.optional(httpPath, '/dm'),
          'Where devices post packages of sessions with the gateway',
        ),
        'bootstrap-path': described(v.optional(httpPath, '/dm/bs'), 'Where they ask for a local bootstrap'),
        'tunnel-path': described(
          v.optional(httpPath, '/dm/t'),
          'Below it, `/{ServerID}`, packages for a DM server behind the gateway',
        ),
        'server-id': described(
          v.optional(identifier),
          "ServerID by which these devices know the gateway; the gateway's own name by default",
        ),
        'tls-cert': described(v.optional(text), 'PEM file of the certificate; HTTP without TLS when absent'),
        'tls-key': described(v.optional(text), 'PEM file of its key'),
        'insecure-plain-http': described(
          v.optional(v.boolean(), false),
          'Serve HTTP without TLS at an address that is not loopback. Anyone on the way can read what is said',
        ),
        device: described(
          v.optional(
            v.array(
              v.strictObject({
                id: described(deviceId, 'DevId of the End Device, as its packages name it'),
                'client-name': described(
                  v.optional(text),
                  'User name that it proves itself by; its DevId by default',
                ),
                'client-secret': described(anySecret, 'Password that it proves itself by'),
                'client-auth': authSchemes(
                  'How it may prove itself: `basic`, `md5`, `mac`; the first is what it is challenged with',
                ),
                'server-secret': described(anySecret, 'Password by which the gateway proves itself to it'),
                'server-auth': authSchemes('How the gateway proves itself'),
              }),
            ),
            [],
          ),
          'Devices whose account was made by hand on both sides, such as stock OMA DM clients',
        ),
      }),
    ),
    'HTTP binding, for OMA DM clients that speak no CoAP; off unless this table is there',
  ),
  mqtt: described(v.optional(mqttSection), 'The broker; a gateway has either this table or `parent`'),
  parent: described(
    v.optional(
      v.strictObject({
        id: described(identifier, 'Name of the parent gateway'),
        uri: described(
          v.pipe(v.string(), v.regex(/^coap:\/\/\S+$/, 'a URI such as coap://192.0.2.1:5683')),
          'Where the parent gateway is',
        ),
        'factory-secret': described(secret, 'Secret by which its bootstrap server knows this gateway'),
      }),
    ),
    'A gateway above this one, in place of a broker (GwMO 1.1): this one is a device to it, and reports to it',
  ),
  'dm-server': v.strictObject({
    id: described(identifier, 'ServerID of the DM server'),
    'client-secret': described(secret, 'Secret by which this gateway proves itself to the DM server'),
    'client-auth': authSchemes(
      'How this gateway may prove itself: `basic`, `md5`, `mac`; the first is what it begins with',
    ),
    'server-secret': described(secret, 'Secret by which the DM server proves itself to this gateway'),
    'server-auth': authSchemes('How the DM server may prove itself'),
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
        v.optional(integerBetween(1, 300), 60),
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
              gateway: described(
                v.optional(v.boolean(), false),
                'It may be a DM Gateway with devices of its own (GwMO 1.1)',
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
  lwm2m: described(
    v.optional(
      v.strictObject({
        device: described(
          v.optional(v.array(v.strictObject({ id: described(deviceId, 'Endpoint name') })), []),
          'LwM2M clients that may be bootstrapped and may register here',
        ),
        lifetime: described(
          v.optional(integerBetween(60, 2_592_000), 3600),
          'Seconds within which a client that was bootstrapped here renews its registration',
        ),
        'insecure-no-security': described(
          v.optional(v.boolean(), false),
          'Serve LwM2M clients without DTLS or OSCORE. A client proves nothing then: whoever knows an endpoint name can take its place',
        ),
      }),
    ),
    'Adaptation mode, for devices that speak LwM2M in place of OMA DM; off unless this table is there',
  ),
  images: v.optional(
    v.strictObject({
      directory: described(
        v.optional(text),
        'Folder for the images of the Image Inventory; beside the state file by default',
      ),
      quota: described(v.optional(integerBetween(1, 65_536), 256), 'Mebibytes that images may take in all'),
      count: described(v.optional(integerBetween(1, 1024), 64), 'Images that may be known'),
      ca: described(
        v.optional(text),
        "PEM file of the authorities of download servers; the machine's own by default",
      ),
      'signing-keys': described(
        v.optional(v.array(text), []),
        'PEM files of public keys. Where there are any, an image must be signed by one of them',
      ),
    }),
    {},
  ),
  update: described(
    v.optional(
      v.strictObject({
        slots: described(
          v.picklist(['rauc', 'directory'], '"rauc" or "directory"'),
          '`rauc` in the firmware image; `directory` where `postern launch` starts the gateway',
        ),
        directory: described(
          v.optional(text, '/var/lib/postern/slots'),
          'Folder of the slots that are directories',
        ),
        authority: described(
          v.optional(text),
          'PEM file of the authority that must have certified who signs bundles; the firmware image has its own',
        ),
        ca: described(
          v.optional(text),
          "PEM file of the authorities of download servers; the machine's own by default",
        ),
        'allow-older': described(
          v.optional(v.boolean(), false),
          'Whether a version older than the one that runs is taken',
        ),
        attempts: described(
          v.optional(integerBetween(1, 9), 3),
          'Starts that a new version has to prove itself before the old one comes back',
        ),
        'health-deadline': described(
          v.optional(integerBetween(10, 3600), 120),
          'Seconds within which a new version must be healthy after a start',
        ),
        watchdog: described(
          v.optional(text),
          'Watchdog of the kernel, fed while the gateway does its work: such as `/dev/watchdog`',
        ),
      }),
    ),
    'How the gateway itself is updated, by its DM server (FUMO) or by `postern update`; not at all unless this table is there',
  ),
  limits: v.optional(
    v.strictObject({
      devices: described(
        v.optional(integerBetween(1, 100_000), 1000),
        'End Devices that are held; a new one beyond is refused',
      ),
      'device-expiry': described(
        v.optional(integerBetween(0, 31_536_000), 604_800),
        'Seconds after which a device that was not heard is asked whether it is there, and detached if it does not answer; 0 never',
      ),
      outbox: described(
        v.optional(integerBetween(1, 1_000_000), 10_000),
        'Alerts that wait for the DM server; at the bound the oldest goes, and is counted',
      ),
    }),
    {},
  ),
  gwmo: gwmoSection,
  log: logSection,
});

/** The gateway's configuration file: one schema for checking, defaults and the reference page. */
export const gatewayConfigSchema = v.pipe(
  gatewayTables,
  v.check(
    ({ mqtt, parent }) => (mqtt === undefined) !== (parent === undefined),
    'exactly one of the tables mqtt and parent',
  ),
  v.check(({ bootstrap, lwm2m }) => {
    const clients = new Set(lwm2m?.device.map(({ id }) => id));
    return !bootstrap.device.some(({ id }) => clients.has(id));
  }, 'a device is in bootstrap.device or in lwm2m.device, not in both'),
  v.check(
    ({ update }) => update?.slots !== 'directory' || update.authority !== undefined,
    'update.authority where update.slots is "directory"',
  ),
);

export type GatewayConfig = v.InferOutput<typeof gatewayConfigSchema>;
