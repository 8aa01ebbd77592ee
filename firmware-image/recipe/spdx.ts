/** Names of licences in Debian's copyright files, in lower case, that are not those of SPDX. */
const names: Readonly<Record<string, string>> = {
  expat: 'MIT',
  mit: 'MIT',
  x11: 'X11',
  isc: 'ISC',
  zlib: 'Zlib',
  curl: 'curl',
  beerware: 'Beerware',
  'afl-2.1': 'AFL-2.1',
  'apache-2': 'Apache-2.0',
  'apache-2.0': 'Apache-2.0',
  'artistic-2': 'Artistic-2.0',
  'bsd-2-clause': 'BSD-2-Clause',
  'bsd-3-clause': 'BSD-3-Clause',
  bsd3: 'BSD-3-Clause',
  'bsd-4-clause': 'BSD-4-Clause',
  'bsd-4-clause-uc': 'BSD-4-Clause-UC',
  'bzip2-1.0.6': 'bzip2-1.0.6',
  'cc-by-sa-4.0': 'CC-BY-SA-4.0',
  cc0: 'CC0-1.0',
  'cc0-1.0': 'CC0-1.0',
  fsfap: 'FSFAP',
  fsfullr: 'FSFULLR',
  'mit/x11': 'MIT',
  'mpl-2.0': 'MPL-2.0',
  'openldap-2.8': 'OLDAP-2.8',
  'oldap-2.8': 'OLDAP-2.8',
  'unicode-dfs-2016': 'Unicode-DFS-2016',
};

/** The identifier of SPDX for the name of one licence in a Debian copyright file; undefined when there is none. */
export function spdxOf(name: string): string | undefined {
  const gnu = /^(L?GPL)v?-?(\d)(?:\.(\d))?(\+|-or-later|-only)?$/i.exec(name);
  if (!gnu) return names[name.toLowerCase()];
  const [, family = '', major, minor = '0', later] = gnu;
  return `${family.toUpperCase()}-${major}.${minor}-${later === '+' || later === '-or-later' ? 'or-later' : 'only'}`;
}

/** A licence as CycloneDX has it. */
export type BilledLicence =
  | { readonly license: { readonly id: string } | { readonly name: string } }
  | { readonly expression: string };

/**
 * The licences in a Debian copyright file, each once, sorted. A file names the licences of all parts of a source package, so a
 * program may be under fewer. Undefined when the file is not machine-readable. [Debian, Machine-readable debian/copyright 1.0]
 */
export function licencesIn(copyright: string): BilledLicence[] | undefined {
  if (!/^Format:.*copyright-format/im.test(copyright.slice(0, 2000))) return undefined;
  const found = new Set(
    [...copyright.matchAll(/^License:[ \t]*(\S.*)$/gim)].flatMap(([, list = '']) =>
      list
        .split(/,?\s+(?:or|and)\s+|,\s*/i)
        .map((one) => one.trim())
        .filter((one) => one !== ''),
    ),
  );
  const billed = new Set([...found].map((name) => spdxOf(name) ?? `\n${name}`));
  return [...billed]
    .toSorted()
    .map((one) => ({ license: one.startsWith('\n') ? { name: one.slice(1) } : { id: one } }));
}
