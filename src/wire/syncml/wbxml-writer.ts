/** Version byte of WBXML 1.3. */
const version = 0x03;
/** IANA's number of the character set UTF-8. */
const utf8 = 106;

const hasContent = 0x40;

/**
 * Writes WBXML 1.3 in UTF-8. Tags are tokens, texts are inline strings and octets are opaque data. It uses no string
 * table and no attributes.
 */
export class WbxmlWriter {
  #target = Buffer.allocUnsafe(1024);
  #length = 0;
  #page = 0;

  /** @param publicId registered public identifier of the language */
  constructor(publicId: number) {
    this.#byte(version);
    this.#number(publicId);
    this.#number(utf8);
    this.#number(0);
  }

  /** Begins an element that has content. */
  open(page: number, token: number): void {
    this.empty(page, token | hasContent);
  }

  /** Ends the element that began last. */
  close(): void {
    this.#byte(0x01);
  }

  /** Writes an element without content. */
  empty(page: number, token: number): void {
    if (page !== this.#page) {
      this.#byte(0x00);
      this.#byte(page);
      this.#page = page;
    }
    this.#byte(token);
  }

  /** Writes text as an inline string. It ends at its first NUL, so it must be text that XML can hold. */
  text(value: string): void {
    this.#reserve(Buffer.byteLength(value) + 2);
    this.#target[this.#length++] = 0x03;
    this.#length += this.#target.write(value, this.#length);
    this.#target[this.#length++] = 0;
  }

  /** Writes opaque data. */
  octets(value: Uint8Array): void {
    this.#byte(0xc3);
    this.#number(value.length);
    this.#reserve(value.length);
    this.#target.set(value, this.#length);
    this.#length += value.length;
  }

  /** Returns the document. */
  finish(): Buffer {
    return this.#target.subarray(0, this.#length);
  }

  #number(value: number): void {
    const septets = [value & 0x7f];
    for (let rest = value >>> 7; rest > 0; rest >>>= 7) septets.unshift((rest & 0x7f) | 0x80);
    for (const septet of septets) this.#byte(septet);
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#target[this.#length++] = byte;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#target.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#target.length * 2, this.#length + more));
    this.#target.copy(larger, 0, 0, this.#length);
    this.#target = larger;
  }
}
