import { PosternError } from '../../base/errors.ts';
import { DdfBuilder } from './ddf-builder.ts';
import { ddfPage, ddfTag } from './ddf-wbxml.ts';
import { writeDdf } from './ddf-xml.ts';
import { ElementBuilder } from './element-builder.ts';
import type { Element, ElementName } from './elements.ts';
import { elements, isElementName, keyOfToken, messageLimits, nameOfKey } from './elements.ts';
import { hasOpaqueData } from './meta-text.ts';
import { readWbxml, type WbxmlName } from './wbxml-reader.ts';
import { WbxmlWriter } from './wbxml-writer.ts';

/** Registered public identifier of SyncML 1.2 (OMNA's registry). */
export const syncmlPublicId = 0x1201;
/** Public identifiers that are accepted: SyncML 1.2, SyncML 1.0 and 1.1 as used by DM 1.1, and 1 for "unknown". */
const acceptedIds: ReadonlySet<number | string> = new Set([
  syncmlPublicId,
  0x0fd1,
  0x0fd3,
  1,
  '-//SYNCML//DTD SyncML 1.0//EN',
  '-//SYNCML//DTD SyncML 1.1//EN',
  '-//SYNCML//DTD SyncML 1.2//EN',
]);

/**
 * Writes a message as WBXML 1.3 (SyncML representation protocol 1.2). The data of an item whose type ends in `+wbxml`,
 * such as a TNDS object, is opaque. Other octets are base64 text, according to their format `b64`. A TNDS object whose
 * type ends in `+xml` is text. Both could be shorter, but libwbxml and the clients built on it read only this form.
 */
export function encodeWbxml(root: Element): Uint8Array {
  const writer = new WbxmlWriter(syncmlPublicId);
  write(writer, root, false);
  return writer.finish();
}

function write(writer: WbxmlWriter, { name, content }: Element, packed: boolean): void {
  const { page, token } = elements[name];
  if (content === true || content.length === 0) {
    writer.empty(page, token);
    return;
  }
  writer.open(page, token);
  if (typeof content === 'string') writer.text(content);
  else if (content instanceof Uint8Array)
    if (packed) writer.octets(content);
    else writer.text(Buffer.from(content).toString('base64'));
  else {
    const isOpaque = name === 'Item' && hasOpaqueData(content);
    for (const each of content) write(writer, each, isOpaque && each.name === 'Data');
  }
  writer.close();
}

/**
 * Reads a message in WBXML 1.0 to 1.3. A TNDS object that is written in Data as tokens of the DDF's code page becomes
 * XML text. Opaque data stays as it is.
 * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedFormat`, `unsupportedVersion`
 */
export function decodeWbxml(coded: Uint8Array): Element {
  if (coded.length > messageLimits.bytes)
    throw new PosternError('tooLarge', `message of more than ${messageLimits.bytes} bytes`);
  const builder = new ElementBuilder();
  let embedded: DdfBuilder | undefined;
  readWbxml(coded, {
    begin({ publicId }) {
      if (!acceptedIds.has(publicId))
        throw new PosternError('unsupportedFormat', `WBXML with public identifier ${publicId} is not SyncML`);
    },
    open(name) {
      if (!embedded && builder.current === 'Data' && name.page === ddfPage) embedded = new DdfBuilder();
      if (embedded) embedded.open(ddfTag(name));
      else builder.open(elementName(name));
    },
    text(value) {
      if (embedded) embedded.text(value);
      else builder.text(value);
    },
    octets(value) {
      if (embedded) embedded.octets(value);
      else builder.octets(value);
    },
    close() {
      if (!embedded) return builder.close();
      embedded.close();
      if (!embedded.ended) return;
      builder.text(writeDdf(embedded.finish()));
      embedded = undefined;
    },
  });
  return builder.finish();
}

function elementName({ page, token, literal }: WbxmlName): ElementName | undefined {
  if (literal !== undefined) return isElementName(literal) ? literal : undefined;
  return page <= 1 ? nameOfKey(keyOfToken(page, token)) : undefined;
}
