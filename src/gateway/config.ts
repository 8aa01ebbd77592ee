import * as v from 'valibot';
import {
  described,
  identifier,
  integerBetween,
  logSection,
  mqttSection,
  port,
  text,
} from '../base/config.ts';
import { PosternError } from '../base/errors.ts';
import { gwmoSection } from '../mo/vocabulary.ts';
import { coapsPort } from '../wire/coap/uri.ts';
import { admissionSection } from './admission-config.ts';
import { coapsSection, hostAndPort } from './coaps-config.ts';
import {
  bootstrapSection,
  coapDevicesSection,
  httpSection,
  lwm2mSection,
  oscoreDevices,
} from './device-config.ts';
import { enrolmentSection } from './enrolment-config.ts';
import { imagesSection, updateSection } from './image-config.ts';
import { oscoreSection } from './oscore-config.ts';
import {
  budgetSection,
  dmServerSection,
  isSecureUri,
  parentSection,
  tunnelSection,
} from './uplink-config.ts';

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
    'key-command': described(
      v.optional(v.pipe(v.array(text), v.minLength(1))),
      'Program and arguments that print the key by which secrets in the state are encrypted: 32 bytes, or 64 hexadecimal digits. For a TPM or secure element. By default the key is in the file `STATE.key`, which is made at the first start',
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
        'Serve devices over CoAP without DTLS or OSCORE. Anyone on the private network can then read all messages, including bootstrapped secrets. If false, plain CoAP has discovery and the tunnel alone',
      ),
    }),
    {},
  ),
  coaps: coapsSection,
  oscore: oscoreSection,
  http: httpSection,
  mqtt: described(v.optional(mqttSection), 'The broker. A gateway has either this table or `parent`'),
  enrolment: enrolmentSection,
  budget: budgetSection,
  parent: parentSection,
  'dm-server': dmServerSection,
  tunnel: tunnelSection,
  bootstrap: bootstrapSection,
  lwm2m: lwm2mSection,
  'coap-devices': coapDevicesSection,
  images: imagesSection,
  update: updateSection,
  limits: v.optional(
    v.strictObject({
      devices: described(
        v.optional(integerBetween(1, 100_000), 1000),
        'Maximum number of End Devices. A new one beyond it is refused',
      ),
      associations: described(
        v.optional(integerBetween(16, 100_000)),
        'Maximum number of DTLS associations with devices, and of sessions that devices can resume. By default 16,384, or `limits.devices` where that is more. Each takes about 1.5 KB of memory',
      ),
      'device-expiry': described(
        v.optional(integerBetween(0, 31_536_000)),
        'Seconds of silence after which a device is asked whether it is there; 0 means never. By default the time depends on the kind of device. LwM2M clients have their lifetimes instead. A device that does not answer is unreachable and stays attached',
      ),
      outbox: described(
        v.optional(integerBetween(1, 1_000_000), 10_000),
        'Maximum number of alerts that wait for the DM server. Beyond it the oldest is dropped and counted. One child gateway may take a quarter of it, all of them three quarters; their alerts beyond that are refused (420), and they keep them',
      ),
      telemetry: described(
        v.optional(integerBetween(1, 1024), 4),
        'Mebibytes of values that wait for DM servers, in memory and after a minute in the state. Beyond it the oldest are dropped and counted',
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

/** What is served over DTLS without a table `coaps`. A parent over DTLS is reached from there too. */
const usualCoaps = ({ coap, parent }: Pick<v.InferOutput<typeof gatewayTables>, 'coap' | 'parent'>) =>
  coap['insecure-plain-coap'] && !(parent && isSecureUri(parent.uri))
    ? undefined
    : v.parse(coapsSection, { port: coap.port === 0 ? 0 : coapsPort });

/** The gateway's configuration file: one schema for checking, defaults and the reference page. */
export const gatewayConfigSchema = v.pipe(
  gatewayTables,
  v.check(
    ({ mqtt, parent }) => (mqtt === undefined) !== (parent === undefined),
    'one of the tables [mqtt] and [parent] is needed, and not both: a gateway reports to a broker or to a gateway above it',
  ),
  v.check(
    ({ enrolment, mqtt }) => enrolment === undefined || mqtt !== undefined,
    'the table [enrolment] needs the table [mqtt]: a gateway behind another one enrols there by its factory secret',
  ),
  v.check(({ bootstrap, lwm2m }) => {
    const clients = new Set(lwm2m?.device.map(({ id }) => id));
    return !bootstrap.device.some(({ id }) => clients.has(id));
  }, 'a device is both in [[bootstrap.device]] and in [[lwm2m.device]]; list each in one of them, not in both'),
  v.check(({ 'coap-devices': things, bootstrap, lwm2m, http }) => {
    const others = [bootstrap.device, lwm2m?.device ?? [], http?.device ?? []].flat();
    const names = new Set(others.map(({ id }) => id));
    return !things?.device.some(({ id }) => names.has(id));
  }, 'a device of [[coap-devices.device]] is in another list of devices too; list each in one of them, not in both'),
  v.check(
    ({ oscore, ...config }) => oscore !== undefined || oscoreDevices(config).length === 0,
    'a device has security = "oscore"; it needs the table [oscore], which may be empty',
  ),
  v.check(
    ({ bootstrap }) => bootstrap.device.every(({ gateway, security }) => !gateway || security === 'dtls'),
    'a device of bootstrap.device is a gateway and has security = "oscore"; a child gateway uses DTLS',
  ),
  v.check(
    ({ update }) => update?.slots !== 'directory' || update.authority !== undefined,
    'update.authority is missing; slots = "directory" needs it, such as authority = "/etc/postern/update-ca.pem"',
  ),
  // Where devices are not served without security, they are served over DTLS without a word about it.
  v.transform(({ coaps, ...config }) => ({ ...config, coaps: coaps ?? usualCoaps(config) })),
);

export type GatewayConfig = v.InferOutput<typeof gatewayConfigSchema>;

/**
 * Refuses a configuration by which LwM2M clients could not be served at all, or only without security that is not allowed by name.
 * @throws {PosternError} `configuration`
 */
export function demandAllowed({ coaps, oscore, lwm2m }: GatewayConfig): void {
  if (lwm2m && !coaps && !oscore && !lwm2m['insecure-no-security'])
    throw new PosternError(
      'configuration',
      'lwm2m.insecure-no-security: without [coaps] or [oscore] LwM2M clients are served without security only, which must be allowed by this key = true',
    );
}

/** Keys that are reloaded at SIGHUP. All others take effect at the next start. */
export const gatewayReloads: readonly string[] = [
  'coaps.device',
  'oscore.device',
  'coaps.certificate-file',
  'coaps.key-file',
  'coaps.ca-files',
  'coaps.raw-key',
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
  'update.second-authority',
  'update.ca',
  'log.level',
];
