import * as v from 'valibot';
import { described, fileOf, port, secret, text } from '../base/config.ts';
import { isKey } from '../wire/secure/oscore/config.ts';

const advertiseRule = 'host:port, as in 192.0.2.1:5683 or [2001:db8::1]:5683';
/** Schema of a host and a port, as a URI has them. */
export const hostAndPort = v.pipe(
  v.string(),
  v.regex(/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$/, advertiseRule),
  v.check((value) => Number(/\d+$/.exec(value)?.[0]) <= 65_535, advertiseRule),
);

const name = v.pipe(text, v.maxBytes(128, 'an identity of at most 128 bytes'));

const deviceTable = v.strictObject({
  identity: described(
    name,
    'Identity of the pre-shared key, as the device sends it in its handshake (RFC 4279)',
  ),
  key: described(
    secret,
    'The pre-shared key: text, or bytes in hexadecimal digits behind `hex:`. Random, of 16 bytes or more',
  ),
});

const rawKeyTable = v.strictObject({
  identity: described(
    name,
    'Name of the device that has the key. An LwM2M client has its endpoint name. A device has several keys while its key is changed',
  ),
  'public-key': described(
    v.optional(v.pipe(text, v.base64('the base64 of a public key (SubjectPublicKeyInfo)'))),
    'The public key: base64 of its SubjectPublicKeyInfo in DER. Its curve is P-256',
  ),
  'public-key-file': described(
    v.optional(fileOf('public-key')),
    'PEM file of the public key, in the place of `public-key`',
  ),
});

const coapsTable = v.strictObject({
  port: described(v.optional(port, 5684), 'UDP port; 0 means a free one'),
  advertise: described(v.optional(hostAndPort), 'Host and port that devices are told, as `coap.advertise`'),
  'certificate-file': described(
    v.optional(fileOf('certificate')),
    'PEM file of the certificate of the gateway for devices with X.509, and of the certificates above it',
  ),
  'key-file': described(
    v.optional(fileOf('private-key')),
    'PEM file of the private key of the gateway (P-256), readable by its user alone. Its public key is the raw public key of the gateway (RFC 7250). Devices that no list has join by their keys, in a join window (`postern join`)',
  ),
  'ca-files': described(
    v.optional(v.array(fileOf('authorities')), []),
    'PEM files of the authorities for certificates of devices. A device has the name that its certificate says: each of these authorities can give any name',
  ),
  'raw-key': described(
    v.optional(v.array(rawKeyTable), []),
    'Devices and their raw public keys. Each key is of one device',
  ),
  device: described(
    v.optional(v.array(deviceTable), []),
    'Devices and their pre-shared keys. Each identity is of one device',
  ),
});

/** The table `[coaps]` of the gateway's configuration. */
export const coapsSection = described(
  v.optional(
    v.pipe(
      coapsTable,
      v.check(
        ({ device }) => new Set(device.map(({ identity }) => identity)).size === device.length,
        'each identity in coaps.device once',
      ),
      v.check(
        ({ device }) => device.every(({ key }) => isKey(key)),
        'pairs of hexadecimal digits behind hex: in coaps.device.key, at least 8 of them',
      ),
      v.check(
        (coaps) => coaps['raw-key'].every((each) => !each['public-key'] !== !each['public-key-file']),
        'one of public-key and public-key-file in coaps.raw-key, and not both',
      ),
      v.check(
        (coaps) =>
          coaps['key-file'] !== undefined ||
          (coaps['certificate-file'] === undefined &&
            coaps['ca-files'].length === 0 &&
            coaps['raw-key'].length === 0),
        'key-file is missing; certificate-file, ca-files and raw-key need it',
      ),
    ),
  ),
  'CoAP over DTLS 1.2 on the interfaces of `coap`, for devices with pre-shared keys, certificates or raw public keys. The factory secrets of `bootstrap.device` and bootstraps give pre-shared keys too. Without this table it is served at its default port, but off if `coap.insecure-plain-coap` is true',
);
