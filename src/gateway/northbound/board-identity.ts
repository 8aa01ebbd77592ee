import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceDurably, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { setAside } from '../../base/recover-state.ts';
import { pemCertificates } from '../../wire/secure/dtls/certificates.ts';
import type { EnrolmentGrant } from '../../wire/tunnel/enrolment-message.ts';
import { gatewayTopics, goneUnit } from '../../wire/tunnel/topics.ts';
import { IdentityFiles, orUndefined } from './identity-files.ts';

/** The DM account that a gateway got by enrolment. */
export interface EnrolledAccount {
  readonly gateway: string;
  readonly server: string;
  readonly clientSecret: string;
  readonly serverSecret: string;
}

/**
 * The identity of a board in its folder: key pair, certificate, DM account. All files have mode 0600 and are replaced as a
 * whole; key and account are encrypted. `enrolled.json` is written last: without it, or without one of the others, the board is not enrolled and asks again.
 */
export class BoardIdentity {
  readonly #folder: string;
  readonly #files: IdentityFiles;

  constructor(folder: string, files = new IdentityFiles()) {
    this.#folder = folder;
    this.#files = files;
  }

  /** PEM file of the private key. */
  get keyFile(): string {
    return join(this.#folder, 'gateway.key');
  }

  /** PEM file of the certificate, followed by those of its issuers. */
  get certificateFile(): string {
    return join(this.#folder, 'gateway.crt');
  }

  /** PEM file of a certificate that is tried at the broker. It is there only meanwhile. */
  get nextFile(): string {
    return join(this.#folder, 'gateway.crt.next');
  }

  /** PEM file of the certificate for the next connection: the one that is tried, if there is one. */
  get connectingFile(): string {
    return existsSync(this.nextFile) ? this.nextFile : this.certificateFile;
  }

  get #accountFile(): string {
    return join(this.#folder, 'enrolled.json');
  }

  /**
   * The key of the board. It is made at the first call, and never again while its file is there.
   * @throws {PosternError} `configuration` when the file holds something else or is encrypted by another key, `storage` when it
   *   cannot be written
   */
  key(): KeyObject {
    this.makeKey();
    return this.#read(this.keyFile, 'private key of P-256', keyOf);
  }

  /** Reads a file. @throws {PosternError} `configuration` when it cannot be read, or does not hold what it should */
  #read<T>(file: string, what: string, parse: (content: Buffer) => T | undefined): T {
    let content: Buffer;
    try {
      content = this.#files.read(file);
    } catch (cause) {
      throw new PosternError('configuration', `${file} ${asPosternError(cause).message}`, { cause });
    }
    const found = orUndefined(() => parse(content));
    if (found === undefined) throw new PosternError('configuration', `${file} holds no ${what}`);
    return found;
  }

  /**
   * Deletes what a power cut has left of a write, an order of a transfer included: it holds secrets, and nobody was told that it is
   * stored. Sets each file aside that is damaged, so that the board asks for what is missing. To be called at the start, before anything
   * else is read. A file that cannot be read at all stays: it may be right. So do encrypted files when the key opens none of them: the
   * key is another one.
   * @param told called with the file, and with its new name
   */
  mend(told: (file: string, aside: string) => void): void {
    // The order of a transfer is a folder. Another folder is none of what a write leaves, and stays.
    for (const name of orUndefined(() => readdirSync(this.#folder)) ?? [])
      if (name.endsWith('.new'))
        orUndefined(() => rmSync(join(this.#folder, name), { recursive: name === 'next.new' }));
    const key = orUndefined(() => keyOf(this.#files.read(this.keyFile)));
    const isOfKey = (content: Buffer) => {
      const certificate = new X509Certificate(content);
      return !key || certificate.checkPrivateKey(key) ? certificate : undefined;
    };
    const checks: readonly [string, (content: Buffer) => unknown][] = [
      [this.keyFile, keyOf],
      [this.certificateFile, isOfKey],
      [this.nextFile, isOfKey],
      [this.#accountFile, accountOf],
    ];
    const isKeyRight = [this.keyFile, this.#accountFile].some((file) => this.#files.opens(file));
    for (const [file, parse] of checks) {
      const content = orUndefined(() => this.#files.read(file));
      const isDamaged = content
        ? orUndefined(() => parse(content)) === undefined
        : isKeyRight && this.#files.opens(file) === false;
      if (isDamaged) told(file, setAside(file, 'corrupt'));
    }
  }

  /**
   * Encrypts files with secrets that are in clear, also those of a transfer that has begun.
   * @throws {Error} of the file system, {PosternError} `storage`, `configuration`: files that are left are readable as before
   */
  seal(): void {
    for (const folder of [this.#folder, join(this.#folder, 'next')]) this.#files.sealAll(folder);
  }

  /** Makes the key, unless there is one. @throws {PosternError} `storage` */
  makeKey(): void {
    if (existsSync(this.keyFile)) return;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.#demandStored(() => {
      makeFolder(this.#folder, { mode: 0o700 });
      writeDurably(join(this.#folder, 'gateway.pub'), publicKey.export({ type: 'spki', format: 'pem' }));
      // The private key comes last: while it is missing, both are made anew.
      this.#files.write(this.keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    });
  }

  /**
   * The account; undefined before enrolment, and when key or certificate are gone.
   * @throws {PosternError} `configuration` when the file cannot be read
   */
  account(): EnrolledAccount | undefined {
    const file = this.#accountFile;
    if (![file, this.keyFile, this.certificateFile].every((one) => existsSync(one))) return undefined;
    return this.#read(file, 'account', accountOf);
  }

  /**
   * Checks and stores what the head-end grants. What is stored survives a power cut.
   * @param gateway name that was asked for
   * @throws {PosternError} `malformed` when it is not for this gateway and key, `storage`
   */
  store(grant: EnrolmentGrant, gateway: string): void {
    const { server, clientSecret, serverSecret, chain, topics } = grant;
    const { state, up, down } = gatewayTopics(gateway);
    if (grant.gateway !== gateway || topics.state !== state || topics.up !== up || topics.down !== down)
      throw new PosternError('malformed', `it is for ${grant.gateway}, with other topics: ${topics.up}`);
    const pem = this.#checked(chain, gateway);
    this.#demandStored(() => {
      writeDurably(this.certificateFile, pem);
      this.#files.write(this.#accountFile, JSON.stringify({ gateway, server, clientSecret, serverSecret }));
    });
  }

  /**
   * Checks and stores a certificate that is to be tried at the broker.
   * @param pem certificates, the own one first
   * @throws {PosternError} `malformed` when it is not for this gateway and key, or ends before the one in use; `storage`
   */
  storeNext(pem: string, gateway: string): void {
    const checked = this.checkNext(pem, gateway);
    this.#demandStored(() => writeDurably(this.nextFile, checked));
  }

  /**
   * Checks a certificate as `storeNext`, and returns it.
   * @throws {PosternError} `malformed`
   */
  checkNext(pem: string, gateway: string): string {
    const chain = certificatesOf(pem).map(({ raw }) => raw);
    const checked = this.#checked(chain, gateway);
    // Where the one in use is lost, any other one is better.
    const present = orUndefined(() => this.certificate());
    if (present && new X509Certificate(checked).validToDate < present.validToDate)
      throw new PosternError('malformed', 'the certificate ends before the one in use');
    return checked;
  }

  /** The certificate that was tried is in use from now on. */
  takeNext(): void {
    this.#demandStored(() => replaceDurably(this.nextFile, this.certificateFile));
  }

  /** The certificate that was tried is set aside, for people to look at. */
  dropNext(): void {
    this.#demandStored(() => replaceDurably(this.nextFile, join(this.#folder, 'gateway.crt.refused')));
  }

  /**
   * The certificate in use.
   * @throws {PosternError} `malformed`
   */
  certificate(): X509Certificate {
    return certificateOf(readFileSync(this.certificateFile));
  }

  /** The certificate in use and those of its issuers, PEM. Empty when it is lost, so that another one can be written. */
  chain(): string {
    return orUndefined(() => readFileSync(this.certificateFile, 'utf8')) ?? '';
  }

  /**
   * Whether a certificate shows that another board has the name of this one now: the authority of this board's certificate
   * has issued it later, for the same name and another key.
   * @throws {PosternError} `malformed`
   */
  isReplacedBy(der: Uint8Array, gateway: string): boolean {
    const other = certificateOf(der);
    const [own, issuer] = certificatesOf(this.chain());
    return (
      own !== undefined &&
      issuer !== undefined &&
      other.verify(issuer.publicKey) &&
      commonNameOf(other) === gateway &&
      !other.checkPrivateKey(this.key()) &&
      other.validFromDate >= own.validFromDate
    );
  }

  /**
   * Whether a certificate shows that the owner has ended its relation to this board: the authority of this board's
   * certificate has issued it for the same name, and its subject names the key of this board as one that is gone.
   * @throws {PosternError} `malformed`
   */
  isGone(der: Uint8Array, gateway: string): boolean {
    const other = certificateOf(der);
    const [, issuer] = certificatesOf(this.chain());
    return (
      issuer !== undefined &&
      other.verify(issuer.publicKey) &&
      commonNameOf(other) === gateway &&
      other.subject.split('\n').includes(`OU=${goneUnit(keyId(this.key()))}`)
    );
  }

  /** The broker of an owner to whom this gateway was passed. Undefined when the configuration has it. */
  owner(): { readonly url?: string; readonly ca?: string } | undefined {
    const file = join(this.#folder, 'owner.json');
    if (!existsSync(file)) return undefined;
    const { url, ca } = this.#read(file, 'owner', (content) => JSON.parse(content.toString()));
    return { url, ...(ca && { ca: join(this.#folder, 'ca.pem') }) };
  }

  /** Gives the account up: at the next start the board asks for another one. The key stays. */
  giveUp(): void {
    this.#demandStored(() => replaceDurably(this.#accountFile, join(this.#folder, 'enrolled.json.replaced')));
  }

  #demandStored(work: () => void): void {
    try {
      work();
    } catch (cause) {
      throw new PosternError('storage', `${this.#folder}: ${String(cause)}`, { cause });
    }
  }

  /**
   * The chain as PEM.
   * @throws {PosternError} `malformed` when its first certificate is not for this name and key
   */
  #checked(chain: readonly Uint8Array[], gateway: string): string {
    const [own, ...issuers] = chain.map(certificateOf);
    if (!own?.checkPrivateKey(this.key()) || commonNameOf(own) !== gateway)
      throw new PosternError('malformed', `the certificate is not for ${gateway} with the key of this board`);
    return [own, ...issuers].map(String).join('');
  }
}

/** @throws {PosternError} `malformed` */
const certificatesOf = (pem: string): X509Certificate[] =>
  (pem.match(pemCertificates) ?? []).map((one) => certificateOf(Buffer.from(one)));

/** Undefined when it is no key of P-256. */
function keyOf(content: Buffer): KeyObject | undefined {
  const key = createPrivateKey(content);
  return key.asymmetricKeyDetails?.namedCurve === 'prime256v1' ? key : undefined;
}

function accountOf(content: Buffer): EnrolledAccount | undefined {
  const { gateway, server, clientSecret, serverSecret } = JSON.parse(content.toString());
  const isWhole = [gateway, server, clientSecret, serverSecret].every((one) => typeof one === 'string');
  return isWhole ? { gateway, server, clientSecret, serverSecret } : undefined;
}

/** @throws {PosternError} `malformed` */
function certificateOf(der: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch (cause) {
    throw new PosternError('malformed', 'there is a certificate that cannot be read', { cause });
  }
}

/** The common name of a certificate's subject, by which a broker knows its holder. Undefined when there is none. */
export const commonNameOf = ({ subject }: X509Certificate): string | undefined =>
  /^CN=(.*)$/m.exec(subject)?.[1];

/** Names a key: the first 32 hexadecimal digits of the SHA-256 of its SubjectPublicKeyInfo. */
export const keyId = (key: KeyObject): string =>
  createHash('sha256')
    .update(createPublicKey(key).export({ type: 'spki', format: 'der' }))
    .digest('hex')
    .slice(0, 32);
