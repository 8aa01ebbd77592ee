import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../../src/base/entropy.ts';
import { type CoapMessage, decode, encode, Malformed, Type } from '../../../../src/wire/coap/codec.ts';
import { Code, isResponseCode } from '../../../../src/wire/coap/codes.ts';
import { reply } from '../../../../src/wire/coap/message.ts';
import { type Datagram, type Party, pair } from './party.ts';

const first = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const runs = Number(process.env.POSTERN_RUNS ?? 40);

const read = (bytes: Buffer): CoapMessage => {
  const message = decode(bytes);
  assert.ok(!(message instanceof Malformed));
  return message;
};

/** A network that loses nothing, but doubles datagrams, lets later ones overtake them, and forges responses of its own. */
class UnrulyNetwork {
  readonly #uniform: () => number;
  readonly #held: Datagram[] = [];
  readonly #responses: CoapMessage[] = [];

  constructor(seed: number) {
    const entropy = seededEntropy(seed);
    this.#uniform = () => entropy.uniform();
  }

  chance(of: number): boolean {
    return this.#uniform() < of;
  }

  pick<T>(all: readonly T[]): T | undefined {
    return all[Math.floor(this.#uniform() * all.length)];
  }

  pass(datagram: Datagram): Buffer[] {
    const { bytes } = datagram;
    const message = read(bytes);
    const arrives: Buffer[] = [];
    if (isResponseCode(message.code)) {
      for (let more = 0; more < 3 && this.chance(0.4); more++) arrives.push(this.#forged(message));
      this.#responses.push(message);
    }
    if (this.chance(0.3)) this.#held.push(datagram);
    if (this.chance(0.4)) this.#held.push(datagram);
    else arrives.push(bytes);
    return arrives;
  }

  /** Lets some of the datagrams arrive that were held back, in another order. */
  release(): void {
    for (let count = Math.ceil(this.#held.length / 2); count > 0; count--) {
      const [late] = this.#held.splice(Math.floor(this.#uniform() * this.#held.length), 1);
      late?.to.endpoint.receive(late.bytes, late.from.address, 5683);
    }
  }

  #forged(message: CoapMessage): Buffer {
    const { payload } = message;
    const other = this.pick(this.#responses) ?? message;
    const place = Math.floor(this.#uniform() * payload.length);
    const contents: Partial<CoapMessage>[] = [
      { payload: payload.map((byte, at) => (at === place ? byte ^ 1 : byte)) },
      { code: Code.Content, options: [], payload: Buffer.from('forged') },
      // What was true for another request, with the token of this one.
      ...(other.token === message.token ? [] : [{ payload: other.payload, options: other.options }]),
    ];
    const type = this.pick([Type.CON, Type.NON, message.type]) ?? message.type;
    const messageId = type === message.type ? message.messageId : Math.floor(this.#uniform() * 65_536);
    return encode({ ...message, ...this.pick(contents), type, messageId });
  }
}

/** Three rounds of requests both ways, with restarts between them. Returns what went wrong. */
async function run(seed: number): Promise<string[]> {
  const network = new UnrulyNetwork(seed);
  const { wire, gateway, device } = pair();
  wire.pass = (datagram) => network.pass(datagram);
  const heard: string[] = [];
  for (const party of [gateway, device])
    party.handler = async ({ payload }) => {
      heard.push(Buffer.from(payload).toString());
      if (network.chance(0.3)) await new Promise<void>((resolve) => wire.clock.after(2500, resolve));
      return reply(Code.Content, { payload: `to ${Buffer.from(payload)}` });
    };
  const wrong: string[] = [];
  let waiting = 0;
  const ask = async (from: Party, to: Party, payload: string) => {
    waiting++;
    const options = { code: Code.POST, options: [], payload: Buffer.from(payload), timeout: 90_000 };
    const answer = await from.endpoint.request(to.address, 5683, options).then(
      (response) => Buffer.from(response.payload).toString(),
      (thrown) => String(thrown),
    );
    waiting--;
    if (answer !== `to ${payload}`) wrong.push(`${payload}: ${answer}`);
  };
  const expected: string[] = [];
  for (let round = 0; round < 3; round++) {
    for (let count = 0; count < 3; count++) {
      for (const [from, to] of [
        [device, gateway],
        [gateway, device],
      ] as const) {
        // A gateway knows where a device is by its first request.
        if (from === gateway && round === 0) continue;
        const payload = `${from === device ? 'up' : 'down'} ${round} ${count}`;
        expected.push(payload);
        void ask(from, to, payload);
      }
    }
    for (let turns = 0; waiting > 0 && turns < 2000; turns++) {
      await wire.settle();
      network.release();
      await wire.settle();
      wire.clock.advance(100);
    }
    if (waiting > 0) wrong.push(`${waiting} requests never end`);
    // What is still held back comes from before the restart.
    if (network.chance(0.5)) gateway.start();
    if (network.chance(0.5)) device.start();
  }
  assert.deepEqual(heard.toSorted(), expected.toSorted(), `each is handled once (seed ${seed})`);
  return wrong;
}

test(`each request gets its own answer, whatever comes late, twice, in another order or forged (POSTERN_SEED=${first} POSTERN_RUNS=${runs})`, async (t) => {
  t.diagnostic(`seeds ${first} to ${first + runs - 1}`);
  for (let seed = first; seed < first + runs; seed++) assert.deepEqual(await run(seed), [], `seed ${seed}`);
});
