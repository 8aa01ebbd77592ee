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
