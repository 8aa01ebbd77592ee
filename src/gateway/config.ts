import * as v from 'valibot';
import {
  authSchemes,
  described,
  distinct,
  fileOf,
  httpTls,
  identifier,
  integerBetween,
  logSection,
  mqttSection,
  port,
  secret,
  text,
  together,
} from '../base/config.ts';
import { PosternError } from '../base/errors.ts';
import { isLoopbackHost } from '../base/loopback.ts';
import { gwmoSection } from '../mo/vocabulary.ts';
import { isCoapUri } from '../wire/coap/uri.ts';
import { deviceIdRule, isDeviceId } from '../wire/resources.ts';
import { isKey } from '../wire/secure/oscore/config.ts';
import { admissionSection } from './admission-config.ts';
import { oscoreSection } from './oscore-config.ts';

const advertiseRule = 'host:port, as in 192.0.2.1:5683 or [2001:db8::1]:5683';
const hostAndPort = v.pipe(
  v.string(),
  v.regex(/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$/, advertiseRule),
  v.check((value) => Number(/\d+$/.exec(value)?.[0]) <= 65_535, advertiseRule),
);
const httpPath = v.pipe(v.string(), v.regex(/^\/[!-~]*$/, 'a path such as /dm'));
/** A stock client may have a short secret. */
const anySecret = text;
const deviceId = v.pipe(
  v.string(),
  v.check((id) => isDeviceId(id), deviceIdRule),
);

const gatewayTables = v.strictObject({
  gateway: v.strictObject({
    id: described(
      identifier,
      'Name of the gateway, in its topics and as ServerID in the accounts of its devices',
    ),
    state: described(
      v.optional(text, '/var/lib/postern/state.db'),
      'File for all durable state; `:memory:` keeps it until the end of the process',
    ),
    'admin-socket': described(
      v.optional(text),
      'Unix socket of the admin API, for `postern status`; by default below XDG_RUNTIME_DIR or the temporary folder',
    ),
  }),
  coap: v.optional(
    v.strictObject({
      port: described(v.optional(port, 5683), 'UDP port; 0 means a free one'),
      interfaces: described(
        v.optional(v.array(text), []),
        'Names of the network interfaces to serve, all if empty. They may appear later',
      ),
      multicast: described(v.optional(v.boolean(), true), 'Answer discovery by multicast'),
      leisure: described(
        v.optional(integerBetween(0, 60_000), 5000),
        'Answers to a multicast are spread over this many milliseconds (RFC 7252 section 8.2)',
      ),
      advertise: described(
        v.optional(hostAndPort),
        'Host and port that devices are told. Needed behind a forwarded port, as with containers',
      ),
      'insecure-plain-coap': described(
        v.optional(v.boolean(), false),
        'Serve devices over CoAP without DTLS or OSCORE. Anyone on the private network can then read all messages, including bootstrapped secrets',
      ),
    }),
    {},
  ),
  coaps: described(
    v.optional(
      v.strictObject({
        port: described(v.optional(port, 5684), 'UDP port; 0 means a free one'),
        advertise: described(
          v.optional(hostAndPort),
          'Host and port that devices are told, as `coap.advertise`',
        ),
        device: described(
          v.optional(
            v.array(
              v.strictObject({
                identity: described(
                  v.pipe(text, v.maxBytes(128, 'an identity of at most 128 bytes')),
                  'Identity of the pre-shared key, as the device sends it in its handshake (RFC 4279)',
                ),
                key: described(
                  secret,
                  'The pre-shared key: text, or bytes in hexadecimal digits behind `hex:`. Random, of 16 bytes or more',
                ),
              }),
            ),
            [],
          ),
          'Devices and their pre-shared keys. Each identity is of one device',
        ),
      }),
    ),
    'CoAP over DTLS 1.2 with pre-shared keys, on the interfaces of `coap`. Off without this table',
  ),
  oscore: oscoreSection,
  http: described(
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
          device: described(
            v.optional(
              v.pipe(
                v.array(
                  v.strictObject({
                    id: described(deviceId, 'DevId of the End Device, as its packages name it'),
                    'client-name': described(
                      v.optional(text),
                      'User name of the device; by default its DevId',
                    ),
                    'client-secret': described(anySecret, 'Password of the device'),
                    'client-auth': authSchemes(
                      'Schemes that the device may use: `basic`, `md5`, `mac`. The gateway challenges with the first',
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
  ),
  mqtt: described(v.optional(mqttSection), 'The broker. A gateway has either this table or `parent`'),
  budget: described(
    v.optional(
      v.strictObject({
        day: described(
          v.optional(integerBetween(1, 1_000_000_000)),
          'Kilobytes (1,000 octets) per day of UTC; no limit if absent',
        ),
        month: described(
          v.optional(integerBetween(1, 1_000_000_000)),
          'Kilobytes (1,000 octets) per month of UTC; no limit if absent',
        ),
      }),
      {},
    ),
    'Data budget of the uplink, for a link that costs money: octets of TCP in both directions. As it runs short, images wait first (from 70 %), then telemetry (85 %), orders (95 %) and alerts. A DM server can replace both values (`./GwConfig`)',
  ),
  parent: described(
    v.optional(
      v.strictObject({
        id: described(identifier, 'Name of the parent gateway'),
        uri: described(
          v.pipe(v.string(), v.check(isCoapUri, 'a URI such as coap://192.0.2.1:5683')),
          'Address of the parent gateway. A link-local address has its zone, as in `coap://[fe80::1%25eth0]:5683`',
        ),
        'factory-secret': described(secret, "Secret of this gateway for the parent's bootstrap server"),
      }),
    ),
    'A gateway above this one, instead of a broker (GwMO 1.1). This gateway is a device of it and reports to it',
  ),
  'dm-server': v.strictObject({
    id: described(identifier, 'ServerID of the DM server'),
    'client-secret': described(secret, 'Secret of this gateway towards the DM server'),
    'client-auth': authSchemes(
      'Schemes that this gateway may use: `basic`, `md5`, `mac`. It begins with the first',
    ),
    'server-secret': described(secret, 'Secret of the DM server towards this gateway'),
    'server-auth': authSchemes('Schemes that the DM server may use'),
    encoding: described(
      v.optional(v.picklist(['xml', 'wbxml', 'cbor'], '"xml", "wbxml" or "cbor"'), 'xml'),
      "Coding of the gateway's own DM packages. Every DM server understands XML",
    ),
  }),
  tunnel: v.optional(
    v.strictObject({
      servers: described(
        v.optional(v.array(identifier)),
        'ServerIDs that devices may reach through the tunnel; by default only the DM server',
      ),
      timeout: described(
        v.optional(integerBetween(1, 300), 60),
        'Seconds to wait for an answer of the DM server',
      ),
      devices: described(
        v.optional(v.array(text), ['*']),
        'DevIds, or beginnings of DevIds followed by `*`, of devices that may use the tunnel although this gateway does not know them. Devices that it knows (attached, bootstrapped, expected, or listed in `bootstrap.device` or `http.device`) may always. By default any device, at `device-rate`',
      ),
      'device-rate': described(
        v.optional(integerBetween(1, 1_000_000), 600),
        'Packages per minute of all devices together that only match `devices`, until the DM server has accepted them. One network (/24 or /64) gets half of them',
      ),
    }),
    {},
  ),
  bootstrap: v.optional(
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
              }),
            ),
            distinct(),
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
          v.optional(
            v.pipe(v.array(v.strictObject({ id: described(deviceId, 'Endpoint name') })), distinct()),
            [],
          ),
          'LwM2M clients that may bootstrap and register here',
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
  ),
  images: v.optional(
    v.strictObject({
      directory: described(
        v.optional(text),
        'Folder for the images of the Image Inventory; by default beside the state file',
      ),
      quota: described(v.optional(integerBetween(1, 65_536), 256), 'Mebibytes for all images together'),
      count: described(v.optional(integerBetween(1, 1024), 64), 'Maximum number of images'),
      ca: described(
        v.optional(fileOf('authorities')),
        "PEM file of the authorities for download servers; by default the machine's own",
      ),
      'signing-keys': described(
        v.optional(v.array(fileOf('public-key')), []),
        'PEM files of public keys. If there are any, an image must be signed by one of them',
      ),
    }),
    {},
  ),
  update: described(
    v.optional(
      v.strictObject({
        slots: described(
          v.picklist(['rauc', 'directory'], '"rauc" or "directory"'),
          '`rauc` in the firmware image; `directory` with `postern launch`',
        ),
        directory: described(
          v.optional(text, '/var/lib/postern/slots'),
          'Folder of the slots, for `slots = "directory"`',
        ),
        authority: described(
          v.optional(fileOf('authorities')),
          'PEM file of the authority that certifies the signers of bundles. The firmware image has its own',
        ),
        ca: described(
          v.optional(fileOf('authorities')),
          "PEM file of the authorities for download servers; by default the machine's own",
        ),
        'allow-older': described(
          v.optional(v.boolean(), false),
          'Accept a version older than the running one',
        ),
        attempts: described(
          v.optional(integerBetween(1, 9), 3),
          'Starts of a new version before the old one is restored',
        ),
        'health-deadline': described(
          v.optional(integerBetween(10, 3600), 120),
          'Seconds after a start in which a new version must become healthy',
        ),
        watchdog: described(
          v.optional(text),
          'Watchdog device of the kernel, such as `/dev/watchdog`. The gateway feeds it while it answers CoAP',
        ),
      }),
    ),
    'Updates of the gateway itself, by its DM server (FUMO) or by `postern update`. Off without this table',
  ),
  limits: v.optional(
    v.strictObject({
      devices: described(
        v.optional(integerBetween(1, 100_000), 1000),
        'Maximum number of End Devices. A new one beyond it is refused',
      ),
      'device-expiry': described(
        v.optional(integerBetween(0, 31_536_000)),
        'Seconds of silence after which a device is asked whether it is there; 0 means never. By default the time depends on the kind of device. LwM2M clients have their lifetimes instead. A device that does not answer is unreachable and stays attached',
      ),
      outbox: described(
        v.optional(integerBetween(1, 1_000_000), 10_000),
        'Maximum number of alerts that wait for the DM server. Beyond it the oldest is dropped and counted',
      ),
      'keep-free': described(
        v.optional(integerBetween(0, 65_536), 32),
        'Mebibytes of the disk that images and update bundles leave free, for the state',
      ),
    }),
    {},
  ),
  admission: admissionSection,
  gwmo: gwmoSection,
  log: logSection,
});

/** The gateway's configuration file: one schema for checking, defaults and the reference page. */
export const gatewayConfigSchema = v.pipe(
  gatewayTables,
  v.check(
    ({ mqtt, parent }) => (mqtt === undefined) !== (parent === undefined),
    'one of the tables [mqtt] and [parent] is needed, and not both: a gateway reports to a broker or to a gateway above it',
  ),
  v.check(({ coaps }) => {
    const identities = coaps?.device.map(({ identity }) => identity) ?? [];
    return new Set(identities).size === identities.length;
  }, 'each identity in coaps.device once'),
  v.check(
    ({ coaps }) => (coaps?.device ?? []).every(({ key }) => isKey(key)),
    'pairs of hexadecimal digits behind hex: in coaps.device.key, at least 8 of them',
  ),
  v.check(({ bootstrap, lwm2m }) => {
    const clients = new Set(lwm2m?.device.map(({ id }) => id));
    return !bootstrap.device.some(({ id }) => clients.has(id));
  }, 'a device is both in [[bootstrap.device]] and in [[lwm2m.device]]; list each in one of them, not in both'),
  v.check(
    ({ update }) => update?.slots !== 'directory' || update.authority !== undefined,
    'update.authority is missing; slots = "directory" needs it, such as authority = "/etc/postern/update-ca.pem"',
  ),
);

export type GatewayConfig = v.InferOutput<typeof gatewayConfigSchema>;

/**
 * Refuses a configuration that serves devices without security and does not allow that by name.
 * @throws {PosternError} `configuration`
 */
export function demandAllowed({ coap, lwm2m }: GatewayConfig): void {
  if (!coap['insecure-plain-coap'])
    throw new PosternError(
      'configuration',
      'coap.insecure-plain-coap: devices are served over plain CoAP as well, beside [coaps], which must be allowed by this key = true',
    );
  if (lwm2m && !lwm2m['insecure-no-security'])
    throw new PosternError(
      'configuration',
      'lwm2m.insecure-no-security: LwM2M clients are served without security only so far, which must be allowed by this key = true',
    );
}

/** Keys that are reloaded at SIGHUP. All others take effect at the next start. */
export const gatewayReloads: readonly string[] = [
  'coaps.device',
  'oscore.device',
  'http.tls-cert',
  'http.tls-key',
  'http.device',
  'mqtt.username',
  'mqtt.password',
  'mqtt.ca',
  'mqtt.cert',
  'mqtt.key',
  'parent.factory-secret',
  'dm-server.client-secret',
  'dm-server.client-auth',
  'dm-server.server-secret',
  'dm-server.server-auth',
  'tunnel.devices',
  'tunnel.device-rate',
  'bootstrap.device',
  'lwm2m.device',
  'images.ca',
  'images.signing-keys',
  'update.authority',
  'update.ca',
  'log.level',
];
