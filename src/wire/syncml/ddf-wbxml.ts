import { PosternError } from '../../base/errors.ts';
import { DdfBuilder, type DdfElement, type DdfWriter, ddfLimits } from './ddf-builder.ts';
import { readWbxml, type WbxmlName } from './wbxml-reader.ts';
import { WbxmlWriter } from './wbxml-writer.ts';

/** Code page of the DDF inside a SyncML message. */
export const ddfPage = 2;
/** Registered public identifier of the DDF as a document of its own. */
const publicId = 0x1203;
const publicName = '-//OMA//DTD-DM-DDF 1.2//EN';

/** Tags in the order of their tokens, from 0x05 (OMA DM tree and description serialization 1.2, WBXML appendix). */
const tags = [
  ...['AccessType', 'ACL', 'Add', 'b64', 'bin', 'bool', 'chr', 'CaseSense', 'CIS', 'Copy', 'CS', 'date'],
  ...['DDFName', 'DefaultValue', 'Delete', 'Description', 'DFFormat', 'DFProperties', 'DFTitle', 'DFType'],
  ...['Dynamic', 'Exec', 'float', 'Format', 'Get', 'int', 'Man', 'MgmtTree', 'MIME', 'Mod', 'Name', 'Node'],
  ...['node', 'NodeName', 'null', 'Occurrence', 'One', 'OneOrMore', 'OneOrN', 'Path', 'Permanent', 'Replace'],
  ...['RTProperties', 'Scope', 'Size', 'time', 'Title', 'TStamp', 'Type', 'Value', 'VerDTD', 'VerNo', 'xml'],
  ...['ZeroOrMore', 'ZeroOrN', 'ZeroOrOne'],
];
const firstToken = 0x05;
const tokens = new Map(tags.map((tag, at) => [tag, firstToken + at]));

function tokenOf(tag: string): number {
  const token = tokens.get(tag);
  if (token === undefined) throw new PosternError('malformed', `<${tag}> is not an element of the DDF`);
  return token;
}

/**
 * Writes a document as WBXML, as in the media type `application/vnd.syncml.dmtnds+wbxml`. Its methods throw `malformed` for an
 * element that the DDF does not have.
 */
export class DdfWbxmlWriter implements DdfWriter {
  readonly #writer = new WbxmlWriter(publicId);

  open(tag: string): void {
    this.#writer.open(ddfPage, tokenOf(tag));
  }

  leaf(tag: string, text: string): void {
    const token = tokenOf(tag);
    if (text === '') {
      this.#writer.empty(ddfPage, token);
      return;
    }
    this.#writer.open(ddfPage, token);
    this.#writer.text(text);
    this.#writer.close();
  }

  close(): void {
    this.#writer.close();
  }

  finish(): Uint8Array {
    return this.#writer.finish();
  }
}

/**
 * The tag for a token, or for a literal name, of the DDF's code page.
 * @throws {PosternError} `malformed`
 */
export function ddfTag({ token, literal }: WbxmlName): string {
  const tag = literal ?? tags[token - firstToken];
  if (tag === undefined) throw new PosternError('malformed', `the DDF has no token ${token}`);
  return tag;
}

/**
 * Reads a DDF document in WBXML. The public identifier must be that of the DDF or "unknown".
 * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedFormat`, `unsupportedVersion`
 */
export function decodeDdfWbxml(document: Uint8Array): DdfElement {
  if (document.length > ddfLimits.characters) throw new PosternError('tooLarge', 'DDF document too large');
  const builder = new DdfBuilder();
  readWbxml(document, {
    begin({ publicId: found }) {
      if (found !== publicId && found !== publicName && found !== 1)
        throw new PosternError(
          'unsupportedFormat',
          `WBXML with public identifier ${found} is not a TNDS object`,
        );
    },
    open: (name) => builder.open(ddfTag(name)),
    text: (value) => builder.text(value),
    octets: (value) => builder.octets(value),
    close: () => builder.close(),
  });
  return builder.finish();
}
