// `npm run bench:codecs`: CPU per DM package, decoded and encoded in each coding, against the bare XML parser and against JSON
// of the same content. `--quick` measures briefly; `--write` records the figures.
import { readdirSync, readFileSync } from 'node:fs';
import { SaxesParser } from 'saxes';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, measured, single, today } from '../../build/figures.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { measuring, optionsOf } from '../options.ts';
import { machine, ratios } from './measure.ts';

const flags = optionsOf('bench:codecs', 'CPU per DM package, decoded and encoded in each coding.', measuring);
const rounds = flags.quick ? 3 : 9;
/** Milliseconds of one measurement. */
const slice = flags.quick ? 100 : 400;

const folder = new URL('../vectors/messages/', import.meta.url);
/** Packages that are typical of sessions. Packages with long values are left out: they would measure copying alone. */
const messages: readonly SyncmlMessage[] = readdirSync(folder)
  .filter((file) => /^(package|get|add-|replace|alert-(generic|device)|results)/.test(file))
  .map((file) => decodeMessage(readFileSync(new URL(file, folder)), MediaType.Xml));

/** JSON has no octets; base64 is the usual way to carry them. */
const replacer = (_key: string, value: unknown) =>
  value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value;

interface Contender {
  readonly name: string;
  /** Mean size of a package, for contenders that are codings. */
  readonly bytes?: number;
  readonly decode: () => void;
  readonly encode?: () => void;
  /** CPU in µs per package, of each round. */
  readonly decoding: number[];
  readonly encoding: number[];
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
    decoding: [],
    encoding: [],
  };
};

const xml = messages.map((message) => Buffer.from(encodeMessage(message, MediaType.Xml)).toString());
const json = messages.map((message) => JSON.stringify(message, replacer));
const contenders = {
  xml: ofCoding('XML', MediaType.Xml),
  wbxml: ofCoding('WBXML', MediaType.Wbxml),
  cbor: ofCoding('CBOR', MediaType.Cbor),
  saxes: {
    name: 'bare XML parser (saxes)',
    decode: () => {
      for (const text of xml) new SaxesParser({ xmlns: false, position: false }).write(text).close();
    },
    decoding: [],
    encoding: [],
  },
  json: {
    name: 'JSON of the same content',
    bytes: json.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / json.length,
    decode: () => {
      for (const text of json) JSON.parse(text);
    },
    encode: () => {
      for (const message of messages) JSON.stringify(message, replacer);
    },
    decoding: [],
    encoding: [],
  },
} satisfies Readonly<Record<string, Contender>>;
const all: readonly [key: string, contender: Contender][] = Object.entries(contenders);

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

for (const [, { decode, encode }] of all) {
  measure(decode);
  if (encode) measure(encode);
}
for (let round = 1; round <= rounds; round++) {
  for (const [, { decode, encode, decoding, encoding }] of all) {
    decoding.push(measure(decode));
    if (encode) encoding.push(measure(encode));
  }
  console.error(`round ${round} of ${rounds}`);
}

const { xml: ofXml, wbxml, cbor, saxes, json: ofJson } = contenders;
const decodingOf = (one: Contender, other: Contender): Figure =>
  measured(`Decoding CPU, ${one.name} / ${other.name}`, 'times', ratios(one.decoding, other.decoding));
const encodingOf = (one: Contender, other: Contender): Figure =>
  measured(`Encoding CPU, ${one.name} / ${other.name}`, 'times', ratios(one.encoding, other.encoding));
/** A figure of each contender that has it. */
const each = (suffix: string, figure: (contender: Contender) => Figure | undefined) =>
  Object.fromEntries(
    all.flatMap(([key, contender]) => {
      const found = figure(contender);
      return found ? [[`${key}-${suffix}`, found] as const] : [];
    }),
  );
publish(
  'codecs',
  {
    title: 'DM packages',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:codecs\`: ${messages.length} packages, ${rounds} interleaved rounds. Node parses and writes JSON in native code and checks nothing of its content.`,
    figures: {
      'xml-vs-saxes': decodingOf(ofXml, saxes),
      'wbxml-vs-xml': decodingOf(wbxml, ofXml),
      'cbor-vs-xml': decodingOf(cbor, ofXml),
      'xml-vs-json': decodingOf(ofXml, ofJson),
      'wbxml-vs-json': decodingOf(wbxml, ofJson),
      'cbor-vs-json': decodingOf(cbor, ofJson),
      'xml-vs-json-encoded': encodingOf(ofXml, ofJson),
      'wbxml-vs-json-encoded': encodingOf(wbxml, ofJson),
      'cbor-vs-json-encoded': encodingOf(cbor, ofJson),
      ...each('bytes', ({ name, bytes }) =>
        bytes === undefined ? undefined : single(`Mean size of a package, ${name}`, 'bytes', bytes),
      ),
      ...each('decoding', ({ name, decoding }) =>
        measured(`Decoding CPU per package, ${name}`, 'µs', decoding),
      ),
      ...each('encoding', ({ name, encoding }) =>
        encoding.length === 0 ? undefined : measured(`Encoding CPU per package, ${name}`, 'µs', encoding),
      ),
    },
  },
  flags.write,
);
