import { createPrivateKey, hash, sign, type X509Certificate } from 'node:crypto';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import * as v from 'valibot';
import { fileDigest } from '../../base/file-digest.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { type BundleTrust, checkSignatures } from './bundle-trust.ts';
import type { RevocationList } from './revocation-list.ts';

/** First line of a bundle. */
const magic = 'postern-update 1\n';
/** Maximum size in bytes of the head: everything before the program. */
const headLimit = 64 * 1024;

/**
 * `compatible`: kind of board. `floor`: lowest version that may boot afterwards. `size`: bytes of the program. `authority`: the PEM
 * certificate of a new authority for signers, and the seconds since 1970 until which the one of this bundle's signer is trusted
 * beside it.
 */
const manifestSchema = v.strictObject({
  compatible: v.string(),
  version: v.string(),
  floor: v.optional(v.string()),
  size: v.pipe(v.number(), v.integer(), v.minValue(1)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  authority: v.optional(v.strictObject({ certificate: v.string(), until: v.number() })),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** The verified head of a bundle for directory slots. */
export interface ReadBundle {
  readonly manifest: Manifest;
  /** Position in the file at which the program begins. */
  readonly from: number;
  /** The authority of the signer. */
  readonly authority: X509Certificate;
  /** The revocation lists that are in force, with those that the bundle brought. */
  readonly lists: readonly RevocationList[];
}

/** Who signs a bundle. */
export interface BundleSigner {
  /** PEM certificates, the signer's own first, and PEM revocation lists. */
  readonly certificates: readonly string[];
  /** PEM of the private key. */
  readonly key: string;
}

/**
 * Makes a bundle. It consists of four lines (magic, manifest as JSON, signature of the manifest as base64, PEM
 * certificates as base64) and the program. With a second signer, the third and the fourth line have a second text behind a space.
 */
export function writeBundle(
  program: Uint8Array,
  facts: Omit<Manifest, 'size' | 'sha256'>,
  ...signers: readonly BundleSigner[]
): Buffer {
  const manifest = JSON.stringify({ ...facts, size: program.length, sha256: digestOf(program) });
  const signature = signers
    .map(({ key }) => sign('sha256', Buffer.from(manifest), createPrivateKey(key)).toString('base64'))
    .join(' ');
  const certificates = signers
    .map((signer) => Buffer.from(signer.certificates.join('\n')).toString('base64'))
    .join(' ');
  return Buffer.concat([Buffer.from(`${magic}${manifest}\n${signature}\n${certificates}\n`), program]);
}

/**
 * Reads the head of a bundle and verifies its signatures. The program is not verified; see `checkProgram`.
 * @throws {FumoRefusal} 402 when the file is not a bundle, 404 when the signature is not trusted, 405 for an unknown
 * manifest
 */
export function readBundle(file: string, trust: BundleTrust): ReadBundle {
  const head = headOf(file);
  if (!head.subarray(0, magic.length).equals(Buffer.from(magic)))
    throw new FumoRefusal(FumoResult.Corrupt, 'this is not an update bundle');
  const ends: number[] = [magic.length];
  for (let line = 0; line < 3; line++) {
    const end = head.indexOf('\n', ends.at(-1));
    if (end === -1) throw new FumoRefusal(FumoResult.Corrupt, 'the head of the bundle is incomplete');
    ends.push(end + 1);
  }
  const [manifestLine = '', signature = '', certificates = ''] = ends
    .slice(0, -1)
    .map((start, index) => head.subarray(start, ends[index + 1]! - 1).toString());
  const signed = checkSignatures(manifestLine, signature, certificates, trust);
  return { manifest: parseManifest(manifestLine), from: ends.at(-1)!, ...signed };
}

/**
 * Verifies size and digest of the program in a bundle.
 * @throws {FumoRefusal} 402 when they differ from the manifest
 */
export async function checkProgram(file: string, { manifest, from }: ReadBundle): Promise<void> {
  const size = statSync(file).size - from;
  if (size !== manifest.size)
    throw new FumoRefusal(FumoResult.Corrupt, `the program has ${size} bytes instead of ${manifest.size}`);
  if ((await fileDigest(file, from)) !== manifest.sha256)
    throw new FumoRefusal(FumoResult.Corrupt, 'the program has another digest than the manifest says');
}

function headOf(file: string): Buffer {
  const handle = openSync(file, 'r');
  try {
    const head = Buffer.alloc(headLimit);
    return head.subarray(0, readSync(handle, head, 0, headLimit, 0));
  } finally {
    closeSync(handle);
  }
}

function parseManifest(text: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FumoRefusal(FumoResult.NotAcceptable, 'the manifest is not JSON', { cause });
  }
  const result = v.safeParse(manifestSchema, value);
  if (!result.success)
    throw new FumoRefusal(
      FumoResult.NotAcceptable,
      'the manifest does not have the fields that are known here',
    );
  return result.output;
}

/** SHA-256 in hexadecimal. */
export const digestOf = (bytes: Uint8Array): string => hash('sha256', bytes);
