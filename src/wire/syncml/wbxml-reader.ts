import { PosternError } from '../../base/errors.ts';
import { utf8 } from './element-builder.ts';

/** Header of a document (WBXML 1.3, section 5.4). */
export interface WbxmlHeader {
  /** 0 to 3, for WBXML 1.0 to 1.3. */
  readonly version: number;
  /** The registered number, or the formal public identifier as text. */
  readonly publicId: number | string;
}

/** A tag, an attribute or an attribute value: a token of a code page, or a literal name. */
export interface WbxmlName {
  readonly page: number;
  readonly token: number;
  /** The name of a literal tag or attribute. */
  readonly literal?: string;
}

/** Gets the parts of a document in their order. Whatever a method throws ends the reading. */
export interface WbxmlHandler {
  /** Called once, before anything else. */
  begin(header: WbxmlHeader): void;
  /** An element begins. */
  open(name: WbxmlName): void;
  /** An attribute of the element that began last. The parts of its value are texts and value tokens. */
  attribute?(name: WbxmlName, value: readonly (string | WbxmlName)[]): void;
  /** Text in the open element. One text may come in several parts. */
  text(value: string): void;
  /** Opaque data in the open element. */
  octets(value: Uint8Array): void;
  /** The open element ends. */
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
/** IANA's numbers of the character sets that are read as UTF-8: 0 is unknown, 3 is US-ASCII, 106 is UTF-8. */
const utf8Charsets = new Set([0, 3, 106]);
/** Bytes that a document takes from its string table in all. A table of one long string could be taken at each octet. */
const tableBound = 256 * 1024;
/** Most levels of nested elements, including elements that the handler skips. */
const depthBound = 64;

/**
 * Reads WBXML 1.0 to 1.3 in UTF-8 or ASCII. Extension tokens and processing instructions are refused, since SyncML, DDF
 * and provisioning documents have none.
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
  #taken = 0;

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
          if (depth === 0) throw malformed('the end of an element without an open element');
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
          if (tag < token.literal) throw malformed(`token ${byte} is not allowed here`);
          if (depth === 0 && begun) throw malformed('more than one root');
          begun = true;
          this.#handler.open(this.#name(tag, this.#tagPage));
          if (byte & hasAttributes) this.#attributes();
          if ((byte & hasContent) === 0) this.#handler.close();
          else if (++depth > depthBound) throw new PosternError('tooLarge', 'WBXML: too deep');
        }
      }
    }
    if (!begun || depth > 0) throw malformed('incomplete');
  }

  #header(): void {
    const version = this.#byte();
    if (version > 3)
      throw new PosternError('unsupportedVersion', `WBXML: version byte ${version} is not supported`);
    const id = this.#number();
    const idAt = id === 0 ? this.#number() : 0;
    // WBXML 1.0 has no character set. Its documents are in that of the transport, which is UTF-8 for DM.
    const charset = version === 0 ? 0 : this.#number();
    if (!utf8Charsets.has(charset))
      throw new PosternError('unsupportedFormat', `WBXML: character set ${charset} is not supported`);
    this.#table = this.#slice(this.#number());
    this.#handler.begin({ version, publicId: id === 0 ? this.#tableString(idAt) : id });
  }

  #attributes(): void {
    let name: WbxmlName | undefined;
    let value: (string | WbxmlName)[] = [];
    const passOn = () => {
      if (name) this.#handler.attribute?.(name, value);
    };
    for (;;) {
      const byte = this.#byte();
      switch (byte) {
        case token.end:
          passOn();
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
            throw malformed(`token ${byte} is not allowed in attributes`);
          if (byte >= hasAttributes) value.push({ page: this.#attributePage, token: byte });
          else {
            passOn();
            name = this.#name(byte, this.#attributePage);
            value = [];
          }
      }
    }
  }

  #name(code: number, page: number): WbxmlName {
    return code === token.literal
      ? { page, token: code, literal: this.#tableString(this.#number()) }
      : ((page < knownPages ? names[page * 256 + code] : undefined) ?? { page, token: code });
  }

  #inside(depth: number): void {
    if (depth === 0) throw malformed('text outside the root');
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw malformed('incomplete');
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
    if (end > this.#bytes.length) throw malformed('incomplete');
    const found = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return found;
  }

  #opaque(): Buffer {
    return this.#slice(this.#number());
  }

  #string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw malformed('a string without its final NUL');
    const found = text(this.#bytes, this.#at, end);
    this.#at = end + 1;
    return found;
  }

  #tableString(at: number): string {
    if (at >= this.#table.length) throw malformed('an offset beyond the string table');
    const found = this.#table.indexOf(0, at);
    const end = found < 0 ? this.#table.length : found;
    this.#taken += end - at;
    if (this.#taken > tableBound)
      throw new PosternError('tooLarge', 'WBXML: too much text of the string table');
    return text(this.#table, at, end);
  }

  #entity(): string {
    const point = this.#number();
    if (point === 0 || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
      throw malformed('an entity that is not a Unicode character');
    return String.fromCodePoint(point);
  }
}

/** Code pages whose names are made once: those of SyncML, its meta information and the DDF. */
const knownPages = 3;
const names: readonly WbxmlName[] = Array.from({ length: knownPages * 256 }, (_, at) => ({
  page: at >> 8,
  token: at & 0xff,
}));

const replacement = '\ufffd';

/** Reads UTF-8. The fast decoder replaces malformed bytes, so only a text with a replacement is checked strictly. */
function text(bytes: Buffer, from: number, to: number): string {
  const quick = bytes.toString('utf8', from, to);
  return quick.includes(replacement) ? utf8(bytes.subarray(from, to)) : quick;
}
