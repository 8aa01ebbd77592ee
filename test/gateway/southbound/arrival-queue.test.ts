import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArrivalQueue, arrivalLimits } from '../../../src/gateway/southbound/arrival-queue.ts';
import { encode, encodeEmpty, noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { HandClock } from '../../hand-clock.ts';

const request = (messageId: number, payload: Buffer = noBytes): Buffer =>
  encode({ type: Type.CON, code: Code.POST, messageId, token: noBytes, options: [], payload });
const ping = (messageId: number) => encodeEmpty(Type.CON, messageId);
const acknowledgement = (messageId: number) => encodeEmpty(Type.ACK, messageId);
const response = (messageId: number) =>
  encode({ type: Type.CON, code: Code.Content, messageId, token: noBytes, options: [], payload: noBytes });

/** A queue whose requests each take this many milliseconds. `handled`: message IDs in their order. */
function rig(work: number) {
  const clock = new HandClock();
  const queue = new ArrivalQueue(clock);
  const handled: number[] = [];
  const receive = (octets: Buffer) => {
    handled.push(octets.readUInt16BE(2));
    if (octets.readUInt8(1) === Code.POST) clock.advance(work);
  };
  const remote = { address: '192.0.2.1', port: 5683, key: '192.0.2.1|5683' };
  return { queue, handled, take: (octets: Buffer) => queue.take(receive, octets, remote) };
}

/** The next turn of the event loop is over. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('requests are handled at once while the event loop is not busy', async () => {
  const { handled, take, queue } = rig(0.1);
  for (let at = 1; at <= 15; at++) take(request(at));
  assert.deepEqual([handled.length, queue.size], [15, 0]);
  await turn();
  for (let at = 16; at <= 30; at++) take(request(at));
  assert.deepEqual([handled.length, queue.size], [30, 0]);
});

test('in a busy turn requests wait in their order; a ping, an acknowledgement and a response do not', async () => {
  const { handled, take, queue } = rig(1);
  for (let at = 1; at <= 5; at++) take(request(at));
  take(ping(100));
  take(acknowledgement(101));
  take(response(102));
  assert.deepEqual(handled.slice(0, 2), [1, 2]);
  assert.deepEqual(handled.slice(2, 5), [100, 101, 102]);
  assert.equal(queue.size, 3);
  await turn();
  take(ping(103));
  take(request(6));
  assert.deepEqual(handled.slice(5), [3, 4, 103]);
  while (queue.size > 0) await turn();
  assert.deepEqual(handled.slice(5), [3, 4, 103, 5, 6]);
});

test('while a socket has more to read, it is read first', async () => {
  const { handled, take, queue } = rig(1);
  for (let at = 1; at <= 32; at++) take(request(at));
  assert.deepEqual([handled.length, queue.size], [2, 30]);
  await turn();
  assert.equal(handled.length, 2);
  await turn();
  assert.equal(handled.length, 4);
});

test('short requests are handled four in a turn', async () => {
  const { handled, take, queue } = rig(0.4);
  for (let at = 1; at <= 15; at++) take(request(at));
  const atOnce = handled.length;
  assert.ok(atOnce < 10 && queue.size === 15 - atOnce);
  await turn();
  assert.equal(handled.length, atOnce + 4);
});

test('the number of waiting requests and their bytes are bounded', async () => {
  const many = rig(1);
  for (let at = 1; at <= arrivalLimits.requests + 10; at++) many.take(request(at));
  assert.equal(many.queue.size, arrivalLimits.requests);
  assert.equal(many.handled.length, 10);
  // The queue is long: requests are handled although there is more to read.
  await turn();
  assert.equal(many.queue.size, arrivalLimits.requests - 2);

  const large = rig(1);
  const payload = Buffer.alloc(60_000);
  for (let at = 1; at <= 30; at++) large.take(request(at, payload));
  assert.ok(large.queue.size * payload.length <= arrivalLimits.bytes);
  assert.equal(large.queue.size + large.handled.length, 30);
  while (large.queue.size > 0) await turn();
  assert.equal(large.handled.length, 30);
  for (let at = 31; at <= 40; at++) large.take(request(at, payload));
  assert.ok(large.queue.size > 0, 'handled requests free their bytes');
  for (const { queue } of [many, large]) queue.stop();
  assert.equal(many.queue.size, 0);
  const before = many.handled.length;
  await turn();
  assert.equal(many.handled.length, before);
});
