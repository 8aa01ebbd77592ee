import type { BilledLicence } from './spdx.ts';

/** A part of Node that has a version of its own. */
export interface NodePart {
  readonly name: string;
  readonly version: string;
  readonly licences: readonly BilledLicence[];
  /** Name in the list of known vulnerabilities (CPE 2.3). */
  readonly cpe?: string;
}

/** What `process.versions` names: licence by SPDX, and vendor and product in CPE. */
const known: Readonly<Record<string, readonly [licence: string, product?: string]>> = {
  acorn: ['MIT'],
  ada: ['MIT OR Apache-2.0'],
  amaro: ['MIT'],
  ares: ['MIT', 'c-ares:c-ares'],
  brotli: ['MIT', 'google:brotli'],
  cldr: ['Unicode-3.0'],
  icu: ['Unicode-3.0', 'unicode:international_components_for_unicode'],
  libffi: ['MIT', 'libffi_project:libffi'],
  lief: ['Apache-2.0'],
  llhttp: ['MIT', 'llhttp:llhttp'],
  merve: ['MIT'],
  nbytes: ['MIT'],
  ncrypto: ['MIT'],
  nghttp2: ['MIT', 'nghttp2:nghttp2'],
  nghttp3: ['MIT'],
  ngtcp2: ['MIT', 'ngtcp2_project:ngtcp2'],
  openssl: ['Apache-2.0', 'openssl:openssl'],
  simdjson: ['Apache-2.0', 'simdjson:simdjson'],
  simdutf: ['MIT'],
  sqlite: ['blessing', 'sqlite:sqlite'],
  // The database of time zones is in the public domain, for which SPDX has no identifier.
  tz: ['LicenseRef-public-domain'],
  undici: ['MIT', 'nodejs:undici'],
  unicode: ['Unicode-3.0'],
  uv: ['MIT', 'libuv:libuv'],
  uvwasi: ['MIT'],
  v8: ['BSD-3-Clause', 'google:v8'],
  zlib: ['Zlib', 'zlib:zlib'],
  zstd: ['BSD-3-Clause', 'facebook:zstandard'],
};
/** Members of `process.versions` that are numbers of interfaces, and Node itself. */
const noParts = ['node', 'modules', 'napi'];

/** A name in CPE 2.3 of a version of a product. Its own suffix of a version, as `1.3.2.1-motley`, is left out. */
export const cpeOf = (product: string, version: string): string =>
  `cpe:2.3:a:${product}:${version.split('-')[0]}:*:*:*:*:*:*:*`;

/**
 * The parts of a version of Node. All platforms of a version are built from the same source, so those of this process are those of
 * the image.
 * @param versions `process.versions` of the same version of Node
 */
export const nodeParts = (versions: Readonly<Record<string, string | undefined>>): NodePart[] =>
  Object.entries(versions)
    .filter(([name, version]) => version && !noParts.includes(name))
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, version = '']) => {
      const [licence, product] = known[name] ?? [];
      const named: BilledLicence =
        licence === undefined
          ? { license: { name: 'see node/LICENSE in licences.tar.xz' } }
          : licence.includes(' ')
            ? { expression: licence }
            : { license: { id: licence } };
      return { name, version, licences: [named], ...(product && { cpe: cpeOf(product, version) }) };
    });
