import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { type CoapMessage, decode, encode, encodeEmpty, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { Code, isRequestCode, isResponseCode } from '../../src/wire/coap/codes.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { OscoreRig } from './oscore-rig.ts';

const limit = { timeout: 60_000 };
const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));

const read = (bytes: Buffer): CoapMessage => {
  const message = decode(bytes);
  assert.ok(!(message instanceof Malformed));
  return message;
};
const isRequest = (bytes: Buffer) => isRequestCode(read(bytes).code);
const isResponse = (bytes: Buffer) => isResponseCode(read(bytes).code);

/** A rig whose gateway answers with what it is asked. */
async function echoing(t: TestContext) {
  const rig = await new OscoreRig(t).open();
  const heard: string[] = [];
  rig.handler = ({ payload }) => {
    heard.push(Buffer.from(payload).toString());
    return reply(Code.Content, { payload: `to ${Buffer.from(payload)}` });
  };
  return { rig, heard };
}

test(
  'the response that asks for an Echo comes again when the request with the Echo is on its way',
  limit,
  async (t) => {
    const { rig, heard } = await echoing(t);
    let challenge: Buffer | undefined;
    let requests = 0;
    rig.passes = (datagram, isOutward) => {
      if (!isOutward) challenge ??= Buffer.from(datagram);
      // The answer leaves later than the copies.
      else if (isRequest(datagram) && ++requests === 2)
        for (let copy = 0; copy < 3; copy++) rig.toDevice(challenge!);
      return true;
    };
    assert.equal(await rig.ask('one'), '2.05 to one');
    assert.equal(requests, 2);
    assert.deepEqual(heard, ['one']);
  },
);

test(
  'a slow gateway acknowledges, and asks for an Echo separately: the device acknowledges that, and repeats the request with the Echo',
  limit,
  async (t) => {
    const { rig, heard } = await echoing(t);
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.senders.settled = () => promise;
    const acknowledged: number[] = [];
    let separate: CoapMessage | undefined;
    let lost = 0;
    rig.passes = (datagram, isOutward) => {
      const message = read(datagram);
      if (!isOutward && message.code === Code.Empty) resolve();
      else if (!isOutward && message.type === Type.CON) separate ??= read(Buffer.from(datagram));
      else if (isOutward && message.type === Type.ACK) {
        // It comes once more, and an acknowledgement of the first request, which says nothing of the second one.
        if (acknowledged.push(message.messageId) === 1) rig.toDevice(encode(separate!));
      } else if (isOutward && separate && isRequest(datagram)) return ++lost > 1;
      return true;
    };
    assert.equal(await rig.ask('slow'), '2.05 to slow');
    assert.deepEqual(acknowledged, [separate!.messageId, separate!.messageId]);
    assert.ok(lost >= 2, `${lost}`);
    assert.deepEqual(heard, ['slow']);
  },
);

test(
  'an acknowledgement and a Reset of the request before the Echo say nothing of the one with it',
  limit,
  async (t) => {
    const { rig, heard } = await echoing(t);
    let requests = 0;
    let firstId = 0;
    rig.passes = (datagram, isOutward) => {
      if (!isOutward || !isRequest(datagram)) return true;
      requests++;
      if (requests === 1) firstId = read(datagram).messageId;
      if (requests !== 2) return true;
      // The second request is lost.
      rig.toDevice(encodeEmpty(Type.ACK, firstId));
      rig.toDevice(encodeEmpty(Type.RST, firstId));
      return false;
    };
    assert.equal(await rig.ask('two'), '2.05 to two');
    assert.equal(requests, 3);
    assert.deepEqual(heard, ['two']);
  },
);

test(
  'a Reset of the request on its way ends it, and so does an error that is not protected',
  limit,
  async (t) => {
    const { rig } = await echoing(t);
    rig.passes = (datagram, isOutward) => {
      if (isOutward) rig.toDevice(encodeEmpty(Type.RST, read(datagram).messageId));
      return !isOutward;
    };
    assert.equal((await rig.ask('rejected')).slice(0, 4), '0.00');
    rig.passes = (datagram, isOutward) => {
      const { messageId, token } = read(datagram);
      const said = {
        code: Code.Unauthorized,
        options: [],
        payload: Buffer.from('Security context not found'),
      };
      if (isOutward) rig.toDevice(encode({ type: Type.ACK, messageId, token, ...said }));
      return !isOutward;
    };
    assert.equal((await rig.ask('unknown')).slice(0, 4), '0.00');
  },
);

test(
  `each request gets its own answer, whatever comes late, twice, in another order or forged (POSTERN_SEED=${seed})`,
  limit,
  async (t) => {
    t.diagnostic(`seed ${seed}`);
    const { rig, heard } = await echoing(t);
    const entropy = seededEntropy(seed);
    const before: Buffer[] = [];
    const forged = (datagram: Buffer): Buffer => {
      const message = read(datagram);
      const other = read(before[Math.floor(entropy.uniform() * before.length)] ?? datagram);
      const at = Math.floor(entropy.uniform() * message.payload.length);
      const contents: Partial<CoapMessage>[] = [
        { payload: message.payload.map((byte, place) => (place === at ? byte ^ 1 : byte)) },
        { code: Code.Content, options: [], payload: Buffer.from('forged') },
        Buffer.compare(other.token, message.token)
          ? { payload: other.payload, options: other.options }
          : { payload: Buffer.of(1) },
      ];
      const type = [Type.CON, Type.NON, message.type][Math.floor(entropy.uniform() * 3)] ?? message.type;
      return encode({ ...message, ...contents[Math.floor(entropy.uniform() * 3)], type });
    };
    rig.passes = (datagram, isOutward) => {
      const late = before[Math.floor(entropy.uniform() * before.length)];
      if (late && entropy.uniform() < 0.5) rig.toDevice(late);
      if (isOutward || !isResponse(datagram)) return true;
      while (entropy.uniform() < 0.5) rig.toDevice(forged(datagram));
      before.push(Buffer.from(datagram));
      if (entropy.uniform() < 0.5) return true;
      // Another one overtakes it.
      setImmediate(() => rig.toDevice(before.at(-1)!));
      setImmediate(() => rig.toDevice(datagram));
      return false;
    };
    const expected: string[] = [];
    for (let round = 0; round < 10; round++) {
      const names = [0, 1, 2].map((each) => `${round} ${each}`);
      expected.push(...names);
      assert.deepEqual(
        await Promise.all(names.map((name) => rig.ask(name))),
        names.map((name) => `2.05 to ${name}`),
      );
      rig.start();
    }
    assert.deepEqual(heard.toSorted(), expected.toSorted());
  },
);
