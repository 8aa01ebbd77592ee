import { createHash, createPrivateKey, sign, verify, X509Certificate } from 'node:crypto';
import { closeSync, createReadStream, openSync, readSync } from 'node:fs';
import * as v from 'valibot';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';

const magic = 'postern-update 1\n';
/** Bytes before the program: manifest, signature and certificates. */
const headLimit = 64 * 1024;

const manifestSchema = v.strictObject({
  compatible: v.string(),
  version: v.string(),
  floor: v.optional(v.string()),
  size: v.pipe(v.number(), v.integer(), v.minValue(1)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** A bundle for slots that are directories: one program, and who answers for it. */
export interface ReadBundle {
  readonly manifest: Manifest;
  /** Where in the file the program begins. */
  readonly from: number;
}

/** Makes a bundle: the magic line, then manifest, signature and PEM certificates, a line each, and the program. */
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
 * Reads the head of a bundle, and checks that who signed it comes from an authority. The program is not looked at.
 * @param authority PEM
 * @throws {FumoRefusal} 402 when it is no bundle, 404 when the signature is not trusted
 */
export function readBundle(file: string, authority: string): ReadBundle {
  const head = headOf(file);
  if (!head.subarray(0, magic.length).equals(Buffer.from(magic)))
    throw new FumoRefusal(FumoResult.Corrupt, 'this is no update bundle');
  const ends: number[] = [magic.length];
  for (let line = 0; line < 3; line++) {
    const end = head.indexOf('\n', ends.at(-1));
    if (end === -1) throw new FumoRefusal(FumoResult.Corrupt, 'the head of the bundle is cut off');
    ends.push(end + 1);
  }
  const [manifestLine = '', signature = '', certificates = ''] = ends
    .slice(0, -1)
    .map((start, index) => head.subarray(start, ends[index + 1]! - 1).toString());
  checkSignature(manifestLine, signature, Buffer.from(certificates, 'base64').toString(), authority);
  return { manifest: parseManifest(manifestLine), from: ends.at(-1)! };
}

/** @throws {FumoRefusal} 402 when the program is cut off, longer, or another than the manifest says */
export async function checkProgram(file: string, { manifest, from }: ReadBundle): Promise<void> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of createReadStream(file, { start: from })) {
    size += (chunk as Buffer).length;
    hash.update(chunk as Buffer);
  }
  if (size !== manifest.size)
    throw new FumoRefusal(FumoResult.Corrupt, `the bundle has ${size} bytes of ${manifest.size}`);
  if (hash.digest('hex') !== manifest.sha256)
    throw new FumoRefusal(FumoResult.Corrupt, 'the digest of the program is another');
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

/** The first certificate signed; those behind it lead to the authority. */
function checkSignature(manifest: string, signature: string, pem: string, authority: string): void {
  const untrusted = (why: string, cause?: unknown) =>
    new FumoRefusal(FumoResult.NotValidated, why, { cause });
  let chain: X509Certificate[];
  try {
    const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    chain = [...found.slice(0, 4), authority].map((one) => new X509Certificate(one));
  } catch (cause) {
    throw untrusted('its certificates cannot be read', cause);
  }
  const [signer] = chain;
  if (!signer || chain.length < 2) throw untrusted('no certificate says who signed the bundle');
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
    throw new FumoRefusal(FumoResult.NotAcceptable, 'the manifest is no JSON', { cause });
  }
  const result = v.safeParse(manifestSchema, value);
  if (!result.success)
    throw new FumoRefusal(FumoResult.NotAcceptable, 'the manifest is of a kind that is not known here');
  return result.output;
}

const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
