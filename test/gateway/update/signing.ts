import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BundleSigner, type Manifest, writeBundle } from '../../../src/gateway/update/bundle.ts';

/** What a certificate is to say. */
export interface CertificateFacts {
  /** Extended key usage; empty for none. */
  readonly purpose?: string;
  /** Basic constraints and key usage. */
  readonly use?: string;
  /** Milliseconds since 1970; by default a year ago and ten years from now. */
  readonly from?: number;
  readonly until?: number;
}

/** What a bundle says beside the program. */
export type Facts = Partial<Manifest> & { readonly version: string };

const year = 365.25 * 24 * 3600 * 1000;
const ofSigner = 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature';
export const ofAuthority = 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign';

/** A time as `openssl ca` takes it. */
const dateOf = (time: number): string =>
  `${new Date(time).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;

/** Signs a program as a bundle for slots that are folders. */
export const bundleBy = (
  signers: readonly BundleSigner[],
  program: Uint8Array | string,
  facts: Facts,
): Buffer => writeBundle(Buffer.from(program), { compatible: 'postern-node', ...facts }, ...signers);

/** An authority made by openssl, and who may sign below it. */
export class Authority {
  readonly folder = mkdtempSync(join(tmpdir(), 'postern-ca-'));
  readonly #name: string;
  #signer: BundleSigner | undefined;
  #signers = 0;

  constructor(name: string) {
    this.#name = name;
    process.once('exit', () => rmSync(this.folder, { recursive: true, force: true }));
    mkdirSync(join(this.folder, 'new'));
    for (const file of ['index.txt', 'index.txt.attr']) writeFileSync(join(this.folder, file), '');
    writeFileSync(
      join(this.folder, 'ca.cnf'),
      '[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=new\ncrlnumber=number\ndefault_md=sha256\npolicy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=supplied\n',
    );
    this.#openssl(
      'req',
      '-x509',
      ...this.#key('ca'),
      '-out',
      'ca.crt',
      '-subj',
      `/CN=${name}`,
      '-days',
      '7300',
    );
  }

  /** PEM. */
  get certificate(): string {
    return this.#read('ca.crt');
  }

  /** A new signer below this authority. */
  signer(facts: CertificateFacts = {}, name = `${this.#name} updates ${this.#signers + 1}`): BundleSigner {
    const {
      purpose = 'codeSigning',
      use = ofSigner,
      from = Date.now() - year,
      until = Date.now() + 10 * year,
    } = facts;
    const file = `signer-${++this.#signers}`;
    this.#openssl('req', ...this.#key(file), '-out', `${file}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(join(this.folder, 'ext'), `${use}\n${purpose && `extendedKeyUsage=${purpose}\n`}`);
    const dates = ['-startdate', dateOf(from), '-enddate', dateOf(until)];
    this.#ca('-batch', '-notext', '-extfile', 'ext', ...dates, '-in', `${file}.csr`, '-out', `${file}.crt`);
    return { certificates: [this.#read(`${file}.crt`)], key: this.#read(`${file}.key`) };
  }

  /**
   * A list of revoked signers.
   * @param number number of the list
   * @param until milliseconds since 1970 at which it ends
   * @param isNumbered whether it has its number in it
   */
  list(
    number: number,
    revoked: readonly BundleSigner[],
    until = Date.now() + 10 * year,
    isNumbered = true,
  ): string {
    writeFileSync(join(this.folder, 'number'), number.toString(16).padStart(4, '0'));
    for (const [at, { certificates }] of revoked.entries()) {
      writeFileSync(join(this.folder, `revoked-${at}`), certificates[0]!);
      try {
        this.#ca('-revoke', `revoked-${at}`);
      } catch {
        // It was revoked by a list before.
      }
    }
    return this.#list(until, isNumbered);
  }

  /** A list of that many serial numbers. */
  longList(number: number, count: number): string {
    writeFileSync(join(this.folder, 'number'), number.toString(16).padStart(4, '0'));
    const entry = (at: number) =>
      `R\t400101000000Z\t260101000000Z\t${(0xab_0000 + at).toString(16).toUpperCase()}\tunknown\t/CN=x\n`;
    writeFileSync(
      join(this.folder, 'index.txt'),
      Array.from({ length: count }, (_, at) => entry(at)).join(''),
    );
    return this.#list(Date.now() + year, true);
  }

  /** A list that is only about a part of the certificates (RFC 5280 section 5.2.5). */
  narrowList(number: number): string {
    writeFileSync(join(this.folder, 'number'), number.toString(16).padStart(4, '0'));
    const config = this.#read('ca.cnf');
    const narrow = '[narrow]\nissuingDistributionPoint=critical,@point\n[point]\nonlyuser=TRUE\n';
    writeFileSync(
      join(this.folder, 'ca.cnf'),
      `${config.replace('crlnumber=', 'crl_extensions=narrow\ncrlnumber=')}${narrow}`,
    );
    const list = this.#list(Date.now() + year, true);
    writeFileSync(join(this.folder, 'ca.cnf'), config);
    return list;
  }

  #list(until: number, isNumbered: boolean): string {
    const config = this.#read('ca.cnf');
    if (!isNumbered) writeFileSync(join(this.folder, 'ca.cnf'), config.replace(/^crlnumber.*\n/m, ''));
    this.#ca('-gencrl', '-crl_nextupdate', dateOf(until), '-out', 'list.pem');
    writeFileSync(join(this.folder, 'ca.cnf'), config);
    return this.#read('list.pem');
  }

  /** PEM certificate of another authority by this one. */
  cross({ folder }: Authority, use: string): string {
    writeFileSync(join(this.folder, 'ext'), `${use}\n`);
    const key = join(folder, 'ca.key');
    this.#openssl('req', '-new', '-key', key, '-out', 'cross.csr', '-subj', '/CN=middle');
    this.#ca(
      '-batch',
      '-notext',
      '-extfile',
      'ext',
      '-days',
      '3650',
      '-in',
      'cross.csr',
      '-out',
      'cross.crt',
    );
    return this.#read('cross.crt');
  }

  /** Signs by one signer that is good. */
  sign(program: Uint8Array | string, facts: Facts): Buffer {
    this.#signer ??= this.signer({}, `${this.#name} updates`);
    return bundleBy([this.#signer], program, facts);
  }

  #key(file: string): string[] {
    return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${file}.key`];
  }

  #ca(...args: string[]): void {
    this.#openssl('ca', '-config', 'ca.cnf', '-cert', 'ca.crt', '-keyfile', 'ca.key', ...args);
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.folder, stdio: ['ignore', 'ignore', 'pipe'] });
  }

  #read(file: string): string {
    return readFileSync(join(this.folder, file), 'utf8');
  }
}

export const makeAuthority = (name: string): Authority => new Authority(name);
