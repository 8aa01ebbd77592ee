import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { type Standing, standings } from '../../../src/base/admission.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { deduplicationDefaults, unprovenShare } from '../../../src/wire/coap/deduplication.ts';
import { Exchanges } from '../../../src/wire/coap/exchanges.ts';
import { KeptReplies } from '../../../src/wire/coap/kept-replies.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { MessageIds } from '../../../src/wire/coap/message-ids.ts';
import { type Exchange, Peer } from '../../../src/wire/coap/peer.ts';
import { HandClock } from '../../hand-clock.ts';
import { rig } from './wire.ts';

const limits = { lifetime: 1000, entries: 12, entriesPerPeer: 4, bytes: 200 };

/** Exchanges of this many peers. `idle` has the peers whose last exchange was dropped. */
function remembered(peers: number, bounds = limits) {
  const clock = new HandClock();
  const entropy = seededEntropy(7);
  const idle = new Set<Peer>();
  const exchanges = new Exchanges({ clock, entropy, limits: bounds, forgetIdle: (peer) => idle.add(peer) });
  const ids = new MessageIds(entropy);
  const all = Array.from({ length: peers }, (_, at) => {
    const remote = { address: `192.0.2.${at & 255}`, port: at, key: `192.0.2.${at & 255}|${at}` };
    return new Peer(remote, at, ids);
  });
  return { clock, exchanges, idle, peers: all };
}

/** What should be remembered: an array, searched from its end. */
class Model {
  kept: { exchange: Exchange; standing: Standing; bytes: number; fill: number }[] = [];

  find(peer: Peer, messageId: number, now: number): Exchange | undefined {
    return this.kept.findLast(
      ({ exchange }) => exchange.peer === peer && exchange.messageId === messageId && exchange.expires > now,
    )?.exchange;
  }

  opened(exchange: Exchange, standing: Standing, now: number): void {
    const { entries } = standing === standings[0] ? limits : unprovenShare(limits);
    this.kept.push({ exchange, standing, bytes: 0, fill: 0 });
    const ofPeer = this.kept.filter(({ exchange: { peer } }) => peer === exchange.peer);
    if (ofPeer.length > limits.entriesPerPeer) this.#drop(ofPeer[0]!);
    this.kept = this.kept.filter((one) => one.standing !== standing || one.exchange.expires > now);
    while (this.#of(standing).length > entries) this.#drop(this.#of(standing)[0]!);
  }

  completed(exchange: Exchange, bytes: number, fill: number): void {
    const one = this.kept.find((kept) => kept.exchange === exchange);
    if (!one) return;
    Object.assign(one, { bytes, fill });
    const most = (one.standing === standings[0] ? limits : unprovenShare(limits)).bytes;
    const sum = () => this.#of(one.standing).reduce((all, kept) => all + kept.bytes, 0);
    while (sum() > most && this.#of(one.standing)[0] !== one) this.#drop(this.#of(one.standing)[0]!);
  }

  #of(standing: Standing) {
    return this.kept.filter((one) => one.standing === standing);
  }

  #drop(dropped: unknown): void {
    this.kept = this.kept.filter((one) => one !== dropped);
  }
}

describe('exchanges', () => {
  test('any calls remember what they should, within all bounds, and nothing is left in the end', () => {
    const step = fc.record({
      peer: fc.nat(5),
      messageId: fc.nat(6),
      standing: fc.constantFrom(...standings),
      wait: fc.constantFrom(0, 0, 0, 100, 999, 1500),
      bytes: fc.nat(90),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { clock, exchanges, peers, idle } = remembered(6);
        const model = new Model();
        let replies = 0;
        for (const { peer: at, messageId, standing, wait, bytes } of steps) {
          clock.advance(wait);
          // The sweep comes when it comes. What has expired is not found in any case.
          model.kept = model.kept.filter(({ exchange }) => exchange.table !== undefined);
          const peer = peers[at]!;
          const found = exchanges.find(peer, messageId, clock.now());
          assert.equal(found, model.find(peer, messageId, clock.now()));
          if (found) {
            if (bytes > 20 && found.reply === undefined) {
              found.table?.complete(found, Buffer.alloc(bytes, ++replies));
              model.completed(found, bytes, replies);
            }
          } else {
            peer.standing = standing;
            model.opened(exchanges.open(peer, messageId, clock.now()), standing, clock.now());
          }
          assert.equal(exchanges.size, model.kept.length);
          assert.equal(
            exchanges.bytes,
            model.kept.reduce((sum, one) => sum + one.bytes, 0),
          );
          for (const { exchange, bytes: length, fill } of model.kept)
            assert.deepEqual(
              exchange.table?.replyOf(exchange),
              length > 0 ? Buffer.alloc(length, fill) : undefined,
            );
          for (const one of peers) {
            const ofPeer = model.kept.filter(({ exchange }) => exchange.peer === one);
            assert.equal(one.exchanges, ofPeer.length);
            assert.equal(one.firstExchange, ofPeer[0]?.exchange);
            assert.equal(one.lastExchange, ofPeer.at(-1)?.exchange);
          }
        }
        clock.advance(10_000);
        assert.deepEqual([exchanges.size, exchanges.bytes, clock.timers], [0, 0, 0]);
        for (const { peer } of steps) assert.ok(idle.has(peers[peer]!));
      }),
      { numRuns: 500 },
    );
  });

  test('8,192 of them are found each, whatever their peers; one that is dropped leads to no other', () => {
    const { entries } = deduplicationDefaults;
    const { exchanges, peers, clock } = remembered(2 * entries, deduplicationDefaults);
    const opened = peers.map((peer, at) => {
      peer.standing = standings[at < entries ? 0 : at < entries * 1.5 ? 1 : 2];
      return exchanges.open(peer, at & 7, clock.now());
    });
    assert.equal(exchanges.size, 2 * entries);
    for (const [at, one] of opened.entries())
      assert.equal(exchanges.find(one.peer, at & 7, clock.now()), one);
    peers[0]!.standing = standings[0];
    exchanges.open(peers[0]!, 99, clock.now());
    opened[5]!.table!.forget(opened[5]!);
    for (const { older, younger, earlier, later, next, table } of [opened[0]!, opened[5]!])
      assert.deepEqual(new Set([older, younger, earlier, later, next, table]), new Set([undefined]));
    assert.equal(exchanges.find(peers[0]!, 0, clock.now()), undefined);
    exchanges.stop();
    assert.equal(clock.timers, 0);
  });
});

test('a message ID that is used again after its lifetime, before anything was swept, is remembered once more', () => {
  let calls = 0;
  const { receive, clock, endpoint } = rig(() => reply(Code.Content, { payload: String(++calls) }));
  receive({ messageId: 7 });
  clock.advance(deduplicationDefaults.lifetime + 1);
  for (let times = 0; times < 3; times++) receive({ messageId: 7, type: Type.CON });
  assert.deepEqual([calls, endpoint.footprint.exchanges], [2, 1]);
});

test('4096 short replies take 256 KB, whatever else is allocated meanwhile', () => {
  const { exchanges, peers, clock } = remembered(deduplicationDefaults.entries, deduplicationDefaults);
  const before = process.memoryUsage().arrayBuffers;
  for (const peer of peers) {
    peer.standing = standings[0];
    const exchange = exchanges.open(peer, 1, clock.now());
    exchange.table!.complete(exchange, Buffer.from('a reply'));
    // As the handlers of a gateway do. Node cuts these buffers and the reply from the same piece of memory.
    for (let at = 0; at < 8; at++) Buffer.allocUnsafe(2000);
  }
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  const megabytes = (process.memoryUsage().arrayBuffers - before) / 2 ** 20;
  assert.equal(exchanges.bytes, 7 * deduplicationDefaults.entries);
  assert.ok(megabytes < 1, `${megabytes} MB`);
});

test('replies come back as they were kept, in cells and in memory of their own', () => {
  const replies = new KeptReplies();
  const data = Array.from({ length: 3000 }, (_, at) => Buffer.alloc(1 + (at % 130), at));
  const kept = data.map((reply) => replies.keep(reply));
  for (const [at, reply] of data.entries()) assert.deepEqual(replies.read(kept[at]!, reply.length), reply);
  const { cellBytes } = replies;
  for (const one of kept) replies.drop(one);
  for (const reply of data) replies.keep(reply);
  assert.equal(replies.cellBytes, cellBytes, 'cells are used again');
});
