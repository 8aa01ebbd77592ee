import { PosternError } from '../../base/errors.ts';

const quoted = `(?:"[^"]*"|'[^']*')`;
/** A document type that only names the DTD of documents which DM uses. */
const plain = new RegExp(
  `^\\s+(?:SyncML|MgmtTree|DevInf|wap-provisioningdoc)(?:\\s+PUBLIC\\s+${quoted}(?:\\s+${quoted})?|\\s+SYSTEM\\s+${quoted})?(?:\\s*\\[\\s*\\])?\\s*$`,
);

/**
 * Skips a document type that names a DTD of DM, as libwbxml writes it. The DTD is not read. One with anything of its own
 * is refused, so that no entities have to be expanded.
 * @param text what stands between `<!DOCTYPE` and `>`
 * @throws {PosternError} `malformed`
 */
export function skipDocumentType(text: string): void {
  if (!plain.test(text))
    throw new PosternError('malformed', 'a document type with declarations, or of another kind of document');
}
