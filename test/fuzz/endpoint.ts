import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import type { EventName } from '../../src/base/event-table.ts';
import { Blockwise, packBlock } from '../../src/wire/coap/blockwise.ts';
import { type CoapMessage, decode, encode, Malformed, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { amplification, reply } from '../../src/wire/coap/message.ts';
import { Observable } from '../../src/wire/coap/observe.ts';
import { Option, text, uint } from '../../src/wire/coap/options.ts';
import { remoteKey } from '../../src/wire/coap/peer.ts';
import { Router } from '../../src/wire/coap/router.ts';
import { HandClock } from '../hand-clock.ts';
import { type Dice, mutate } from './mutate.ts';
import type { Finding, Run } from './run.ts';

const addresses = ['192.0.2.1', '192.0.2.2', '198.51.100.1', '2001:db8::1', '2001:db8:1::1'];
const ports = [5683, 40_000];
/** Timers of an endpoint that 10 peers keep busy: one of each exchange, of each transmission, and some of its own. */
const mostTimers = 4096;
/** Steps of one endpoint. After them it is stopped, and nothing may be left of it. */
const stepsOfOne = 2000;
/** Milliseconds after which an endpoint has forgotten everything (RFC 7252, section 4.8.2, EXCHANGE_LIFETIME). */
const longEnough = 600_000;
const mostFindings = 10;

interface Player {
  readonly address: string;
  readonly port: number;
  readonly key: string;
  /** Bytes that it sent and got, as long as the endpoint has no proof that it is where it claims to be. */
  sent: number;
  got: number;
  isProven: boolean;
}

/**
 * Plays peers that send any datagrams in any order to one whole endpoint with resources, blocks and observers: requests that
 * were changed, repeated or made up, acknowledgements and resets of what it sent, silence for any time. Checks that nothing is
 * thrown, that no more than three times the bytes go to a peer that has proved nothing, and that everything it keeps is
 * bounded and ends.
 */
class Play {
  readonly findings: string[] = [];
  answers = 0;
  readonly #dice: Dice;
  readonly #clock = new HandClock();
  readonly #players: Player[];
  readonly #history: Buffer[] = [];
  readonly #fromEndpoint: { readonly message: CoapMessage; readonly to: string }[] = [];
  readonly #scratch = Buffer.alloc(2048);
  readonly #endpoint: CoapEndpoint;
  readonly #observable: Observable;
  readonly #waiting: (() => void)[] = [];

  constructor(dice: Dice) {
    this.#dice = dice;
    this.#players = addresses.flatMap((address) =>
      ports.map((port) => ({
        address,
        port,
        key: remoteKey(address, port),
        sent: 0,
        got: 0,
        isProven: false,
      })),
    );
    const large = Buffer.alloc(3000, 'x');
    let handle: ReturnType<typeof this.handler>;
    this.#endpoint = new CoapEndpoint({
      clock: this.#clock,
      entropy: seededEntropy(dice.roll(0x7fff_ffff)),
      events: { emit: (name, fields) => this.#emitted(name, fields) },
      handler: (request) => handle(request),
      send: (datagram, port, address) => this.#sent(datagram, address, port),
    });
    this.#observable = new Observable(this.#endpoint, this.#clock, () =>
      reply(Code.Content, { payload: 'state' }),
    );
    handle = this.handler(large);
  }

  /** Resources of each kind: small, large, stored, slow, wrong, observed. */
  private handler(large: Buffer) {
    const wrong = () => {
      throw new PosternError('unauthorized', 'no account here for this device; bootstrap it first');
    };
    const slow = async () => {
      if (this.#waiting.length < 64) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      return reply(Code.Changed, { payload: 'slow' });
    };
    const router = new Router([
      {
        path: '/s',
        methods: { GET: () => reply(Code.Content, { payload: 'small' }) },
        links: () => [{ target: '/s', attributes: { rt: 'a' } }],
      },
      {
        path: '/l',
        methods: { GET: () => reply(Code.Content, { payload: large }) },
        etag: () => Buffer.from('e'),
      },
      {
        path: '/e',
        methods: {
          POST: ({ message }) => reply(Code.Changed, { payload: message.payload }),
          PUT: slow,
          DELETE: wrong,
        },
      },
      { path: '/o', methods: { GET: this.#observable.handle } },
    ]);
    return new Blockwise(router.handle, this.#clock).handle;
  }

  async run(): Promise<void> {
    for (let step = 0; step < stepsOfOne && this.findings.length < mostFindings; step++) {
      this.#step();
      if (this.#dice.roll(4) === 0) await new Promise((resolve) => setImmediate(resolve));
      if (this.#clock.timers > mostTimers) this.findings.push(`${this.#clock.timers} timers`);
    }
    for (const resume of this.#waiting.splice(0)) resume();
    await new Promise((resolve) => setImmediate(resolve));
    this.#endpoint.stop();
    this.#clock.advance(longEnough);
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#clock.timers > 0) this.findings.push(`${this.#clock.timers} timers after its end`);
  }

  #step(): void {
    const dice = this.#dice;
    switch (dice.roll(12)) {
      case 0:
        this.#clock.advance(dice.roll(dice.roll(10) === 0 ? 300_000 : 3000));
        return;
      case 1:
        this.#observable.changed();
        return;
      case 2:
        for (const resume of this.#waiting.splice(0, 1 + dice.roll(8))) resume();
        return;
      default: {
        const player = this.#players[dice.roll(this.#players.length)]!;
        const datagram = this.#datagram();
        if (this.#history.length < 256) this.#history.push(Buffer.from(datagram));
        else this.#history[dice.roll(256)] = Buffer.from(datagram);
        this.#receive(player, datagram, dice.roll(8) === 0);
      }
    }
  }

  #receive(player: Player, datagram: Buffer, multicast: boolean): void {
    // What went to it before the proof counts, so a proof is looked for before and after.
    if (this.#isProven(player)) player.isProven = true;
    player.sent += datagram.length;
    try {
      this.#endpoint.receive(datagram, player.address, player.port, multicast);
    } catch (error) {
      this.#found(`threw ${String(error)}`, datagram);
    }
    if (this.#isProven(player)) player.isProven = true;
  }

  #isProven({ address, port, key }: Player): boolean {
    return this.#endpoint.isProven({ address, port, key });
  }

  #sent(datagram: Buffer, address: string, port: number): void {
    this.answers++;
    const message = decode(datagram);
    if (message instanceof Malformed) {
      this.#found(`sent what is malformed: ${message.reason}`, datagram);
      return;
    }
    const key = remoteKey(address, port);
    const player = this.#players.find((one) => one.key === key);
    if (!player) {
      this.#found(`sent to a stranger, ${key}`, datagram);
      return;
    }
    if (this.#fromEndpoint.length < 64) this.#fromEndpoint.push({ message, to: key });
    else this.#fromEndpoint[this.#dice.roll(64)] = { message, to: key };
    player.got += datagram.length;
    const isProven = player.isProven || this.#isProven(player);
    if (!isProven && player.got > player.sent * amplification)
      this.#found(`${player.got} bytes for ${player.sent} to a peer that has proved nothing`, datagram);
  }

  #emitted(name: EventName, fields: object): void {
    if (['coap.handler-failed', 'background.failed'].includes(name))
      this.findings.push(`${name} ${JSON.stringify(fields)}`);
  }

  #found(what: string, input: Uint8Array): void {
    if (this.findings.length < mostFindings)
      this.findings.push(`${what}: ${Buffer.from(input).toString('hex')}`);
  }

  /** A datagram of any kind: made up from valid parts, changed, repeated, or an answer to what the endpoint sent. */
  #datagram(): Buffer {
    const dice = this.#dice;
    const old = this.#history[dice.roll(Math.max(1, this.#history.length))];
    const kind = dice.roll(10);
    if (old && kind < 2) return old;
    if (old && kind < 5) return Buffer.from(mutate(dice, old, this.#request(), this.#scratch));
    const last = this.#fromEndpoint[dice.roll(Math.max(1, this.#fromEndpoint.length))];
    // Now and then a peer answers with what went to another one: it guesses.
    if (last && kind === 5)
      return encode({
        type: dice.roll(2) === 0 ? Type.ACK : Type.RST,
        code: Code.Empty,
        messageId: last.message.messageId,
        token: noBytes,
        options: [],
        payload: noBytes,
      });
    return this.#request();
  }

  #request(): Buffer {
    const dice = this.#dice;
    const block = () => packBlock({ number: dice.roll(6), more: dice.roll(2) === 0, exponent: dice.roll(7) });
    const paths = [['s'], ['l'], ['e'], ['o'], ['.well-known', 'core'], ['none'], ['s', 'x']];
    const options = [
      ...(dice.roll(3) === 0 ? [uint(Option.Observe, dice.roll(3))] : []),
      ...paths[dice.roll(paths.length)]!.map((part) => text(Option.UriPath, part)),
      ...(dice.roll(4) === 0 ? [text(Option.UriQuery, 'rt=a')] : []),
      ...(dice.roll(3) === 0 ? [uint(Option.Block2, block())] : []),
      ...(dice.roll(3) === 0 ? [uint(Option.Block1, block())] : []),
    ];
    return encode({
      type: dice.roll(3) === 0 ? Type.NON : Type.CON,
      code: 1 + dice.roll(5),
      messageId: dice.roll(64),
      token: Buffer.alloc(dice.roll(9), dice.roll(4)),
      options: options.toSorted((a, b) => a.number - b.number),
      payload: dice.roll(2) === 0 ? noBytes : Buffer.alloc(dice.roll(600), 'p'),
    });
  }
}

/** Feeds sequences of datagrams from several peers to whole endpoints. `inputs` counts datagrams and pauses. */
export async function fuzzEndpoint(dice: Dice, inputs: number, until: number): Promise<Run> {
  const findings: Finding[] = [];
  let done = 0;
  let accepted = 0;
  let slowest = 0;
  while (done < inputs && findings.length < mostFindings && performance.now() < until) {
    const began = performance.now();
    const play = new Play(dice);
    await play.run();
    slowest = Math.max(slowest, (performance.now() - began) / stepsOfOne);
    accepted += play.answers;
    done += stepsOfOne;
    for (const what of play.findings) findings.push({ target: 'CoAP endpoint', what, input: '' });
  }
  return { inputs: done, accepted, slowest, findings };
}
