/**
 * Removes from Node the data of languages, scripts and legacy encodings: 28 MB of ICU's data, which are 10 MB of each update
 * bundle. A gateway talks to machines and uses none of them. English stays, and so does all data without a language.
 *
 * ICU's data are one common data package: a header, a count, as many pairs of offsets (name, data) sorted by name, the
 * names, the data. An item that is not in the table does not exist for ICU, which then falls back as in a build with fewer
 * languages. [ICU, User Guide, ICU Data; ucmndata.h]
 */
const startsWith = Buffer.from([0xda, 0x27, 0x14, 0, 0, 0, 0, 0, 2, 0, 0x43, 0x6d, 0x6e, 0x44]);

/** Names of resources that stay in every folder: the root, English, and two names that are not locales. */
const keptNames = /^(root|en|en_US|pool|res_index)$/;
/** Names of locales: `de`, `sr_Latn_BA`, `zh_Hant`. Longer names, such as supplementalData, concern all locales. */
const locale = /^[a-z]{2,3}(_[A-Za-z0-9]+)*$/;

/**
 * Whether an item of ICU's data is removed.
 * @param item its name in the data package, such as `icudt78l/lang/de.res`
 */
export function isSpared(item: string): boolean {
  const path = item.slice(item.indexOf('/') + 1);
  if (/\.(cnv|dict)$/.test(path) || /^(translit|rbnf|brkitr\/line_)/.test(path)) return true;
  // Names of characters, and characters that look alike. Nothing in Node asks for them.
  if (/^(unames\.icu|confusables\.cfu)$/.test(path)) return true;
  const name = /([^/]+)\.res$/.exec(path)?.[1];
  return name !== undefined && !keptNames.test(name) && locale.test(name);
}

/**
 * Removes the items for which `isSpared` is true from a program with ICU's data, in place.
 * @returns how many bytes were replaced by zeros
 * @throws {Error} when the program does not have exactly one set of ICU's data, or the data have an unexpected form
 */
export function leaveOneLanguage(program: Buffer): number {
  // The two octets before the magic number are the length of the header.
  const start = program.indexOf(startsWith) - 2;
  if (start < 0 || program.indexOf(startsWith, start + 3) >= 0)
    throw new Error('the program has no ICU data, or more than one set');
  const table = start + program.readUInt16LE(start);
  const count = program.readUInt32LE(table);
  const entryAt = (index: number) => table + 4 + 8 * index;
  const items = Array.from({ length: count }, (_, index) => {
    const name = table + program.readUInt32LE(entryAt(index));
    return {
      name: program.toString('latin1', name, program.indexOf(0, name)),
      at: table + program.readUInt32LE(entryAt(index) + 4),
    };
  });
  let [kept, zeroed] = [0, 0];
  for (const [index, { name, at }] of items.entries()) {
    const end = items[index + 1]?.at;
    // An item ends where the next one begins. The end of the last item is not known, so it always stays.
    if (end === undefined || !isSpared(name))
      program.copyWithin(entryAt(kept++), entryAt(index), entryAt(index + 1));
    else {
      if (end < at) throw new Error(`ICU's data are not in the order of their names, at ${name}`);
      program.fill(0, at, end);
      zeroed += end - at;
    }
  }
  program.writeUInt32LE(kept, table);
  return zeroed;
}
