import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as original from 'cbor-x';
import { build } from 'esbuild';
import fc from 'fast-check';
import { leaveCborPlain, plainCbor } from '../../build/plain-cbor.ts';
import { checkCbor, lwm2mProfile, plainProfile } from '../../src/base/cbor-profile.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-cbor-'));
after(() => rmSync(folder, { recursive: true }));

/** cbor-x as it is in the bundles. */
async function bundled(): Promise<Pick<typeof original, 'Decoder' | 'Encoder'>> {
  const outfile = join(folder, 'cbor.mjs');
  await build({
    stdin: { contents: "export { Decoder, Encoder, setSizeLimits } from 'cbor-x'", resolveDir: root },
    bundle: true,
    platform: 'node',
    format: 'esm',
    external: ['cbor-extract'],
    plugins: [leaveCborPlain],
    outfile,
    logLevel: 'error',
  });
  return await import(outfile);
}

const plain = await bundled();
const options = { useRecords: false, mapsAsObjects: false, tagUint8Array: false, variableMapSize: true };
const pairs = [original, plain].map((library) => ({
  encoder: new library.Encoder(options),
  decoder: new library.Decoder(options),
}));
const [whole, cut] = [pairs[0]!, pairs[1]!];

const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.nat(400_000).map((length) => 'ä'.repeat(length)),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.integer(),
    fc.maxSafeInteger(),
    fc.bigInt({ min: -(2n ** 64n) + 1n, max: 2n ** 64n - 1n }),
    fc.double(),
    fc.boolean(),
    fc.constant(null),
    fc.constant(undefined),
    text,
    fc.uint8Array({ maxLength: 300 }).map((octets) => Buffer.from(octets)),
    fc.array(tie('value'), { maxLength: 300 }),
    fc
      .array(fc.tuple(fc.oneof(text, fc.integer()), tie('value')), { maxLength: 300 })
      .map((entries) => new Map(entries)),
    fc.dictionary(fc.string(), tie('value')),
  ),
}));

test('whatever Postern writes is the same octets, and is read as the same values', () => {
  fc.assert(
    fc.property(value, (one) => {
      const coded = whole.encoder.encode(one);
      assert.ok(coded.equals(cut.encoder.encode(one)));
      assert.deepEqual(cut.decoder.decode(coded), whole.decoder.decode(coded));
    }),
    { numRuns: 500 },
  );
});

/** What a decoder makes of octets: a value, or that it throws. */
const outcome = (decode: (coded: Uint8Array) => unknown, coded: Uint8Array): unknown => {
  try {
    return { value: decode(coded) };
  } catch (thrown) {
    return { thrown: String(thrown) };
  }
};

test('octets that a profile lets through, also with tags, floats and indefinite lengths, come to the same', () => {
  const head = fc.constantFrom(
    ...['00', '1818', '20', '390100', '40', '43010203', '60', '63414243', '80', '81', '82', '84'],
    ...[
      'a0',
      'a1',
      'a2',
      'c0',
      'c1',
      'c4',
      'f4',
      'f5',
      'f6',
      'f97e00',
      'f93c00',
      'fa47c35000',
      'fb3ff199999999999a',
    ],
    ...[
      '9f',
      'bf',
      'ff',
      '1b0020000000000000',
      '3bffffffffffffffff',
      '78186162636465666768696a6b6c6d6e6f7071727374757677',
    ],
  );
  let read = 0;
  fc.assert(
    fc.property(fc.array(head, { maxLength: 12 }), (parts) => {
      const coded = Buffer.from(parts.join(''), 'hex');
      for (const profile of [plainProfile, lwm2mProfile]) {
        try {
          checkCbor(coded, profile, 'it');
        } catch {
          continue;
        }
        const [one, other] = [whole, cut].map(({ decoder }) =>
          outcome((octets) => decoder.decode(octets), coded),
        );
        assert.deepEqual(other, one);
        read++;
      }
    }),
    { numRuns: 20_000 },
  );
  assert.ok(read > 500, `${read} documents were read`);
});

test('another version of the package, in which a part is missing, fails the build with the name of the part', async () => {
  const source = readFileSync(join(root, 'node_modules/cbor-x/encode.js'), 'utf8');
  await assert.rejects(
    plainCbor(source.replace('this.mapEncode = function', 'this.mapping = function'), 'encode.js'),
    {
      message: 'encode.js of cbor-x: "this.mapEncode = function" is there 0 times',
    },
  );
});

test('the parts that plain CBOR has not are left out', async () => {
  for (const [file, parts] of [
    ['encode.js', ['findRepetitiveStrings', 'writeBundles(', 'encodeObjectAsIterable', 'RECORD_SYMBOL']],
    ['decode.js', ['createStructureReader', 'registerTypedArray(', 'new Function', 'readBundleExt']],
  ] as const) {
    const source = readFileSync(join(root, `node_modules/cbor-x/${file}`), 'utf8');
    const left = await plainCbor(source, file);
    for (const part of parts) {
      assert.ok(source.includes(part), part);
      assert.ok(!left.includes(part), `${part} is still in ${file}`);
    }
  }
});
