import { PosternError } from '../../base/errors.ts';
import { utf8 } from './element-builder.ts';

/** What a document says of itself before it begins (WBXML 1.3, section 5.4). */
export interface WbxmlHeader {
  /** 1, 2 or 3, for WBXML 1.1 to 1.3. */
  readonly version: number;
  /** The registered number, or the formal public identifier as text. */
  readonly publicId: number | string;
}

/** A token with its code page, or the name that a literal tag or attribute carries. */
export interface WbxmlName {
  readonly page: number;
  readonly token: number;
  readonly literal?: string;
}

/** Hears what a document holds, in its order. What a method throws ends the reading. */
export interface WbxmlHandler {
  begin(header: WbxmlHeader): void;
  open(name: WbxmlName): void;
  /** Parts of the value are texts, and tokens that stand for texts of the language. */
  attribute?(name: WbxmlName, value: readonly (string | WbxmlName)[]): void;
  text(value: string): void;
  octets(value: Uint8Array): void;
  close(): void;
}

const token = {
  switchPage: 0x00,
  end: 0x01,
  entity: 0x02,
  inlineString: 0x03,
  literal: 0x04,
  processing: 0x43,
  tableString: 0x83,
  opaque: 0xc3,
} as const;
const hasAttributes = 0x80;
const hasContent = 0x40;
const tagMask = 0x3f;
const utf8Charsets = new Set([0, 3, 106]);
/** Elements within elements, of those too that a language skips. */
const depthBound = 64;

/**
 * Reads WBXML 1.1 to 1.3 in UTF-8 or ASCII. Extension tokens and processing instructions, which no language here has, are refused.
 * @throws {PosternError} `malformed`, `unsupportedVersion`, `unsupportedFormat`, `tooLarge`; and what the handler throws
 */
export function readWbxml(document: Uint8Array, handler: WbxmlHandler): void {
  new Reader(document, handler).read();
}

const malformed = (why: string) => new PosternError('malformed', `WBXML: ${why}`);

class Reader {
  readonly #bytes: Buffer;
  readonly #handler: WbxmlHandler;
  #at = 0;
  #tagPage = 0;
  #attributePage = 0;
  #table: Buffer = Buffer.alloc(0);

  constructor(document: Uint8Array, handler: WbxmlHandler) {
    this.#bytes = Buffer.from(document.buffer, document.byteOffset, document.length);
    this.#handler = handler;
  }

  read(): void {
    this.#header();
    let depth = 0;
    let begun = false;
    while (this.#at < this.#bytes.length) {
      const byte = this.#byte();
      switch (byte) {
        case token.switchPage:
          this.#tagPage = this.#byte();
          break;
        case token.end:
          if (depth === 0) throw malformed('an element ends that did not begin');
          this.#handler.close();
          depth--;
          break;
        case token.entity:
          this.#inside(depth);
          this.#handler.text(this.#entity());
          break;
        case token.inlineString:
          this.#inside(depth);
          this.#handler.text(this.#string());
          break;
        case token.tableString:
          this.#inside(depth);
          this.#handler.text(this.#tableString(this.#number()));
          break;
        case token.opaque:
          this.#inside(depth);
          this.#handler.octets(this.#opaque());
          break;
        default: {
          const tag = byte & tagMask;
          if (tag < token.literal) throw malformed(`token ${byte} has no place here`);
          if (depth === 0 && begun) throw malformed('more than one root');
          begun = true;
          this.#handler.open(this.#name(tag, this.#tagPage));
          if (byte & hasAttributes) this.#attributes();
          if ((byte & hasContent) === 0) this.#handler.close();
          else if (++depth > depthBound) throw new PosternError('tooLarge', 'WBXML: too deep');
        }
      }
    }
    if (!begun || depth > 0) throw malformed('cut off');
  }

  #header(): void {
    const version = this.#byte();
    if (version < 1 || version > 3)
      throw new PosternError('unsupportedVersion', `WBXML of version byte ${version}`);
    const id = this.#number();
    const idAt = id === 0 ? this.#number() : 0;
    const charset = this.#number();
    if (!utf8Charsets.has(charset))
      throw new PosternError('unsupportedFormat', `WBXML in character set ${charset}`);
    this.#table = this.#slice(this.#number());
    this.#handler.begin({ version, publicId: id === 0 ? this.#tableString(idAt) : id });
  }

  #attributes(): void {
    let name: WbxmlName | undefined;
    let value: (string | WbxmlName)[] = [];
    const tell = () => {
      if (name) this.#handler.attribute?.(name, value);
    };
    for (;;) {
      const byte = this.#byte();
      switch (byte) {
        case token.end:
          tell();
          return;
        case token.switchPage:
          this.#attributePage = this.#byte();
          break;
        case token.entity:
          value.push(this.#entity());
          break;
        case token.inlineString:
          value.push(this.#string());
          break;
        case token.tableString:
          value.push(this.#tableString(this.#number()));
          break;
        case token.opaque:
          value.push(utf8(this.#opaque()));
          break;
        default:
          if ((byte & ~hasAttributes) < token.literal || (byte > token.literal && (byte & tagMask) < 5))
            throw malformed(`token ${byte} has no place in attributes`);
          if (byte >= hasAttributes) value.push({ page: this.#attributePage, token: byte });
          else {
            tell();
            name = this.#name(byte, this.#attributePage);
            value = [];
          }
      }
    }
  }

  #name(code: number, page: number): WbxmlName {
    return code === token.literal
      ? { page, token: code, literal: this.#tableString(this.#number()) }
      : { page, token: code };
  }

  #inside(depth: number): void {
    if (depth === 0) throw malformed('text outside the root');
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw malformed('cut off');
    return byte;
  }

  /** A multi-byte integer of at most 32 bits (section 5.1). */
  #number(): number {
    let value = 0;
    for (let count = 0; count < 5; count++) {
      const byte = this.#byte();
      value = value * 128 + (byte & 0x7f);
      if (byte < 0x80) {
        if (value > 0xffff_ffff) break;
        return value;
      }
    }
    throw malformed('a number of more than 32 bits');
  }

  #slice(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw malformed('cut off');
    const found = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return found;
  }

  #opaque(): Buffer {
    return this.#slice(this.#number());
  }

  #string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw malformed('a string without an end');
    const found = text(this.#bytes, this.#at, end);
    this.#at = end + 1;
    return found;
  }

  #tableString(at: number): string {
    const end = this.#table.indexOf(0, at);
    if (at >= this.#table.length) throw malformed('no such string in the table');
    return text(this.#table, at, end < 0 ? this.#table.length : end);
  }

  #entity(): string {
    const point = this.#number();
    if (point === 0 || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
      throw malformed('an entity that is no character');
    return String.fromCodePoint(point);
  }
}

const replacement = '\ufffd';

function text(bytes: Buffer, from: number, to: number): string {
  const quick = bytes.toString('utf8', from, to);
  return quick.includes(replacement) ? utf8(bytes.subarray(from, to)) : quick;
}
