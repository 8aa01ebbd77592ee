import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import type { Clock } from './clock.ts';
import type { FileKind } from './config.ts';
import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';
import { certificatesOf, parsed, privateKeyOf } from './pem.ts';

/** The parts of a valibot schema that lead to the files. */
interface Schema {
  readonly type: string;
  readonly wrapped?: Schema;
  readonly item?: Schema;
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly pipe?: readonly (Schema & { readonly metadata?: { readonly file?: FileKind } })[];
}

interface NamedFile {
  /** Key of the configuration, such as `mqtt.ca` or `images.signing-keys[0]`. */
  readonly key: string;
  readonly kind: FileKind;
  readonly path: string;
}

type Read = (path: string) => Buffer;

/**
 * Reads and checks the files that a checked configuration names.
 * @param file name of the configuration file, for the error message
 * @param read reads a file, in place of `readNamedFile`
 * @throws {PosternError} `configuration`, with one line for each fault
 */
export function checkFiles(
  schema: unknown,
  config: unknown,
  file: string,
  clock: Pick<Clock, 'wall'>,
  read: Read = readNamedFile,
): void {
  const files = filesIn(schema, config);
  const faults = files.flatMap(
    (one) => faultOf(one, clock.wall(), read) ?? pairFault(one, files, read) ?? [],
  );
  if (faults.length > 0)
    throw new PosternError('configuration', faults.map((fault) => `${file}: ${fault}`).join('\n'));
}

/** The files that a checked configuration names. */
export const filesIn = (schema: unknown, config: unknown): readonly NamedFile[] =>
  filesBelow(schema as Schema, config, '');

function filesBelow(schema: Schema, value: unknown, key: string): NamedFile[] {
  if (value === undefined) return [];
  const { wrapped, item, entries } = schema;
  const kind = kindOf(schema);
  if (kind) return [{ key, kind, path: String(value) }];
  if (wrapped) return filesBelow(wrapped, value, key);
  if (item) return (value as unknown[]).flatMap((one, at) => filesBelow(item, one, `${key}[${at}]`));
  const table = value as Readonly<Record<string, unknown>>;
  const below = (name: string) => (key === '' ? name : `${key}.${name}`);
  return Object.entries(entries ?? {}).flatMap(([name, entry]) =>
    filesBelow(entry, table[name], below(name)),
  );
}

/** A pipe begins with the schema that it extends, which may be a pipe too. */
function kindOf({ pipe = [] }: Schema): FileKind | undefined {
  for (const step of pipe) {
    const kind = step.metadata?.file ?? kindOf(step);
    if (kind) return kind;
  }
  return undefined;
}

/** What is wrong with a file, in words. */
function faultOf({ key, kind, path }: NamedFile, now: number, read: Read): string | undefined {
  let content: Buffer;
  try {
    content = read(path);
  } catch (thrown) {
    return `${key}: ${path} ${asPosternError(thrown).message}`;
  }
  try {
    checkContent(kind, content, now);
    return undefined;
  } catch (thrown) {
    return `${key}: ${path}: ${asPosternError(thrown).message}`;
  }
}

function checkContent(kind: FileKind, content: Buffer, now: number): void {
  if (kind === 'any') return;
  if (kind === 'private-key') return void privateKeyOf(content);
  if (kind === 'public-key') return void parsed('public key', () => createPublicKey(content));
  for (const { subject = '', validFromDate, validToDate } of certificatesOf(content.toString())) {
    // A certificate whose names are all alternative ones has no subject.
    const name = subject.replaceAll('\n', ', ');
    if (validToDate.getTime() < now)
      throw new PosternError('configuration', `the certificate of ${name} expired on ${day(validToDate)}`);
    if (validFromDate.getTime() > now)
      throw new PosternError(
        'configuration',
        `the certificate of ${name} is valid from ${day(validFromDate)} on`,
      );
  }
}

const day = (date: Date): string => date.toISOString().slice(0, 10);

/** A private key must be that of the certificate in the same table. Both files can be read when this is asked. */
function pairFault(one: NamedFile, files: readonly NamedFile[], read: Read): string | undefined {
  if (one.kind !== 'private-key') return undefined;
  const table = one.key.slice(0, one.key.lastIndexOf('.') + 1);
  const partner = files.find(({ key, kind }) => kind === 'certificate' && key.startsWith(table));
  if (!partner) return undefined;
  try {
    const certificate = new X509Certificate(read(partner.path));
    if (certificate.checkPrivateKey(createPrivateKey(read(one.path)))) return undefined;
  } catch {
    // The certificate has a fault of its own.
    return undefined;
  }
  return `${one.key}: ${one.path} is not the key of the certificate ${partner.path}`;
}
