import { PosternError } from '../../base/errors.ts';
import { decodeCbor, encodeCbor } from './cbor.ts';
import type { Element } from './elements.ts';
import { commandWithValues, elementOf, hasOctets, messageOf, type SyncmlMessage } from './message.ts';
import { cborSizes, type Sizes, wbxmlSizes, xmlSizes } from './size.ts';
import { decodeWbxml, encodeWbxml } from './wbxml.ts';
import { decodeXml, encodeXml } from './xml.ts';

/** Media types of the codings of a DM message. */
export const MediaType = {
  Xml: 'application/vnd.syncml.dm+xml',
  Wbxml: 'application/vnd.syncml.dm+wbxml',
  Cbor: 'application/vnd.postern.dm+cbor',
} as const;

/** Media types that clients of SyncML 1.1 and DM 1.1 use for the same codings. */
const older = { Xml: 'application/vnd.syncml+xml', Wbxml: 'application/vnd.syncml+wbxml' } as const;

interface Coding {
  encode(root: Element): Uint8Array;
  decode(coded: Uint8Array): Element;
  readonly sizes: Sizes;
}
const xml: Coding = { encode: encodeXml, decode: decodeXml, sizes: xmlSizes };
const wbxml: Coding = { encode: encodeWbxml, decode: decodeWbxml, sizes: wbxmlSizes };

const codings: Readonly<Record<string, Coding>> = {
  [older.Xml]: xml,
  [older.Wbxml]: wbxml,
  [MediaType.Xml]: xml,
  [MediaType.Wbxml]: wbxml,
  [MediaType.Cbor]: { encode: encodeCbor, decode: decodeCbor, sizes: cborSizes },
};

const codingOf = (mediaType: string) => {
  const coding = codings[mediaType];
  if (!coding) throw new PosternError('unsupportedFormat', `media type ${mediaType} is not supported`);
  return coding;
};

/** Media types by the names of the codings in configurations. */
export const encodings = { xml: MediaType.Xml, wbxml: MediaType.Wbxml, cbor: MediaType.Cbor } as const;

/** Whether messages of this media type can be read and written. */
export const isSupported = (mediaType: string): boolean => Object.hasOwn(codings, mediaType);

/**
 * What messages of the media type take.
 * @throws {PosternError} `unsupportedFormat`
 */
export const sizesOf = (mediaType: string): Sizes => codingOf(mediaType).sizes;

/**
 * Writes a message in the coding of the media type.
 * @throws {PosternError} `unsupportedFormat`; `malformed` for text that has no form in XML
 */
export const encodeMessage = (message: SyncmlMessage, mediaType: string): Uint8Array =>
  codingOf(mediaType).encode(elementOf(message));

/**
 * Reads a message in the coding of the media type. Values are as they came: a session puts those together that come in chunks,
 * and decodes them (`commandWithValues`).
 * @throws {PosternError} `unsupportedFormat`, `unsupportedVersion`, `malformed`, `tooLarge`
 */
export function decodeMessage(coded: Uint8Array, mediaType: string): SyncmlMessage {
  const coding = codingOf(mediaType);
  const message = messageOf(coding.decode(coded));
  const isOpaque = coding.decode === decodeWbxml && message.commands.some(hasOctets);
  return isOpaque ? { ...message, opaque: true } : message;
}

/**
 * Reads a message that no session takes, such as a bootstrap document. Its values are whole, and they are decoded.
 * @throws {PosternError} `unsupportedFormat`, `unsupportedVersion`, `malformed`, `tooLarge`
 */
export function decodeDocument(coded: Uint8Array, mediaType: string): SyncmlMessage {
  const { opaque, ...message } = decodeMessage(coded, mediaType);
  return { ...message, commands: message.commands.map((each) => commandWithValues(each, opaque)) };
}
