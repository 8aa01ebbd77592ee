/**
 * Takes from Node what it knows of languages, scripts and legacy encodings: 28 MB of ICU's data, 10 MB of each update bundle,
 * of which a gateway that speaks to machines uses nothing. English is left, and all that is of no language.
 *
 * ICU's data are one common data package: a header, a count, as many pairs of offsets (name, data) sorted by name, the names,
 * the data. What is not in the table is not there: ICU falls back, as it does in a build with fewer languages.
 * [ICU, User Guide, ICU Data; ucmndata.h]
 */
const startsWith = Buffer.from([0xda, 0x27, 0x14, 0, 0, 0, 0, 0, 2, 0, 0x43, 0x6d, 0x6e, 0x44]);

/** Names of resources that are of no language: beside English and the root, these stay in every folder. */
const ofNoLanguage = /^(root|en|en_US|pool|res_index)$/;
/** Names of locales: `de`, `sr_Latn_BA`, `zh_Hant`. What is longer, such as supplementalData, is about all of them. */
const locale = /^[a-z]{2,3}(_[A-Za-z0-9]+)*$/;

/** Whether a gateway can do without this item of ICU's data. */
export function isSpared(item: string): boolean {
  const path = item.slice(item.indexOf('/') + 1);
  if (/\.(cnv|dict)$/.test(path) || /^(translit|rbnf)\//.test(path)) return true;
  const name = /([^/]+)\.res$/.exec(path)?.[1];
  return name !== undefined && !ofNoLanguage.test(name) && locale.test(name);
}

/**
 * Changes a program that has ICU's data in it.
 * @returns how many bytes of them are now zeros
 * @throws {Error} when the data are not found, or are not what they should be
 */
export function leaveOneLanguage(program: Buffer): number {
  // Two octets before the magic number tell how long the header is.
  const start = program.indexOf(startsWith) - 2;
  if (start < 0 || program.indexOf(startsWith, start + 3) >= 0)
    throw new Error('the program has no ICU data of its own, or more than one set of them');
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
    // Where the last one ends stands nowhere.
    if (end === undefined || !isSpared(name))
      program.copyWithin(entryAt(kept++), entryAt(index), entryAt(index + 1));
    else {
      if (end < at) throw new Error(`ICU's data are not in the order of their names: ${name}`);
      program.fill(0, at, end);
      zeroed += end - at;
    }
  }
  program.writeUInt32LE(kept, table);
  return zeroed;
}
