import * as v from 'valibot';
import { authSchemes, described, identifier, logSection, port, secret, text, whole } from '../base/config.ts';
import { gwmoSection } from '../mo/vocabulary.ts';

/** Schema of the reference End Device's configuration file. */
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
      'Secret for the local bootstrap server (GwMO 8.4.2); without it the device waits for assisted bootstrap by its DM server',
    ),
    pin: described(
      v.optional(text),
      'PIN that protects the bootstrap in addition to the factory secret, if the bootstrap server has one for the device',
    ),
    state: described(
      v.optional(text, ':memory:'),
      'File that holds accounts and settings; with `:memory:` they are lost when the device stops',
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
        'URI of the gateway; without it the device finds one by multicast',
      ),
      'multicast-port': described(
        v.optional(port, 5683),
        'UDP port to which the discovery by multicast is sent',
      ),
      interface: described(
        v.optional(text, '0.0.0.0'),
        'IPv4 address of the interface that the device uses, for its socket and for multicast',
      ),
    }),
    {},
  ),
  bootstrap: described(
    v.optional(
      v.strictObject({
        file: described(text, 'Path of the document: DM profile or Client Provisioning'),
        type: described(
          text,
          'Content type of the document with its protection, such as `application/vnd.wap.connectivity-wbxml; SEC=NETWPIN; MAC=…`',
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
          'Whether the device first asks the gateway for a bootstrap; otherwise it registers directly with the gateway that it finds',
        ),
        lifetime: described(
          v.optional(whole(1, 31_536_000), 300),
          'Lifetime of the registration in seconds, unless a bootstrap gives another one',
        ),
        'queue-mode': described(
          v.optional(v.boolean(), false),
          'Whether the device registers with Queue Mode, as a device that sleeps',
        ),
      }),
    ),
    'With this table the device is an LwM2M client instead of an OMA DM client; its DevId is the endpoint name',
  ),
  'dm-server': described(
    v.optional(
      v.strictObject({
        id: described(identifier, 'ServerID of the DM server'),
        'client-secret': described(secret, 'Secret by which the device authenticates to the DM server'),
        'client-auth': authSchemes(
          'Schemes by which the device may authenticate: `basic`, `md5`, `mac`; it begins with the first',
        ),
        'server-secret': described(secret, 'Secret by which the DM server authenticates to the device'),
        'server-auth': authSchemes('Schemes by which the DM server may authenticate'),
      }),
    ),
    'Account for a DM server that the device has from its factory, if any',
  ),
  gwmo: gwmoSection,
  log: logSection,
});

export type DeviceConfig = v.InferOutput<typeof deviceConfigSchema>;
