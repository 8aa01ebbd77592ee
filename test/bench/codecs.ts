// `npm run bench:codecs`: DM packages decoded and encoded per second in each coding, against the bare XML parser and
// JSON of the same content. `--quick` for a look, `--write` for the docs.
import { readdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { SaxesParser } from 'saxes';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { machine, median, spread, writeSection } from './report.ts';

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } });
const rounds = flags.quick ? 3 : 9;
/** Milliseconds of one measurement. */
const slice = flags.quick ? 100 : 400;

const folder = new URL('../vectors/messages/', import.meta.url);
/** Packages as sessions have them; the ones with long values would measure copying alone. */
const messages: readonly SyncmlMessage[] = readdirSync(folder)
  .filter((file) => /^(package|get|add-|replace|alert-(generic|device)|results)/.test(file))
  .map((file) => decodeMessage(readFileSync(new URL(file, folder)), MediaType.Xml));

/** Octets go as base64 in JSON, as everybody does it. */
const replacer = (_key: string, value: unknown) =>
  value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;

interface Contender {
  readonly name: string;
  readonly bytes: number;
  readonly decode: () => void;
  readonly encode?: () => void;
}

const ofCoding = (name: string, mediaType: string): Contender => {
  const coded = messages.map((message) => encodeMessage(message, mediaType));
  return {
    name,
    bytes: coded.reduce((sum, { length }) => sum + length, 0) / coded.length,
    decode: () => {
      for (const one of coded) decodeMessage(one, mediaType);
    },
    encode: () => {
      for (const message of messages) encodeMessage(message, mediaType);
    },
  };
};

const xml = messages.map((message) => Buffer.from(encodeMessage(message, MediaType.Xml)).toString());
const json = messages.map((message) => JSON.stringify(message, replacer));
const contenders: readonly Contender[] = [
  ofCoding('XML', MediaType.Xml),
  ofCoding('WBXML', MediaType.Wbxml),
  ofCoding('CBOR', MediaType.Cbor),
  {
    name: 'bare XML parser (saxes)',
    bytes: xml.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / xml.length,
    decode: () => {
      for (const text of xml) new SaxesParser({ xmlns: false, position: false }).write(text).close();
    },
  },
  {
    name: 'JSON of the same content',
    bytes: json.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / json.length,
    decode: () => {
      for (const text of json) JSON.parse(text);
    },
    encode: () => {
      for (const message of messages) JSON.stringify(message, replacer);
    },
  },
];

/** CPU microseconds per package. */
function measure(work: () => void): number {
  globalThis.gc?.();
  const end = performance.now() + slice;
  const began = process.cpuUsage();
  let passes = 0;
  for (; performance.now() < end; passes++) work();
  const { user, system } = process.cpuUsage(began);
  return (user + system) / (passes * messages.length);
}

const decoding = new Map<string, number[]>();
const encoding = new Map<string, number[]>();
for (const { decode, encode } of contenders) {
  measure(decode);
  if (encode) measure(encode);
}
for (let round = 1; round <= rounds; round++) {
  for (const { name, decode, encode } of contenders) {
    decoding.set(name, [...(decoding.get(name) ?? []), measure(decode)]);
    if (encode) encoding.set(name, [...(encoding.get(name) ?? []), measure(encode)]);
  }
  console.error(`round ${round} of ${rounds}`);
}

const thousands = (microseconds: number) => `${Math.round(1000 / microseconds)} k`;
const cells = (found: readonly number[] | undefined) =>
  found ? [median(found).toFixed(1), spread(found, 1), thousands(median(found))] : ['', '', ''];
const rows = contenders.map(({ name, bytes }) =>
  [name, Math.round(bytes), ...cells(decoding.get(name)), ...cells(encoding.get(name))].join(' | '),
);
const ratio = (a: string, b: string, of: ReadonlyMap<string, number[]>) =>
  (median(of.get(a)!) / median(of.get(b)!)).toFixed(2);
const section = [
  `${messages.length} packages, ${rounds} interleaved rounds; ${machine()}. CPU µs per package: median, and least to most.`,
  '',
  '| Coding | bytes | decode µs | | packages/s | encode µs | | packages/s |',
  '|---|---|---|---|---|---|---|---|',
  ...rows.map((row) => `| ${row} |`),
  '',
  `- Decoding XML takes ${ratio('XML', 'bare XML parser (saxes)', decoding)} times what the bare parser takes, WBXML ${ratio('WBXML', 'XML', decoding)} and CBOR ${ratio('CBOR', 'XML', decoding)} times what XML takes.`,
  `- Against JSON of the same content decoding takes ${ratio('XML', 'JSON of the same content', decoding)} (XML), ${ratio('WBXML', 'JSON of the same content', decoding)} (WBXML) and ${ratio('CBOR', 'JSON of the same content', decoding)} times as long (CBOR); JSON is parsed by native code, and nothing of it is checked.`,
].join('\n');
console.log(section);
if (flags.write) writeSection('codecs', section);
