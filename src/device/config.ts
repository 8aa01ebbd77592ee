import * as v from 'valibot';
import {
  authSchemes,
  described,
  identifier,
  integerBetween,
  logSection,
  port,
  secret,
  text,
} from '../base/config.ts';
import { gwmoSection } from '../mo/vocabulary.ts';

/** The reference End Device's configuration file. */
export const deviceConfigSchema = v.strictObject({
  device: v.strictObject({
    id: described(
      v.pipe(
        v.string(),
        v.minLength(1, 'a device ID'),
        v.maxLength(200, 'a device ID of at most 200 characters'),
      ),
      'DevInfo/DevId, a URN',
    ),
    manufacturer: described(v.optional(text, 'Postern'), 'DevInfo/Man'),
    model: described(v.optional(text, 'Reference End Device'), 'DevInfo/Mod'),
    firmware: described(v.optional(text, '1.0.0'), 'DevDetail/FwV'),
    'factory-secret': described(
      v.optional(secret),
      'Secret for the local bootstrap server (GwMO 8.4.2); without it the device waits for its DM server to assist',
    ),
    pin: described(
      v.optional(text),
      'A PIN that protects the bootstrap besides the factory secret, if its bootstrap server has one for it',
    ),
    state: described(
      v.optional(text, ':memory:'),
      'File that holds accounts and settings; `:memory:` forgets them',
    ),
    encoding: described(
      v.optional(v.picklist(['xml', 'wbxml', 'cbor'], '"xml", "wbxml" or "cbor"'), 'xml'),
      'Coding of DM packages',
    ),
  }),
  network: v.optional(
    v.strictObject({
      gateway: described(
        v.optional(v.pipe(v.string(), v.regex(/^coap:\/\/\S+$/, 'a URI such as coap://192.0.2.1:5683'))),
        'Where the gateway is; found by multicast when absent',
      ),
      'multicast-port': described(v.optional(port, 5683), 'Port that discovery asks'),
      interface: described(
        v.optional(text, '0.0.0.0'),
        'IPv4 address of the own interface, for its socket and its multicast',
      ),
    }),
    {},
  ),
  bootstrap: described(
    v.optional(
      v.strictObject({
        file: described(
          text,
          'A bootstrap that somebody brought: DM profile or Client Provisioning document',
        ),
        type: described(
          text,
          'Its content type with the protection, such as `application/vnd.wap.connectivity-wbxml; SEC=NETWPIN; MAC=…`',
        ),
      }),
    ),
    'A bootstrap document that is applied once, at the first start (OMA DM bootstrap, customized bootstrap)',
  ),
  lwm2m: described(
    v.optional(
      v.strictObject({
        bootstrap: described(
          v.optional(v.boolean(), true),
          'Ask the gateway for an account first; else it registers with the gateway that it finds',
        ),
        lifetime: described(
          v.optional(integerBetween(1, 31_536_000), 300),
          'Seconds within which it renews its registration, where no bootstrap says otherwise',
        ),
        'queue-mode': described(v.optional(v.boolean(), false), 'Whether it says that it sleeps'),
      }),
    ),
    'It is an LwM2M client instead of an OMA DM client; its DevId is its endpoint name',
  ),
  'dm-server': described(
    v.optional(
      v.strictObject({
        id: described(identifier, 'ServerID of the DM server that the factory gave an account for'),
        'client-secret': described(secret, 'Secret by which this device proves itself to it'),
        'client-auth': authSchemes(
          'How this device may prove itself: `basic`, `md5`, `mac`; the first is what it begins with',
        ),
        'server-secret': described(secret, 'Secret by which it proves itself to this device'),
        'server-auth': authSchemes('How it may prove itself'),
      }),
    ),
    'The account that the device left its factory with, if any',
  ),
  gwmo: gwmoSection,
  log: logSection,
});

export type DeviceConfig = v.InferOutput<typeof deviceConfigSchema>;
