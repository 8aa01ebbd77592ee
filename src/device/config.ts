import * as v from 'valibot';
import {
  authSchemes,
  described,
  fileOf,
  identifier,
  integerBetween,
  logSection,
  port,
  secret,
  text,
} from '../base/config.ts';
import { gwmoSection } from '../mo/vocabulary.ts';
import { isCoapUri } from '../wire/coap/uri.ts';
import { deviceId } from '../wire/device-id.ts';
import { contextKeys, deviceSecurity, isKey } from '../wire/secure/oscore/config.ts';

const deviceTables = v.strictObject({
  device: v.strictObject({
    id: described(deviceId, 'DevInfo/DevId, a URN such as urn:dev:ops:1'),
    manufacturer: described(v.optional(text, 'Postern'), 'DevInfo/Man'),
    model: described(v.optional(text, 'Reference End Device'), 'DevInfo/Mod'),
    firmware: described(v.optional(text, '1.0.0'), 'DevDetail/FwV'),
    'factory-secret': described(
      v.optional(secret),
      'Secret for the local bootstrap server (GwMO 8.4.2). Without it the device needs the help of its DM server',
    ),
    pin: described(
      v.optional(text),
      'A PIN that protects the bootstrap together with the factory secret, if the bootstrap server has one for this device',
    ),
    security: described(
      deviceSecurity,
      'What protects its requests: DTLS, where the gateway serves it, or OSCORE. The factory secret gives a security context for the bootstrap, and the account another one for all else. The gateway, or the DM server, must have `oscore` for this device too',
    ),
    state: described(
      v.optional(text, ':memory:'),
      'File for accounts and settings; `:memory:` keeps them until the end of the process',
    ),
    encoding: described(
      v.optional(v.picklist(['xml', 'wbxml', 'cbor'], '"xml", "wbxml" or "cbor"'), 'xml'),
      'Coding of DM packages',
    ),
  }),
  network: v.optional(
    v.strictObject({
      gateway: described(
        v.optional(
          v.pipe(
            v.string(),
            v.check(
              (uri) => isCoapUri(uri, ['coap', 'coaps']),
              'a URI such as coap://192.0.2.1:5683 or coaps://192.0.2.1:5684',
            ),
          ),
        ),
        'Address of the gateway. Without it, the device finds a gateway by multicast. A link-local address has its zone, as in `coap://[fe80::1%25eth0]`',
      ),
      'multicast-port': described(v.optional(port, 5683), 'Port for discovery'),
      'attach-every': described(
        v.optional(integerBetween(10, 2_592_000), 86_400),
        'Seconds after which an OMA DM device attaches again although nothing has changed. So it finds out that its gateway was replaced, and gets an account for the new one',
      ),
      interface: described(
        v.optional(text),
        'IP address or name of the interface for the sockets and for multicast; by default all interfaces, over IPv4 and IPv6. Without an address here, the device follows a change of its own address',
      ),
    }),
    {},
  ),
  bootstrap: described(
    v.optional(
      v.strictObject({
        file: described(fileOf('any'), 'Bootstrap document: DM profile or Client Provisioning'),
        type: described(
          text,
          'Its content type with the protection parameters, such as `application/vnd.wap.connectivity-wbxml; SEC=NETWPIN; MAC=…`',
        ),
      }),
    ),
    'A bootstrap document that is applied once, at the first start (OMA DM bootstrap, customized bootstrap)',
  ),
  oscore: described(
    v.optional(v.strictObject(contextKeys)),
    'The security context with the gateway (OSCORE, RFC 8613). With it all requests to the gateway are protected, and only protected requests are served. The search by multicast is not protected',
  ),
  lwm2m: described(
    v.optional(
      v.strictObject({
        bootstrap: described(
          v.optional(v.boolean(), true),
          'Ask the gateway for an account first. If false, the client registers with the gateway that it finds',
        ),
        lifetime: described(
          v.optional(integerBetween(1, 31_536_000), 300),
          'Lifetime of its registration in seconds, unless a bootstrap gives another',
        ),
        'bootstrap-identity': described(
          v.optional(text),
          'Identity of the pre-shared key for the bootstrap; by default the endpoint name',
        ),
        'bootstrap-key': described(
          v.optional(v.pipe(secret, v.check(isKey, '8 or more pairs of hexadecimal digits behind hex:'))),
          'Pre-shared key for the bootstrap over DTLS: text, or hexadecimal digits behind `hex:`. `device.factory-secret` gives one too',
        ),
        'queue-mode': described(
          v.optional(v.boolean(), false),
          'Register in queue mode, as a client that sleeps',
        ),
      }),
    ),
    'Run as an LwM2M client instead of an OMA DM client. The DevId is the endpoint name',
  ),
  'dm-server': described(
    v.optional(
      v.strictObject({
        id: described(identifier, 'ServerID of the DM server of the factory account'),
        'client-secret': described(secret, 'Secret of this device towards the DM server'),
        'client-auth': authSchemes(
          'Schemes that this device may use: `basic`, `md5`, `mac`. It begins with the first',
        ),
        'server-secret': described(secret, 'Secret of the DM server towards this device'),
        'server-auth': authSchemes('Schemes that the DM server may use'),
      }),
    ),
    'The factory account of the device, if any',
  ),
  gwmo: gwmoSection,
  log: logSection,
});

/** The reference End Device's configuration file. */
export const deviceConfigSchema = v.pipe(
  deviceTables,
  v.check(
    (config) => config.lwm2m === undefined || config['dm-server'] === undefined,
    'the tables [lwm2m] and [dm-server] exclude each other: an LwM2M client has no account for a DM server',
  ),
  v.check(
    (config) => config.lwm2m === undefined || config.bootstrap === undefined,
    'the tables [lwm2m] and [bootstrap] exclude each other: an LwM2M client takes no OMA DM bootstrap document',
  ),
  v.check(
    ({ lwm2m, device }) => lwm2m === undefined || device.pin === undefined,
    'device.pin is for OMA DM; an LwM2M client (table [lwm2m]) does not use it',
  ),
);

export type DeviceConfig = v.InferOutput<typeof deviceConfigSchema>;

/** Keys that are reloaded at SIGHUP. All others take effect at the next start. */
export const deviceReloads: readonly string[] = ['log.level'];
