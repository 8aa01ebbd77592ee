import assert from 'node:assert/strict';
import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { decode, encode, Malformed, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { amplification, reply } from '../../src/wire/coap/message.ts';
import { Option, opaque, optionValue, sorted, text, uint } from '../../src/wire/coap/options.ts';
import { OscoreKeys } from '../../src/wire/secure/oscore/keys.ts';
import { headerOf, openRequest, protectRequest } from '../../src/wire/secure/oscore/messages.ts';
import { pivOf, readHeader, sequenceOf, writeHeader } from '../../src/wire/secure/oscore/option.ts';
import { type Datagram, ofDevice, ofGateway, pair, turn } from '../wire/secure/oscore/party.ts';
import { type Dice, mutate } from './mutate.ts';
import { playBounds, runPlays } from './plays.ts';
import type { Run } from './run.ts';
import type { Target } from './targets.ts';

const remembered = 64;

/** A gateway, and an honest device with a security context, whose datagrams anyone can copy. */
class Play {
  readonly findings: string[] = [];
  answers = 0;
  readonly #dice: Dice;
  readonly #parties;
  readonly #history: Buffer[] = [];
  readonly #scratch = Buffer.alloc(2048);
  /** What the device has said and the gateway has not yet heard. */
  readonly #said = new Set<string>();
  /** What was protected by each number, by sender. */
  readonly #numbers = new Map<string, string>();
  readonly #accounts = new Map<string, { sent: number; got: number }>();

  constructor(dice: Dice) {
    this.#dice = dice;
    const parties = pair(seededEntropy(dice.roll(0x7fff_ffff)));
    const { wire, gateway } = parties;
    this.#parties = parties;
    gateway.handler = ({ payload, remote }) => {
      const said = Buffer.from(payload).toString();
      if (remote.identity === 'device' && !this.#said.delete(said)) this.findings.push(`heard ${said}`);
      return reply(Code.Content, { payload: remote.identity === 'device' ? `${said}!` : 'x' });
    };
    wire.pass = (datagram) => {
      this.#look(datagram);
      return [datagram.bytes];
    };
    wire.astray = (bytes, address) => {
      this.answers++;
      this.#account(address).got += bytes.length;
    };
  }

  async run(): Promise<void> {
    await this.#talk('before');
    for (let step = 0; step < playBounds.inputs && this.findings.length < playBounds.findings; step++)
      await this.#step();
    // What was made up at the message layer, which OSCORE does not protect, is forgotten by then.
    const { wire, gateway, device } = this.#parties;
    wire.clock.advance(600_000);
    await this.#talk('after');
    wire.clock.advance(600_000);
    await wire.settle();
    for (const { endpoint } of [gateway, device]) {
      const { exchanges, pendingRequests, working } = endpoint.footprint;
      if (exchanges + pendingRequests + working > 0)
        this.findings.push(`footprint ${JSON.stringify(endpoint.footprint)}`);
      endpoint.stop();
    }
    if (wire.clock.timers > 0) this.findings.push(`${wire.clock.timers} timers are left`);
  }

  /** A datagram that was changed or repeated, from the device's place or another one; or time passes, or the gateway restarts. */
  async #step(): Promise<void> {
    const { wire, gateway, device } = this.#parties;
    const pick = () => this.#history[this.#dice.roll(this.#history.length)]!;
    const kind = this.#dice.roll(64);
    if (kind === 0) wire.clock.advance(this.#dice.roll(40_000));
    else if (kind === 1) gateway.start();
    else if (kind === 2) await this.#talk(`at ${this.#dice.roll(1_000_000)}`, true);
    else {
      const datagram = Buffer.from(kind < 8 ? pick() : mutate(this.#dice, pick(), pick(), this.#scratch));
      // Without another message ID most are taken for repetitions.
      if (datagram.length >= 4 && this.#dice.roll(2) === 0)
        datagram.writeUInt16BE(this.#dice.roll(65_536), 2);
      try {
        if (kind < 12) device.endpoint.receive(datagram, gateway.address, 5683);
        else if (kind < 36) gateway.endpoint.receive(datagram, device.address, 5683);
        else {
          const address = `198.51.100.${this.#dice.roll(4)}`;
          this.#account(address).sent += datagram.length;
          gateway.endpoint.receive(datagram, address, 1000 + this.#dice.roll(4));
        }
      } catch (thrown) {
        this.findings.push(`threw ${String(thrown)} at ${datagram.toString('hex')}`);
      }
    }
    await wire.settle();
    for (const [address, { sent, got }] of this.#accounts)
      if (got > amplification * sent) this.findings.push(`${got} bytes to ${address} for ${sent}`);
  }

  /** Says something. It has to arrive, unless an adversary is there who can reset a request. */
  async #talk(said: string, mayFail = false): Promise<void> {
    const { wire, gateway, device } = this.#parties;
    this.#said.add(said);
    const asked = device.endpoint
      .request(gateway.address, 5683, {
        code: Code.POST,
        options: [text(Option.UriPath, 'x')],
        payload: Buffer.from(said),
        timeout: 30_000,
      })
      .then(
        ({ payload }) => Buffer.from(payload).toString(),
        () => undefined,
      );
    await wire.settle();
    for (let waited = 0; waited < 4; waited++) {
      wire.clock.advance(8000);
      await wire.settle();
    }
    const answer = await Promise.race([asked, turn()]);
    if (answer !== `${said}!` && !mayFail) this.findings.push(`an honest device is not served: ${said}`);
  }

  #look({ from, bytes }: Datagram): void {
    if (this.#history.length < remembered) this.#history.push(bytes);
    else if (this.#dice.roll(8) === 0) this.#history[this.#dice.roll(remembered)] = bytes;
    const message = decode(bytes);
    if (message instanceof Malformed || !optionValue(message.options, Option.Oscore)) return;
    const piv = headerOf(message)?.piv;
    if (!piv) return;
    const key = `${from.address} ${sequenceOf(piv)}`;
    const content = Buffer.from(message.payload).toString('hex');
    const before = this.#numbers.get(key);
    if (before !== undefined && before !== content) this.findings.push(`${key} was used twice`);
    this.#numbers.set(key, content);
  }

  #account(address: string) {
    const account = this.#accounts.get(address) ?? { sent: 0, got: 0 };
    this.#accounts.set(address, account);
    return account;
  }
}

/**
 * Plays an adversary who copies, changes and repeats datagrams of an honest device, from its address and from others, while the gateway
 * loses its memory now and then. Checks that nothing is thrown, that nothing is heard in the device's name but what it has said, and
 * that once; that no number is used twice; that the device is served; that no more than three times the bytes go to others; and that
 * all ends.
 */
export async function fuzzOscore(dice: Dice, inputs: number, until: number): Promise<Run> {
  return await runPlays('OSCORE endpoint', (own) => new Play(own), dice, inputs, until);
}

const [device, gateway] = [new OscoreKeys(ofDevice), new OscoreKeys(ofGateway)];
const malformed = () => new PosternError('malformed', 'it cannot be opened');
const kid = ofDevice.senderId;
const plaintext = (...parts: string[]) => Buffer.from(parts.join(''), 'hex');

/** The readers of OSCORE: the option, a whole message, and what is inside of one that verifies. */
export const oscoreTargets: readonly Target[] = [
  {
    name: 'OSCORE options',
    decode: (input) => {
      const header = readHeader(input);
      if (!header) throw malformed();
      assert.deepEqual(Buffer.from(writeHeader(header)), Buffer.from(input), 'each header has one form');
    },
    corpus: [
      noBytes,
      ...[0, 20, 300, 2 ** 40 - 1].flatMap((sequence) => [
        Buffer.from(writeHeader({ piv: pivOf(sequence) })),
        writeHeader({ piv: pivOf(sequence), kid }),
        writeHeader({ piv: pivOf(sequence), kid, kidContext: Buffer.from('37cbf3210017a2d3', 'hex') }),
      ]),
    ],
  },
  {
    name: 'OSCORE messages',
    decode: (input) => {
      const message = decode(Buffer.from(input));
      const { kid: from, piv } = (!(message instanceof Malformed) && headerOf(message)) || {};
      if (message instanceof Malformed || !from || !piv) throw malformed();
      if (!openRequest(gateway, { kid: from, piv }, message)) throw malformed();
    },
    corpus: [1, 2, 70_000].map((sequence) => {
      const options = [
        text(Option.UriPath, 'dm'),
        uint(Option.Block2, 6),
        opaque(Option.Echo, Buffer.alloc(18)),
      ];
      const plain = { code: Code.POST, options: sorted(options), payload: Buffer.from('payload') };
      const { message } = protectRequest(device, pivOf(sequence), plain);
      return encode({ ...message, type: Type.CON, messageId: sequence & 0xffff, token: Buffer.alloc(8) });
    }),
  },
  {
    name: 'OSCORE contents',
    decode: (input) => {
      const request = { kid, piv: pivOf(5) };
      const options = [opaque(Option.Oscore, writeHeader(request))];
      const payload = device.seal(request, request.piv, input);
      if (!openRequest(gateway, request, { code: Code.POST, options, payload })) throw malformed();
    },
    corpus: [
      plaintext('01b3747631'),
      plaintext('02', 'b2646d', '1128', 'ff', '3c612f3e'),
      plaintext('01', '60', '53646d6e', 'd1ea06', 'd2e3000102'),
    ],
  },
];
