import { createSign, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { type Certificates, ownKey, peerTrust } from '../../../../src/wire/secure/dtls/certificates.ts';

/** What a certificate says. Each has a default that a device's certificate would have. */
export interface CertificateOptions {
  readonly commonNames?: readonly string[];
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  /** Of IPv4. */
  readonly ipAddresses?: readonly string[];
  readonly from?: Date;
  readonly until?: Date;
  readonly curve?: string;
  readonly isAuthority?: boolean;
  readonly pathLength?: number;
  /** First byte of the key usage. */
  readonly keyUsage?: number;
  /** Last number of the purpose below 1.3.6.1.5.5.7.3: 1 for servers, 2 for clients. */
  readonly purposes?: readonly number[];
  /** Content of a critical extension that constrains names. */
  readonly hasNameConstraints?: boolean;
  readonly digest?: 'sha256' | 'sha1';
  /** Bytes of an extension that nobody knows, to make the certificate long. */
  readonly padding?: number;
}

/** A certificate with its private key. */
export interface Issued {
  readonly der: Buffer;
  readonly pem: string;
  readonly key: KeyObject;
  readonly keyPem: string;
  readonly publicPem: string;
  readonly subject: Buffer;
}

const tlv = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
};
const sequence = (...parts: readonly Uint8Array[]) => tlv(0x30, ...parts);
const oid = (hex: string) => tlv(6, Buffer.from(hex, 'hex'));
const boolean = Buffer.from('0101ff', 'hex');
const algorithms = { sha256: '2a8648ce3d040302', sha1: '2a8648ce3d0401' } as const;
const time = (date: Date) => tlv(0x18, Buffer.from(date.toISOString().replace(/[-:T]|\.\d+/g, '')));
const extension = (id: string, isCritical: boolean, value: Uint8Array) =>
  sequence(oid(id), ...(isCritical ? [boolean] : []), tlv(4, value));

function extensionsOf(options: CertificateOptions): Buffer[] {
  const { uris = [], dnsNames = [], ipAddresses = [], isAuthority, pathLength, keyUsage, purposes } = options;
  const names = [
    ...uris.map((uri) => tlv(0x86, Buffer.from(uri))),
    ...dnsNames.map((name) => tlv(0x82, Buffer.from(name))),
    ...ipAddresses.map((address) => tlv(0x87, Buffer.from(address.split('.').map(Number)))),
  ];
  const limit = pathLength === undefined ? [] : [tlv(2, Buffer.from([pathLength]))];
  return [
    ...(isAuthority ? [extension('551d13', true, sequence(boolean, ...limit))] : []),
    ...(keyUsage === undefined ? [] : [extension('551d0f', true, tlv(3, Buffer.from([0, keyUsage])))]),
    ...(purposes
      ? [
          extension(
            '551d25',
            false,
            sequence(...purposes.map((last) => oid(`2b060105050703${Buffer.from([last]).toString('hex')}`))),
          ),
        ]
      : []),
    ...(names.length > 0 ? [extension('551d11', false, sequence(...names))] : []),
    ...(options.hasNameConstraints
      ? [extension('551d1e', true, sequence(tlv(0xa0, sequence(tlv(0x82, Buffer.from('example'))))))]
      : []),
    ...(options.padding === undefined
      ? []
      : [extension('2a0304', false, tlv(4, Buffer.alloc(options.padding)))]),
  ];
}

const pemOf = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${der
    .toString('base64')
    .match(/.{1,64}/g)!
    .join('\n')}\n-----END CERTIFICATE-----\n`;

/** Makes a certificate (RFC 5280 section 4.1). It is signed by itself without an issuer. */
export function issue(options: CertificateOptions, issuer?: Pick<Issued, 'key' | 'subject'>): Issued {
  const { commonNames = [], curve = 'P-256', digest = 'sha256' } = options;
  const { from = new Date('2020-01-01'), until = new Date('2099-01-01') } = options;
  const { privateKey: key, publicKey } = generateKeyPairSync('ec', { namedCurve: curve });
  const subject = sequence(
    ...commonNames.map((name) => tlv(0x31, sequence(oid('550403'), tlv(12, Buffer.from(name))))),
  );
  const algorithm = sequence(oid(algorithms[digest]));
  const extensions = extensionsOf(options);
  const body = sequence(
    tlv(0xa0, tlv(2, Buffer.from([2]))),
    tlv(2, Buffer.from([1]), randomBytes(8)),
    algorithm,
    issuer?.subject ?? subject,
    sequence(time(from), time(until)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    ...(extensions.length > 0 ? [tlv(0xa3, sequence(...extensions))] : []),
  );
  const signature = createSign(digest)
    .update(body)
    .sign(issuer?.key ?? key);
  const der = sequence(body, algorithm, tlv(3, Buffer.from([0]), signature));
  return {
    der,
    pem: pemOf(der),
    key,
    keyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    subject,
  };
}

/** The certificate of an authority. */
export const authority = (name: string, options: CertificateOptions = {}, issuer?: Issued): Issued =>
  issue({ commonNames: [name], isAuthority: true, keyUsage: 0x06, ...options }, issuer);

/** What an end has and believes. */
export const certificatesOf = (
  own: Issued,
  {
    chain = [own],
    authorities = [],
    rawKeys = {},
  }: {
    readonly chain?: readonly Issued[];
    readonly authorities?: readonly Issued[];
    readonly rawKeys?: Readonly<Record<string, Issued>>;
  },
): Certificates => {
  const key = ownKey(own.keyPem, chain.length > 0 ? chain.map(({ pem }) => pem).join('') : undefined);
  const named = Object.entries(rawKeys).map(([name, { publicPem }]) => [name, publicPem] as const);
  return {
    own: key,
    trust: peerTrust(
      key,
      authorities.map(({ pem }) => pem),
      named,
    ),
  };
};
