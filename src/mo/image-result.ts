import { forXml } from '../base/presentable.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';

/**
 * What an operation on an image came to, as data of the alert Image Operation.
 * @param result result code of FUMO
 * @param reason why it failed
 */
export const imageResultXml = (result: number, reason: string | undefined): string =>
  reason === undefined
    ? `<ImageResult Code="${result}"/>`
    : `<ImageResult Code="${result}"><Reason>${escapeXml(forXml(reason))}</Reason></ImageResult>`;

/** Reads what `imageResultXml` wrote. Undefined for another text. */
export function readImageResult(
  xml: string,
): { readonly result: number; readonly reason?: string } | undefined {
  const found = /^<ImageResult Code="(\d{1,9})"(?:\/>|><Reason>([^<]*)<\/Reason><\/ImageResult>)$/.exec(xml);
  if (!found) return undefined;
  const [, code, reason] = found;
  return { result: Number(code), ...(reason !== undefined && { reason: unescapeXml(reason) }) };
}

const entities: Readonly<Record<string, string>> = {
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  amp: '&',
  '#13': '\r',
};
const unescapeXml = (text: string): string =>
  text.replace(/&(lt|gt|quot|apos|amp|#13);/g, (whole, name: string) => entities[name] ?? whole);
