import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSpared, leaveOneLanguage } from '../../firmware-image/recipe/one-language.ts';

/** A program that contains ICU data with these items. The data of an item is its name as text. */
function programWith(names: readonly string[]): Buffer {
  const header = Buffer.alloc(32);
  header.writeUInt16LE(header.length);
  header.set([0xda, 0x27, 0x14, 0, 0, 0, 0, 0, 2, 0], 2);
  header.write('CmnD', 12);
  const texts = names.map((name) => Buffer.from(`${name}\0`));
  const table = Buffer.alloc(4 + 8 * names.length);
  table.writeUInt32LE(names.length);
  let name = table.length;
  let data = name + texts.reduce((sum, text) => sum + text.length, 0);
  for (const [index, text] of texts.entries()) {
    table.writeUInt32LE(name, 4 + 8 * index);
    table.writeUInt32LE(data, 8 + 8 * index);
    name += text.length;
    data += text.length;
  }
  return Buffer.concat([Buffer.from('code before'), header, table, ...texts, ...texts, Buffer.from('after')]);
}

/** The items that ICU finds in a program, with their data. */
function itemsOf(program: Buffer): Record<string, string> {
  const table = program.indexOf('CmnD') + 20;
  const textAt = (at: number) => program.toString('latin1', at, program.indexOf(0, at));
  const entries = Array.from({ length: program.readUInt32LE(table) }, (_, index) =>
    [0, 4].map((more) => textAt(table + program.readUInt32LE(table + 4 + 8 * index + more))),
  );
  return Object.fromEntries(entries);
}

test('other languages, dictionaries and legacy encodings are removed; English and data without a language stay', () => {
  const spared = [
    'icudt78l/de.res',
    'icudt78l/sr_Latn_BA.res',
    'icudt78l/lang/zh_Hant.res',
    'icudt78l/ibm-37_P100-1995.cnv',
    'icudt78l/brkitr/thaidict.dict',
    'icudt78l/translit/el.res',
    'icudt78l/rbnf/en.res',
    'icudt78l/unames.icu',
    'icudt78l/confusables.cfu',
    'icudt78l/brkitr/line_loose_cj.brk',
  ];
  const kept = [
    'icudt78l/en.res',
    'icudt78l/root.res',
    'icudt78l/brkitr/line.brk',
    'icudt78l/supplementalData.res',
    'icudt78l/zoneinfo64.res',
    'icudt78l/lang/pool.res',
    'icudt78l/curr/res_index.res',
    'icudt78l/zone/en.res',
    'icudt78l/cnvalias.icu',
    'icudt78l/coll/ucadata.icu',
  ];
  assert.deepEqual(spared.filter(isSpared), spared);
  assert.deepEqual(kept.filter(isSpared), []);
});

test('removed items are not in the table and their data are zeros; all other items stay in place', () => {
  const names = ['x/de.res', 'x/en.res', 'x/fr.res', 'x/root.res', 'x/zoneinfo64.res'];
  const program = programWith(names);
  const before = Buffer.from(program);
  assert.equal(leaveOneLanguage(program), 'x/de.res'.length + 1 + 'x/fr.res'.length + 1);
  assert.equal(program.length, before.length);
  const left = ['x/en.res', 'x/root.res', 'x/zoneinfo64.res'];
  assert.deepEqual(itemsOf(program), Object.fromEntries(left.map((name) => [name, name])));
  assert.equal(program.toString('latin1').split('x/de.res').length, 2, 'the name stays, the data do not');
  assert.equal(program.indexOf('code before'), 0);
  assert.equal(program.toString('latin1').endsWith('after'), true);
});

test('a program without ICU data, or with two sets, is refused', () => {
  assert.throws(() => leaveOneLanguage(Buffer.from('a program')), /no ICU data/);
  const program = programWith(['x/en.res']);
  assert.throws(() => leaveOneLanguage(Buffer.concat([program, program])), /more than one/);
});
