import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { DtlsFailure } from '../../src/wire/secure/dtls/alerts.ts';
import type { Place } from '../../src/wire/secure/dtls/association.ts';
import { Reader } from '../../src/wire/secure/dtls/bytes.ts';
import { proven } from '../../src/wire/secure/dtls/certificate-check.ts';
import { factsOf } from '../../src/wire/secure/dtls/certificate-facts.ts';
import {
  certificateBytes,
  certificateRequestBytes,
  readCertificate,
  readCertificateRequest,
  readSignature,
  readSignedShare,
  signatureBytes,
} from '../../src/wire/secure/dtls/certificate-messages.ts';
import { presented } from '../../src/wire/secure/dtls/certificates.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';
import { CertificateType } from '../../src/wire/secure/dtls/extensions.ts';
import { readClientHello, readHelloVerify, readServerHello } from '../../src/wire/secure/dtls/hellos.ts';
import {
  readClientPoint,
  readClientShare,
  readServerShare,
  shareBytes,
} from '../../src/wire/secure/dtls/key-exchange.ts';
import { readFragments } from '../../src/wire/secure/dtls/messages.ts';
import { Reassembly } from '../../src/wire/secure/dtls/reassembly.ts';
import { recordsOf } from '../../src/wire/secure/dtls/record.ts';
import { certificateSuites, pskSuites } from '../../src/wire/secure/dtls/suites.ts';
import { HandClock } from '../hand-clock.ts';
import { authority, certificatesOf, issue } from '../wire/secure/dtls/authority.ts';
import { Dice, mutate } from './mutate.ts';
import { playBounds, runPlays } from './plays.ts';
import type { Run } from './run.ts';
import type { Target } from './targets.ts';

const key = Buffer.from('0123456789abcdef');
const root = authority('Root');
const middle = authority('Middle', {}, root);
const serverOwn = issue({ dnsNames: ['server.example'] }, root);
const honestOwn = issue({ commonNames: ['honest'], uris: ['urn:x:honest'] }, middle);
const served = certificatesOf(serverOwn, { authorities: [root], rawKeys: { raw: honestOwn } });
/** What the honest client proves itself with: a pre-shared key, a certificate, or a raw public key. */
const credentials = [
  { identity: 'honest', key },
  {
    identity: 'honest',
    certificates: {
      ...certificatesOf(honestOwn, { chain: [honestOwn, middle], authorities: [root] }),
      serverName: 'server.example',
    },
  },
  {
    identity: 'honest',
    certificates: {
      ...certificatesOf(honestOwn, { chain: [], rawKeys: { server: serverOwn } }),
      serverName: 'server',
    },
  },
];
const serverAt: Place = { address: '192.0.2.1', port: 5684, local: '' };
const honestAt: Place = { address: '192.0.2.2', port: 40_000, local: '' };
const limits = {
  associations: 8,
  sessions: 8,
  outgoing: 4,
  lingering: 4,
  halfOpen: { entries: 16, perAddress: 4, perPrefix: 8 },
};

/** A server, and an honest client with an association, whose datagrams anyone can copy. */
class Play {
  readonly findings: string[] = [];
  answers = 0;
  /** All datagrams of both ends, for mutations. */
  readonly history: Buffer[] = [];
  readonly #clock = new HandClock();
  readonly #dice: Dice;
  readonly #scratch = Buffer.alloc(2048);
  readonly #server: DtlsEndpoint;
  readonly #client: DtlsEndpoint;
  readonly #credentials: (typeof credentials)[number];
  readonly #queue: (() => void)[] = [];
  /** What the honest client has said and the server has not yet heard, and all that it heard. */
  readonly #said = new Set<string>();
  #echoed = '';
  /** Bytes to and from each place that is not the honest one. */
  readonly #accounts = new Map<string, { sent: number; got: number }>();

  constructor(dice: Dice) {
    this.#dice = dice;
    this.#credentials = credentials[dice.roll(credentials.length)]!;
    const suites = this.#credentials.certificates ? certificateSuites : pskSuites;
    const clock = this.#clock;
    const entropy = seededEntropy(dice.roll(0x7fff_ffff));
    this.#server = new DtlsEndpoint({
      clock,
      entropy,
      limits,
      received: (association, content) => {
        if (!this.#said.delete(content.toString())) this.findings.push(`heard ${content.toString('hex')}`);
        this.#server.send(association, content);
      },
      send: (datagram, place) => {
        this.answers++;
        this.#remember(datagram);
        if (place.address === honestAt.address)
          this.#queue.push(() => this.#client.receive(datagram, serverAt));
        else this.#account(place).got += datagram.length;
      },
      server: {
        keyOf: (identity) => (identity === 'honest' ? key : undefined),
        certificates: () => served,
      },
    });
    this.#client = new DtlsEndpoint({
      clock,
      entropy,
      suites: [suites[dice.roll(suites.length)]!],
      received: (_, content) => {
        this.#echoed = content.toString();
      },
      send: (datagram) => {
        this.#remember(datagram);
        this.#queue.push(() => this.#server.receive(datagram, honestAt));
      },
    });
  }

  async run(): Promise<void> {
    await this.#connect();
    if (!this.#talk('before')) this.findings.push('an honest client is not served before');
    for (let step = 0; step < playBounds.inputs && this.findings.length < playBounds.findings; step++)
      this.#step();
    if (!this.#talk('after')) this.findings.push('the association of an honest client was lost');
    await this.#connect();
    if (!this.#talk('again')) this.findings.push('an honest client does not get in again');
    const { associations, sessions, halfOpen, lingering } = this.#server.footprint;
    if (associations > 8 || sessions > 8 || halfOpen > 16 || lingering > 4)
      this.findings.push(`footprint ${JSON.stringify(this.#server.footprint)}`);
    this.#clock.advance(200_000);
    if (this.#clock.timers > 0) this.findings.push(`${this.#clock.timers} timers are left`);
    this.#server.stop();
    this.#client.stop();
  }

  /** A datagram that was changed or repeated, from the honest client's place or another one; or time passes. */
  #step(): void {
    const { history } = this;
    const pick = () => history[this.#dice.roll(history.length)]!;
    const kind = this.#dice.roll(16);
    if (kind === 0) {
      this.#clock.advance(this.#dice.roll(3000));
      this.#settle();
      return;
    }
    const datagram = Buffer.from(kind === 1 ? pick() : mutate(this.#dice, pick(), pick(), this.#scratch));
    const isStranger = kind > 8;
    const place = isStranger
      ? { ...honestAt, address: `198.51.100.${this.#dice.roll(4)}`, port: 1000 + this.#dice.roll(4) }
      : honestAt;
    if (isStranger) this.#account(place).sent += datagram.length;
    try {
      if (kind === 2) this.#client.receive(datagram, serverAt);
      else this.#server.receive(datagram, place);
      this.#settle();
    } catch (thrown) {
      this.findings.push(`threw ${String(thrown)} at ${datagram.toString('hex')}`);
    }
    for (const [at, { sent, got }] of this.#accounts)
      if (got > 3 * sent) this.findings.push(`${got} bytes to ${at} for ${sent}`);
  }

  async #connect(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#client.connect(serverAt, this.#credentials).then(
      () => resolve(),
      () => resolve(),
    );
    this.#settle();
    this.#clock.advance(70_000);
    this.#settle();
    await promise;
  }

  #talk(text: string): boolean {
    const association = this.#client.at(serverAt.address, serverAt.port);
    if (!association) return false;
    this.#said.add(text);
    this.#client.send(association, Buffer.from(text));
    this.#settle();
    return this.#echoed === text;
  }

  #settle(): void {
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) next();
  }

  #remember(datagram: Buffer): void {
    if (this.history.length < 64) this.history.push(Buffer.from(datagram));
  }

  #account({ address, port }: Place) {
    const name = `${address} ${port}`;
    const account = this.#accounts.get(name) ?? { sent: 0, got: 0 };
    this.#accounts.set(name, account);
    return account;
  }
}

/**
 * Plays an adversary who copies, changes and repeats datagrams of an honest client, from its address and from others. Checks that
 * nothing is thrown, that nothing is heard but what the client has said, and that once; that the client's association lives on and a
 * new handshake succeeds; that no more than three times the bytes go to others; and that all is bounded and ends.
 */
export async function fuzzDtls(dice: Dice, inputs: number, until: number): Promise<Run> {
  return await runPlays('DTLS endpoint', (own) => new Play(own), dice, inputs, until);
}

/** A decoder whose complaint is a `DtlsFailure`. */
const ofDtls = (name: string, decode: (input: Buffer) => unknown, corpus: readonly Uint8Array[]): Target => ({
  name,
  corpus,
  decode: (input) => {
    try {
      return decode(Buffer.from(input));
    } catch (thrown) {
      if (thrown instanceof DtlsFailure) throw new PosternError('malformed', thrown.message);
      throw thrown;
    }
  },
});

/** Datagrams of a handshake and a record. */
async function conversation(): Promise<readonly Buffer[]> {
  const play = new Play(new Dice(1));
  await play.run();
  return play.history.slice(0, 8);
}
const datagrams = await conversation();
const bodies = datagrams.flatMap((datagram) =>
  recordsOf(datagram, 6).flatMap(({ type, epoch, fragment }) =>
    type === 22 && epoch === 0 ? readFragments(fragment) : [],
  ),
);
const bodyOf = (type: number): Buffer[] =>
  bodies.filter((each) => each.type === type).map(({ bytes }) => bytes);

const certificateMessage = (chain: readonly Buffer[]) => certificateBytes(CertificateType.X509, chain);

/** Reads and checks what a peer presents, as a server does. That it is not believed is no complaint about its form. */
function checked(type: number, body: Buffer): void {
  const entries = readCertificate(type, body);
  try {
    proven(presented(type, entries), served.trust, { role: 'client' }, Date.now());
  } catch (thrown) {
    if (!(thrown instanceof DtlsFailure)) throw thrown;
  }
}

/** The decoders of DTLS. Those of messages also put fragments together. */
export const dtlsTargets: readonly Target[] = [
  ofDtls(
    'DTLS records',
    (input) => {
      const records = recordsOf(input, 6);
      if (records.length === 0) throw new PosternError('malformed', 'no record');
      const inbox = new Reassembly(0);
      for (const { fragment } of records) for (const each of readFragments(fragment)) inbox.add(each);
      while (inbox.take());
    },
    datagrams,
  ),
  ofDtls(
    'DTLS hellos',
    (input) => (input[0] === 0xfe && input[1] === 0xff ? readHelloVerify(input) : readClientHello(input)),
    [...bodyOf(1), ...bodyOf(3)],
  ),
  ofDtls('DTLS ServerHello', readServerHello, bodyOf(2)),
  ofDtls(
    'DTLS shares',
    (input) => (input.length > 70 ? readServerShare(input, true) : readClientShare(input, false)),
    [
      ...bodyOf(16),
      Buffer.from('00066465766963', 'hex'),
      Buffer.concat([Buffer.from('0000030017' + '41', 'hex'), Buffer.alloc(65, 4)]),
    ],
  ),
  ofDtls('DTLS certificates of X.509', (input) => checked(CertificateType.X509, input), [
    certificateMessage([honestOwn.der, middle.der]),
    certificateMessage([serverOwn.der]),
    certificateMessage([honestOwn.der]),
  ]),
  ofDtls('DTLS raw public keys', (input) => checked(CertificateType.RawPublicKey, input), [
    certificateBytes(CertificateType.RawPublicKey, [served.own.publicKey]),
    certificateBytes(CertificateType.RawPublicKey, [certificatesOf(honestOwn, { chain: [] }).own.publicKey]),
  ]),
  ofDtls('facts of certificates', factsOf, [honestOwn.der, middle.der, root.der, serverOwn.der]),
  ofDtls(
    'DTLS signed messages',
    (input) => {
      if (input[0] === 3) readSignedShare(input);
      else if (input[0] === 4) readSignature(new Reader(input));
      else if (input[0] === 65) readClientPoint(input);
      else readCertificateRequest(input);
    },
    [
      Buffer.concat([shareBytes(Buffer.alloc(65, 4)), signatureBytes(Buffer.alloc(70, 0x30))]),
      signatureBytes(Buffer.alloc(71, 0x30)),
      certificateRequestBytes(),
      Buffer.concat([Buffer.from([65]), Buffer.alloc(65, 4)]),
    ],
  ),
];
