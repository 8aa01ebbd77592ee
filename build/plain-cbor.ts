// A plugin of esbuild: leaves out of cbor-x what plain CBOR (RFC 8949) has not. cbor-x chooses its own extensions by options at run
// time, so a bundler cannot see that the options of src/base/cbor.ts never ask for them: records, shared structures, packed and
// bundled strings, maps as objects, typed arrays, dates, references, and encoding piece by piece. The checks of src/base/cbor-profile.ts
// let through no tag but 0, 1 and 4.
import { readFile } from 'node:fs/promises';
import type { Plugin } from 'esbuild';
import { minify } from 'terser';

/** A part of a source: from one text up to another one, or one text. What comes in its place may be nothing. */
interface Change {
  readonly from: string;
  /** The text that the part ends before. The part is `from` alone when absent. */
  readonly to?: string;
  readonly by?: string;
  /** All places. Otherwise `from` must be there once. */
  readonly all?: true;
}

const never = (...texts: string[]): Change[] => texts.map((from) => ({ from, by: 'false', all: true }));

const changes: Readonly<Record<string, readonly Change[]>> = {
  'encode.js': [
    ...never(
      'options.structures || options.saveStructures',
      'options.sequential',
      'encoder.useSelfDescribedHeader',
      'encoder.structuredClone',
      'encoder.bundleStrings',
      'encoder.keyMap',
      'options.pack',
      'this.alwaysUseFloat',
      'this.skipFunction',
      'this.useToJSON',
      'this.mapsAsObjects ? this.useTag259ForMaps !== false : this.useTag259ForMaps',
    ),
    { from: '(useFloat32 = this.useFloat32) > 0', by: 'false' },
    { from: 'let useFloat32\n', by: '\n' },
    { from: 'options.sharedValues', by: 'undefined' },
    { from: 'let typeBuffer\n', by: '\n' },
    { from: 'let sharedStructures\n', by: 'const sharedStructures = undefined, encodeOptions = 0\n' },
    { from: 'let hasSharedUpdate\n', by: 'const hasSharedUpdate = false\n' },
    { from: 'let referenceMap\n', by: 'const referenceMap = null\n' },
    {
      from: 'let samplingPackedValues, packedObjectMap, sharedValues',
      by: 'const samplingPackedValues = null, packedObjectMap = null; let sharedValues',
    },
    { from: 'this.mapEncode = function', to: 'this.encode = function' },
    { from: 'this.encode = function(value, encodeOptions)', by: 'this.encode = function(value)' },
    { from: 'referenceMap = false ? new Map() : null' },
    { from: 'if (false && typeof value', to: 'throwOnIterable = encodeOptions' },
    { from: 'throwOnIterable = encodeOptions & THROW_ON_ITERABLE;' },
    { from: 'referenceMap = null\n\t\t\t\t\treturn', by: 'return' },
    { from: 'this.findCommonStringsToPack = ', to: 'const encode = (value) => {' },
    { from: 'if (bundledStrings && strLength', to: 'let headerSize' },
    {
      from: 'const writeObject = this.useRecords === false ? this.variableMapSize ? ',
      by: 'const writeObject = ',
    },
    {
      from: ':\n\t\t(object) => {\n\t\t\ttarget[position++] = 0xb9 // always',
      to: 'const makeRoom = (end) => {',
      by: ';\n',
    },
    { from: 'let chunkThreshold = 100;', to: '}\n\tuseBuffer(buffer)' },
    { from: 'useBuffer(buffer)', to: '}\nfunction writeEntityLength' },
    { from: 'let throwOnIterable\n', by: 'const throwOnIterable = 0\n' },
    { from: 'let bundledStrings = null' },
    { from: 'if (bundledStrings && bundledStrings.position) {', to: 'encoder.offset = position // update' },
    { from: 'function writeBundles', to: 'export function addExtension' },
    {
      from: 'extensionClasses = [ Date',
      to: '//Object.getPrototypeOf',
      by: 'extensionClasses = [ Uint8Array ]\n',
    },
    { from: '{ // Date\n', to: '{ // Uint8Array' },
    { from: ',\n\ttypedArrayEncoder(68', to: 'function typedArrayEncoder', by: ']\n' },
    {
      from: 'export const encodeAsIterable = ',
      to: 'export { FLOAT32_OPTIONS }',
      by: 'export const encodeAsIterable = undefined, encodeAsAsyncIterable = undefined\n',
    },
  ],
  'decode.js': [
    { from: 'if (restoreMapsAsObject) {', to: 'let map = new Map()' },
    { from: 'if (restoreMapsAsObject) {', to: 'if (token > maxMapSize)' },
    { from: 'currentExtensions[5] = ', to: 'function readBundleExt', by: 'export const typedArrays = []\n' },
    ...never(
      'currentDecoder.mapsAsObjects',
      'currentDecoder.keyMap',
      'currentDecoder.useFloat32 > 2',
      'currentDecoder.int64AsNumber',
      'currentDecoder.copyBuffers',
      'currentDecoder.getShared',
    ),
    { from: 'if (token >= BUNDLED_STRINGS_ID) {', by: 'if (false) {' },
    { from: '(packedValues || getPackedValues())[token]', by: 'undefined' },
    { from: 'if ((options.keyMap', to: 'Object.assign(this, options)', by: '}\n' },
    { from: '/*\n\tdecodeKey(key) {', to: 'decode(source, end) {' },
    { from: 'decodeMultiple(source, forEach) {', to: '}\nexport function getPosition' },
    { from: 'currentExtensions[2] = ', to: 'currentExtensions[4] = ' },
    { from: 'const builtinScanTags', to: 'export function addExtension', by: 'export const _stream = {}\n' },
    { from: "new Function('')", by: '' },
    {
      from: 'export const decodeMultiple = defaultDecoder.decodeMultiple',
      by: 'export const decodeMultiple = undefined',
    },
  ],
};

/**
 * The source of a module of cbor-x without the parts that `changes` names.
 * @throws {Error} when a part is not there, as in another version of the package
 */
export async function plainCbor(source: string, file: string): Promise<string> {
  let text = source;
  for (const { from, to, by = '', all } of changes[file] ?? []) {
    const parts = text.split(from);
    if (parts.length < 2 || (parts.length > 2 && !all && to === undefined))
      throw new Error(`${file} of cbor-x: "${from}" is there ${parts.length - 1} times`);
    if (all) text = parts.join(by);
    else {
      const start = text.indexOf(from);
      const end = to === undefined ? start + from.length : text.indexOf(to, start);
      if (end < 0) throw new Error(`${file} of cbor-x: "${to}" does not follow "${from}"`);
      text = text.slice(0, start) + by + text.slice(end);
    }
  }
  const compress = {
    defaults: false,
    dead_code: true,
    conditionals: true,
    evaluate: true,
    unused: true,
    toplevel: true,
    reduce_vars: true,
    booleans: true,
    passes: 3,
  };
  const { code } = await minify(text, { module: true, compress, mangle: false, format: { beautify: true } });
  return code ?? '';
}

export const leaveCborPlain: Plugin = {
  name: 'plain-cbor',
  setup(context) {
    context.onLoad({ filter: /\/node_modules\/cbor-x\/(encode|decode)\.js$/ }, async ({ path }) => {
      const file = path.slice(path.lastIndexOf('/') + 1);
      return { contents: await plainCbor(await readFile(path, 'utf8'), file), loader: 'js' };
    });
  },
};
