import { createPrivateKey, hash, sign, verify, X509Certificate } from 'node:crypto';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import * as v from 'valibot';
import { fileDigest } from '../../base/file-digest.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';

/** First line of a bundle. */
const magic = 'postern-update 1\n';
/** Maximum size in bytes of the head: everything before the program. */
const headLimit = 64 * 1024;

/** `compatible`: kind of board. `floor`: lowest version that may boot afterwards. `size`: bytes of the program. */
const manifestSchema = v.strictObject({
  compatible: v.string(),
  version: v.string(),
  floor: v.optional(v.string()),
  size: v.pipe(v.number(), v.integer(), v.minValue(1)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** The verified head of a bundle for directory slots. */
export interface ReadBundle {
  readonly manifest: Manifest;
  /** Position in the file at which the program begins. */
  readonly from: number;
}

/**
 * Makes a bundle. It consists of four lines (magic, manifest as JSON, signature of the manifest as base64, PEM
 * certificates as base64) and the program.
 * @param signer PEM certificates, the signer's own first, and PEM of the signer's private key
 */
export function writeBundle(
  program: Uint8Array,
  facts: Omit<Manifest, 'size' | 'sha256'>,
  signer: { readonly certificates: readonly string[]; readonly key: string },
): Buffer {
  const manifest = JSON.stringify({ ...facts, size: program.length, sha256: digestOf(program) });
  const signature = sign('sha256', Buffer.from(manifest), createPrivateKey(signer.key)).toString('base64');
  const certificates = Buffer.from(signer.certificates.join('\n')).toString('base64');
  return Buffer.concat([Buffer.from(`${magic}${manifest}\n${signature}\n${certificates}\n`), program]);
}

/**
 * Reads the head of a bundle and verifies its signature. The program is not verified; see `checkProgram`.
 * @param authority PEM certificate of the authority that must have issued the signer's certificate, directly or through
 * certificates in the bundle
 * @throws {FumoRefusal} 402 when the file is not a bundle, 404 when the signature is not trusted, 405 for an unknown
 * manifest
 */
export function readBundle(file: string, authority: string): ReadBundle {
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
  checkSignature(manifestLine, signature, Buffer.from(certificates, 'base64').toString(), authority);
  return { manifest: parseManifest(manifestLine), from: ends.at(-1)! };
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

/**
 * Verifies the signature of the manifest. The first certificate is the signer's. Each certificate must be issued by the
 * next one, and the last one by the authority. At most four certificates are read.
 * @throws {FumoRefusal} 404
 */
function checkSignature(manifest: string, signature: string, pem: string, authority: string): void {
  const untrusted = (why: string, cause?: unknown) =>
    new FumoRefusal(FumoResult.NotValidated, why, { cause });
  let chain: X509Certificate[];
  try {
    const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    chain = [...found.slice(0, 4), authority].map((one) => new X509Certificate(one));
  } catch (cause) {
    throw untrusted('the certificates in the bundle cannot be read', cause);
  }
  const [signer] = chain;
  if (!signer || chain.length < 2) throw untrusted('the bundle has no certificate of its signer');
  for (const [index, issuer] of chain.slice(1).entries()) {
    const subject = chain[index]!;
    if (!issuer.ca || !subject.checkIssued(issuer) || !subject.verify(issuer.publicKey))
      throw untrusted('the certificate of the signer does not come from the authority that is trusted');
  }
  if (!verify('sha256', Buffer.from(manifest), signer.publicKey, Buffer.from(signature, 'base64')))
    throw untrusted('the signature of the bundle is wrong');
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
