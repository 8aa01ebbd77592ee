import * as v from 'valibot';
import {
  anySecret,
  authSchemes,
  described,
  distinct,
  httpTls,
  identifier,
  integerBetween,
  logSection,
  mqttSection,
  namePattern,
  port,
  secret,
  text,
  together,
} from '../base/config.ts';
import { isLoopbackHost } from '../base/loopback.ts';
import { gwmoSection } from '../mo/vocabulary.ts';
import { deviceId } from '../wire/device-id.ts';
import { deviceSecurity } from '../wire/secure/oscore/config.ts';
import { headendEnrolmentSection } from './enrolment-config.ts';

/** Keys that a gateway and a device have in common. */
const partyWith = <S extends v.GenericSchema>(secretOf: S, more = '') => ({
  'client-secret': described(secretOf, `Its secret towards this server${more}`),
  'client-auth': authSchemes(
    'Schemes that it may use: `basic`, `md5`, `mac`. This server challenges with the first',
  ),
  'server-secret': described(secretOf, 'Secret of this server towards it'),
  'server-auth': authSchemes('Schemes that this server may use. It begins with the first'),
});

const hostRule = 'a host name or address without scheme and port, such as dm.example or [2001:db8::1]';
const originRule = 'an origin such as https://ops.example, without a path';
const httpUrl = v.pipe(v.string(), v.regex(/^https?:\/\/[^\s/]+/, 'a URL such as https://dm.example/dm'));

/** Whether the header Host can name this host. */
const isHost = (host: string): boolean =>
  URL.canParse(`http://${host}/`) && new URL(`http://${host}/`).hostname === host.toLowerCase();

const apiSection = v.pipe(
  v.strictObject({
    host: described(
      v.optional(text, '127.0.0.1'),
      'Address of the HTTP API. An address other than loopback needs TLS, or `insecure-plain-http`',
    ),
    port: described(v.optional(port, 8080), 'Port of the HTTP API; 0 means a free one'),
    hosts: described(
      v.optional(v.array(v.pipe(v.string(), v.check(isHost, hostRule))), []),
      'Names by which clients reach the API, besides `localhost` and its address. Requests for other names are refused',
    ),
    origins: described(
      v.optional(v.array(v.pipe(v.string(), v.regex(/^https?:\/\/[^\s/]+$/, originRule))), []),
      'Origins of web pages that may use the API, such as `https://ops.example`. Requests of other pages are refused',
    ),
    'token-file': described(
      v.optional(text),
      'File that a new token of the API is written to; by default beside the state file, with `.token` behind its name',
    ),
    ...httpTls('the token and all else'),
  }),
  together('tls-cert', 'tls-key'),
  v.check(
    (api) => isLoopbackHost(api.host) || api['tls-cert'] !== undefined || api['insecure-plain-http'],
    'host is not loopback; it needs tls-cert and tls-key, or insecure-plain-http = true',
  ),
);

const headendTables = v.strictObject({
  headend: v.strictObject({
    id: described(identifier, 'ServerID of this DM server'),
    state: described(
      v.optional(text, 'headend.db'),
      'File for nonces and associations; `:memory:` keeps them until the end of the process',
    ),
    route: described(
      v.optional(identifier, 'worker-1'),
      'Name of this worker. Later packages of its sessions arrive at dm/{gateway}/up/{route}',
    ),
    group: described(
      v.optional(identifier),
      'Group of workers that share the first packages of sessions, by a shared subscription at the broker',
    ),
    'session-timeout': described(
      v.optional(integerBetween(1, 600), 60),
      'Seconds for a device to open a requested session',
    ),
    patience: described(
      v.optional(integerBetween(1, 2_592_000), 86_400),
      'Seconds that the operations of the API wait for a device that cannot be asked for a session, and comes by itself',
    ),
    'gateway-rate': described(
      v.optional(integerBetween(1, 100_000), 1000),
      'Messages a second of one gateway that are looked at; three times as many at once. A message counts once for each 16 KiB. A fifth of it is for packages of parties that have not proved themselves through this gateway. A gateway that sends more gets a small share of the rest, and repeats what was not answered',
    ),
  }),
  api: v.optional(apiSection, {}),
  mqtt: mqttSection,
  relay: described(
    v.optional(
      v.strictObject({
        url: described(httpUrl, 'URL at which an existing DM server accepts packages'),
        timeout: described(v.optional(integerBetween(1, 300), 30), 'Seconds to wait for its answer'),
      }),
    ),
    'Relays the packages of devices to a DM server over HTTP. This server still manages the gateways',
  ),
  policy: v.optional(
    v.strictObject({
      'assisted-bootstrap': described(
        v.optional(v.boolean(), true),
        'Give a device an account for the gateway that it came through, if it has none for it (GwMO 8.4.1)',
      ),
      assign: described(
        v.optional(
          v.array(
            v.strictObject({
              device: described(namePattern, 'DevId, or the beginning of DevIds followed by `*`'),
              gateway: described(identifier, 'Gateway of the device'),
            }),
          ),
          [],
        ),
        'Gateways of devices: the first matching entry. Any other device belongs to the gateway that it came through',
      ),
    }),
    {},
  ),
  gateway: described(
    v.optional(
      v.pipe(
        v.array(v.strictObject({ id: described(identifier, 'Name of the gateway'), ...partyWith(secret) })),
        distinct(),
      ),
      [],
    ),
    'Gateways of this server',
  ),
  device: described(
    v.optional(
      v.pipe(
        v.array(
          v.strictObject({
            id: described(deviceId, 'DevId of the End Device'),
            'client-name': described(
              v.optional(text),
              'User name of the device (AAuthName of its credential CLCRED); by default its DevId',
            ),
            'server-name': described(
              v.optional(text),
              'User name of this server towards it (AAuthName of SRVCRED); by default the ServerID',
            ),
            ...partyWith(
              anySecret,
              '. One of less than 8 characters is taken, with a warning. It gives no key for DTLS or OSCORE',
            ),
            security: described(
              deviceSecurity,
              'What its accounts for gateways are for: DTLS, or OSCORE. Its gateway must serve that',
            ),
          }),
        ),
        distinct(),
      ),
      [],
    ),
    'End Devices with a factory account for this server',
  ),
  enrolment: headendEnrolmentSection,
  gwmo: gwmoSection,
  log: logSection,
});

/** Schema of the head-end's configuration file. docs/configuration.md is generated from it. */
export const headendConfigSchema = v.pipe(
  headendTables,
  v.check<HeadendTables, (issue: v.CheckIssue<HeadendTables>) => string>(
    (config) => inBoth(config) === undefined,
    ({ input }) =>
      `${JSON.stringify(inBoth(input))} is both in [[gateway]] and in [[device]]; list it in one of them`,
  ),
  v.check(
    ({ enrolment, headend }) => enrolment === undefined || headend.group === undefined,
    'the table [enrolment] and the key headend.group exclude each other: each worker of a group has a state of its own, so the others would not know a gateway that one has enrolled',
  ),
);

type HeadendTables = v.InferOutput<typeof headendTables>;

/** The ID of a party that is listed as a gateway and as a device. */
function inBoth({ gateway, device }: HeadendTables): string | undefined {
  const gateways = new Set(gateway.map(({ id }) => id));
  return device.find(({ id }) => gateways.has(id))?.id;
}

/** A configuration that was checked, with its defaults filled in. */
export type HeadendConfig = v.InferOutput<typeof headendConfigSchema>;

/** Keys that are reloaded at SIGHUP. All others take effect at the next start. */
export const headendReloads: readonly string[] = [
  'api.tls-cert',
  'api.tls-key',
  'mqtt.username',
  'mqtt.password',
  'mqtt.ca',
  'mqtt.cert',
  'mqtt.key',
  'policy.assisted-bootstrap',
  'policy.assign',
  'enrolment.days',
  'enrolment.allow',
  'enrolment.policy',
  'gateway',
  'device',
  'log.level',
];
