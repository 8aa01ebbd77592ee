import { PosternError } from './errors.ts';

/** What a decoder takes of CBOR (RFC 8949). Whatever is not named here is refused before anything is decoded. */
export interface CborProfile {
  /** Tags that may stand before an item. A bignum (tags 2 and 3) is never among them: to decode one takes quadratic time. */
  readonly tags: readonly number[];
  /** Half, single and double precision floating point numbers. */
  readonly floats: boolean;
  /** Strings, arrays and maps of indefinite length. */
  readonly indefinite: boolean;
}

/** What Postern itself writes: the CBOR of SyncML, of the tunnel's envelope and of bootstrap. */
export const plainProfile: CborProfile = { tags: [], floats: false, indefinite: false };
/** What LwM2M clients may write: times (tags 0 and 1), decimal fractions (tag 4), floating point (RFC 8428 section 6). */
export const lwm2mProfile: CborProfile = { tags: [0, 1, 4], floats: true, indefinite: true };

/** Bounds of one document, whoever sends it: items in all, items of one array or map, items within items. */
export const cborLimits = { total: 65_536, items: 16_384, depth: 40 } as const;

const Major = { Unsigned: 0, Negative: 1, Octets: 2, Text: 3, Array: 4, Map: 5, Tag: 6, Other: 7 } as const;
const indefinite = -1;

/** An array, map or string that is open: how many items it still wants. */
interface Open {
  left: number;
  /** Major type of the chunks of a string of indefinite length. */
  readonly chunks: number | undefined;
  /** Items so far, of indefinite length. */
  count: number;
  readonly isMap: boolean;
}

/**
 * Reads the heads of one CBOR item, in linear time and without keeping a value, and checks it against a profile.
 * @throws {PosternError} `malformed` for what is no CBOR or not of the profile, `tooLarge` beyond `cborLimits`
 */
export function checkCbor(coded: Uint8Array, profile: CborProfile, what: string): void {
  new CborCheck(coded, profile, what).run();
}

class CborCheck {
  readonly #coded: Uint8Array;
  readonly #profile: CborProfile;
  readonly #what: string;
  readonly #open: Open[] = [];
  #at = 0;
  #total = 0;

  constructor(coded: Uint8Array, profile: CborProfile, what: string) {
    this.#coded = coded;
    this.#profile = profile;
    this.#what = what;
  }

  run(): void {
    do this.#item();
    while (this.#open.length > 0);
    if (this.#at !== this.#coded.length) throw this.#malformed('octets stand behind it');
  }

  #item(): void {
    const head = this.#head();
    const major = head >> 5;
    const info = head & 0x1f;
    const { chunks } = this.#open.at(-1) ?? {};
    if (head === 0xff) this.#break();
    else if (chunks !== undefined && (major !== chunks || info === 31))
      throw this.#malformed('a string has a strange part');
    else if (major === Major.Other) this.#other(info);
    else if (info === 31) this.#openIndefinite(major);
    else this.#definite(major, this.#argument(info));
  }

  /** The head of the next item, behind its tags. */
  #head(): number {
    for (;;) {
      if (++this.#total > cborLimits.total) throw this.#tooLarge();
      const head = this.#byte();
      if (head >> 5 !== Major.Tag) return head;
      const tag = this.#argument(head & 0x1f);
      if (!this.#profile.tags.includes(tag)) throw this.#malformed(`tag ${tag} is not taken`);
    }
  }

  #definite(major: number, argument: number): void {
    if (major === Major.Array || major === Major.Map) {
      this.#nest(argument, major);
      return;
    }
    if (major === Major.Octets || major === Major.Text) this.#skip(argument);
    this.#done();
  }

  /** Opens an array or map of so many items or pairs. */
  #nest(length: number, major: number): void {
    if (length > cborLimits.items) throw this.#tooLarge();
    const isMap = major === Major.Map;
    if (length === 0) this.#done();
    else this.#push({ left: isMap ? length * 2 : length, chunks: undefined, count: 0, isMap });
  }

  #openIndefinite(major: number): void {
    if (!this.#profile.indefinite || major < Major.Octets || major > Major.Map)
      throw this.#malformed('an indefinite length is not taken');
    const isString = major === Major.Octets || major === Major.Text;
    this.#push({
      left: indefinite,
      chunks: isString ? major : undefined,
      count: 0,
      isMap: major === Major.Map,
    });
  }

  #push(open: Open): void {
    if (this.#open.length >= cborLimits.depth) throw this.#tooLarge();
    this.#open.push(open);
  }

  /** An item is complete, and so may be the arrays and maps around it. */
  #done(): void {
    for (let open = this.#open.at(-1); open; open = this.#open.at(-1)) {
      if (open.left === indefinite) {
        if (++open.count > cborLimits.items * 2) throw this.#tooLarge();
        return;
      }
      if (--open.left > 0) return;
      this.#open.pop();
    }
  }

  #break(): void {
    const open = this.#open.pop();
    if (open?.left !== indefinite || (open.isMap && open.count % 2 !== 0))
      throw this.#malformed('it ends where it may not');
    this.#done();
  }

  #other(info: number): void {
    // false, true, null, undefined; floats of 2, 4 and 8 octets.
    const isSimple = info >= 20 && info <= 23;
    const isFloat = info >= 25 && info <= 27;
    if (!isSimple && !(isFloat && this.#profile.floats))
      throw this.#malformed('a value of its kind is not taken');
    if (isFloat) this.#skip(2 ** (info - 24));
    this.#done();
  }

  #argument(info: number): number {
    if (info < 24) return info;
    if (info > 27) throw this.#malformed('its head is wrong');
    const octets = 2 ** (info - 24);
    let value = 0;
    for (let i = 0; i < octets; i++) value = value * 256 + this.#byte();
    return value;
  }

  #byte(): number {
    const byte = this.#coded[this.#at++];
    if (byte === undefined) throw this.#malformed('it is cut off');
    return byte;
  }

  #skip(length: number): void {
    this.#at += length;
    if (this.#at > this.#coded.length) throw this.#malformed('it is cut off');
  }

  #malformed(why: string): PosternError {
    return new PosternError('malformed', `${this.#what} is no CBOR that is taken here: ${why}`);
  }

  #tooLarge(): PosternError {
    return new PosternError('tooLarge', `${this.#what} has too many items`);
  }
}
