import type { CoapOption } from './codec.ts';
import { noBytes } from './codec.ts';

interface OptionRule {
  readonly number: number;
  /** Fewest bytes of the value. */
  readonly min: number;
  /** Most bytes of the value. */
  readonly max: number;
  readonly repeatable: boolean;
}

const rule = (number: number, min: number, max: number, repeatable = false): OptionRule => ({
  number,
  min,
  max,
  repeatable,
});

/**
 * The options that Postern understands: number, length bounds in bytes, and whether the option is repeatable.
 * Sources are RFC 7252 table 4, RFC 7641, RFC 7959, RFC 8613 and RFC 9175. Numbers from 65000 are in the experimental range, see
 * docs/bindings.md.
 */
export const Option = {
  IfMatch: rule(1, 0, 8, true),
  UriHost: rule(3, 1, 255),
  ETag: rule(4, 1, 8, true),
  IfNoneMatch: rule(5, 0, 0),
  Observe: rule(6, 0, 3),
  UriPort: rule(7, 0, 2),
  LocationPath: rule(8, 0, 255, true),
  /** RFC 8613. What it protects is opened before a handler sees it. */
  Oscore: rule(9, 0, 255),
  UriPath: rule(11, 0, 255, true),
  ContentFormat: rule(12, 0, 2),
  MaxAge: rule(14, 0, 4),
  UriQuery: rule(15, 0, 255, true),
  Accept: rule(17, 0, 2),
  LocationQuery: rule(20, 0, 255, true),
  Block2: rule(23, 0, 3),
  Block1: rule(27, 0, 3),
  Size2: rule(28, 0, 4),
  ProxyUri: rule(35, 1, 1034),
  ProxyScheme: rule(39, 1, 255),
  Size1: rule(60, 0, 4),
  Echo: rule(252, 1, 40),
  RequestTag: rule(292, 0, 8, true),
  /** Own option of Postern, elective: the MAC of a DM Bootstrap package, as text `SEC=...; MAC=...`. */
  BootstrapMac: rule(65000, 1, 255),
  /** Own option of Postern, elective: the value of DM's transport header x-syncml-hmac. */
  SyncmlHmac: rule(65004, 1, 255),
} as const;

const rules: (OptionRule | undefined)[] = [];
for (const known of Object.values(Option)) rules[known.number] = known;

/**
 * Returns the number of the first critical option that is unknown, out of its length bounds, or repeated although it is
 * not repeatable (RFC 7252 sections 5.4.1, 5.4.3, 5.4.5). Elective options with the same faults are ignored.
 * @param isOpened whether a message with the OSCORE option will be opened. Otherwise the option is unknown
 */
export function unacceptableOption(options: readonly CoapOption[], isOpened = false): number | undefined {
  let previous = -1;
  for (const { number, value } of options) {
    const known = rules[number];
    const wrong =
      known === undefined ||
      (known === Option.Oscore && !isOpened) ||
      value.length < known.min ||
      value.length > known.max ||
      (number === previous && !known.repeatable);
    if (wrong && (number & 1) === 1) return number;
    previous = number;
  }
  return undefined;
}

type Options = readonly CoapOption[];

/** Value of the first option of this kind whose length is within its bounds. */
export function optionValue(options: Options, { number, min, max }: OptionRule): Uint8Array | undefined {
  for (const option of options)
    if (option.number === number && option.value.length >= min && option.value.length <= max)
      return option.value;
  return undefined;
}

/** The same as an unsigned integer (RFC 7252 section 3.2). */
export function uintOption(options: Options, which: OptionRule): number | undefined {
  const value = optionValue(options, which);
  return value && readUint(value);
}

/** Whether there is an option of this kind, whatever its value is. */
export const hasOption = (options: Options, kind: Pick<OptionRule, 'number'>): boolean =>
  options.some(({ number }) => number === kind.number);

/** Values of all options of this kind, as UTF-8 text. */
export function textOptions(options: Options, { number }: OptionRule): string[] {
  let found: string[] | undefined;
  for (const option of options) {
    if (option.number !== number) continue;
    const text = (option.value as Buffer).toString();
    if (found) found.push(text);
    else found = [text];
  }
  return found ?? [];
}

/** Values of all options of this kind, as bytes. */
export const opaqueOptions = (options: Options, { number }: OptionRule): Uint8Array[] =>
  options.filter((option) => option.number === number).map((option) => option.value);

const readUint = (value: Uint8Array): number => value.reduce((sum, byte) => sum * 256 + byte, 0);

/** Writes an unsigned integer of up to 4 bytes in its shortest form; zero has no bytes (RFC 7252 section 3.2). */
export function writeUint(value: number): Buffer {
  if (value === 0) return noBytes;
  const bytes = value < 0x100 ? 1 : value < 0x10000 ? 2 : value < 0x1000000 ? 3 : 4;
  const target = Buffer.allocUnsafe(bytes);
  target.writeUIntBE(value, 0, bytes);
  return target;
}

/** Makes an option with an unsigned integer. */
export const uint = ({ number }: OptionRule, value: number): CoapOption => ({
  number,
  value: writeUint(value),
});
/** Makes an option with text. */
export const text = ({ number }: OptionRule, value: string): CoapOption => ({
  number,
  value: Buffer.from(value),
});
/** Makes an option with octets. */
export const opaque = ({ number }: Pick<OptionRule, 'number'>, value: Uint8Array): CoapOption => ({
  number,
  value,
});

/** The options in ascending order of their numbers. Options with the same number keep their order. */
export const sorted = (options: readonly CoapOption[]): CoapOption[] =>
  options.toSorted((a, b) => a.number - b.number);

/** Path and query of a request as options. `segments` are not percent-encoded; `query` parts are `name=value` each. */
export const uriOptions = (segments: readonly string[], query: readonly string[] = []): CoapOption[] => [
  ...segments.map((segment) => text(Option.UriPath, segment)),
  ...query.map((part) => text(Option.UriQuery, part)),
];
