import { type Element, elements, namespaces } from './elements.ts';

/** Bytes that escaping in XML adds to a character, by its code: & < > " and the carriage return. */
const addedTo = (code: number): number =>
  code === 0x26 || code === 0x0d ? 4 : code === 0x3c || code === 0x3e ? 3 : code === 0x22 ? 5 : 0;

/**
 * Bytes of an element in XML, which is an upper bound for its size in every coding. With it a sender stays below the
 * other side's MaxMsgSize without encoding everything twice.
 * @param outerPage code page of the parent element
 */
export function sizeInXml({ name, content }: Element, outerPage: number): number {
  const { page } = elements[name];
  const namespace = page === outerPage ? 0 : ` xmlns="${namespaces[page]}"`.length;
  const inner =
    content === true
      ? 0
      : typeof content === 'string'
        ? textInXml(content)
        : content instanceof Uint8Array
          ? Math.ceil(content.length / 3) * 4
          : sizeOfAll(content, page);
  return namespace + (inner === 0 ? name.length + '</>'.length : 2 * name.length + '<></>'.length + inner);
}

function sizeOfAll(elements: readonly Element[], page: number): number {
  let sum = 0;
  for (const each of elements) sum += sizeInXml(each, page);
  return sum;
}

/** Bytes of a text in XML, after escaping. */
export function textInXml(text: string): number {
  let bytes = Buffer.byteLength(text);
  if (!/[&<>"\r]/.test(text)) return bytes;
  for (let at = 0; at < text.length; at++) bytes += addedTo(text.charCodeAt(at));
  return bytes;
}
