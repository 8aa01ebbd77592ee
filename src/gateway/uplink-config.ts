import { isIP } from 'node:net';
import * as v from 'valibot';
import { authSchemes, described, identifier, integerBetween, namePattern, secret } from '../base/config.ts';
import { isCoapUri, parseCoapUri } from '../wire/coap/uri.ts';

/** The table `[budget]` of the gateway's configuration. */
export const budgetSection = described(
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
);

/** Whether the parent is reached over DTLS. */
export const isSecureUri = (uri: string): boolean => isCoapUri(uri, ['coaps']);

/** A name would have no address in the answers of the parent, by which they are known. */
const isParentUri = (uri: string): boolean =>
  isCoapUri(uri, ['coap', 'coaps']) && isIP(parseCoapUri(uri).host.replace(/%.*$/, '')) > 0;

const parentTable = v.strictObject({
  id: described(identifier, 'Name of the parent gateway'),
  uri: described(
    v.pipe(v.string(), v.check(isParentUri, 'a URI with an IP address, such as coaps://192.0.2.1:5684')),
    'Address of the parent gateway over DTLS. A link-local address has its zone, as in `coaps://[fe80::1%25eth0]:5684`',
  ),
  'factory-secret': described(
    secret,
    "Secret of this gateway for the parent's bootstrap server. It also gives the key for DTLS of the bootstrap; the account has the key for all else",
  ),
  'insecure-plain-coap': described(
    v.optional(v.boolean(), false),
    'Allow a URI with `coap:`: this gateway and its parent then speak without DTLS, and the parent needs `coap.insecure-plain-coap`. Anyone between them can read the secrets of the bootstrap, and speak for either',
  ),
});

/** The table `[parent]`. */
export const parentSection = described(
  v.optional(
    v.pipe(
      parentTable,
      v.check(
        (parent) => isSecureUri(parent.uri) || parent['insecure-plain-coap'],
        'a uri that begins with coaps: in [parent], such as coaps://192.0.2.1:5684; or insecure-plain-coap = true beside it, which leaves the way to the parent without security',
      ),
    ),
  ),
  'A gateway above this one, instead of a broker (GwMO 1.1). This gateway is a device of it and reports to it',
);

/** The table `[dm-server]`. */
export const dmServerSection = v.strictObject({
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
});

/** The table `[tunnel]`. */
export const tunnelSection = v.optional(
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
      v.optional(v.array(namePattern), ['*']),
      'DevIds, or beginnings of DevIds followed by `*`, of devices that may use the tunnel although this gateway does not know them. Devices that it knows (attached, bootstrapped, expected, or listed in `bootstrap.device` or `http.device`) always may. A rate that is fixed bounds what comes in their names from where they have not proved themselves. By default any device, at `device-rate`',
    ),
    'device-rate': described(
      v.optional(integerBetween(1, 1_000_000), 600),
      'Packages per minute of all devices together that only match `devices`, until the DM server has accepted them. One network (/24 or /64) gets half of them, one address a twentieth',
    ),
  }),
  {},
);
