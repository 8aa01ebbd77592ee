import { hash, randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { identifier } from '../../src/base/config.ts';
import { UsageError } from '../recipe/command.ts';

/** What makes one board this board, before it has made its key. */
export interface Identity {
  /** Name of the gateway. */
  readonly gateway: string;
  /** Serial number, as on the label: three groups of four characters. */
  readonly serial: string;
  /** One-time code of 128 random bits. Whoever shows it first is enrolled as this gateway. */
  readonly code: string;
}

/** Digits and letters without those that are mistaken for one another (Crockford's base 32). */
const letters = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
/** Characters of a serial number. They have 60 random bits: a million boards share one with a chance of less than 1 to 10^6. */
const length = 12;

const randomLetters = (count: number): string =>
  Array.from(randomBytes(count), (octet) => letters[octet % letters.length]).join('');

/**
 * Makes identities. They are random, so two runs need no common memory to have none in common, on one machine or on many.
 * @param site beginning of the names
 */
export function newIdentities(site: string, count: number): Identity[] {
  const serials = new Set<string>();
  while (serials.size < count) serials.add(randomLetters(length));
  return Array.from(serials, (serial) => ({
    gateway: `${site}-${serial.toLowerCase()}`,
    serial: serial.replace(/(.{4})(?=.)/g, '$1-'),
    code: randomBytes(16).toString('base64url'),
  }));
}

/** What the head-end keeps of a code. */
export const codeHash = (code: string): string => hash('sha256', code);

/**
 * A name for a batch.
 * @throws {UsageError} when names of gateways cannot begin with this site
 */
export function newBatchName(site: string): string {
  if (!v.is(identifier, `${site}-${'x'.repeat(length)}`))
    throw new UsageError(
      `--site ${site}: at most ${63 - length} of the characters A-Z a-z 0-9 . _ : - are wanted`,
    );
  return `${site}-batch-${randomLetters(8).toLowerCase()}`;
}

/** @throws {UsageError} when the value of an option is not a whole number from 1 to `most` */
export function integerOption(option: string, value: string, most: number): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < 1 || number > most)
    throw new UsageError(`${option} ${value}: a whole number from 1 to ${most} is wanted`);
  return number;
}
