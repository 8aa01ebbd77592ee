// What somebody can do who owns a /64, and so has as many addresses as wanted; and what that does to honest neighbours in the
// same /64, and to everybody else.
import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { describe, test } from 'node:test';
import { prefixOf, senderOf } from '../../src/base/address-prefix.ts';
import { Admission } from '../../src/base/admission.ts';
import { HttpConnections } from '../../src/base/http-connections.ts';
import { LogEvents } from '../../src/base/log.ts';
import { guessRates, ProofGuard } from '../../src/dm/proof-guard.ts';
import { TunnelPolicy } from '../../src/gateway/modes/tunnel-policy.ts';
import { connectionDefaults } from '../../src/gateway/southbound/http-binding.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const count = 1000;
/** Addresses of one /64. */
const hostile = Array.from({ length: count }, (_, at) => `2001:db8:0:1::${(at + 0x100).toString(16)}`);
const neighbour = '2001:db8:0:1::7';
const elsewhere = '2001:db8:0:2::7';
const wayFrom = (address: string) => ({ address });

test('addresses of one /64 are one sender, with their zone; IPv4 addresses are each their own', () => {
  assert.equal(new Set(hostile.map(senderOf)).size, 1);
  assert.equal(senderOf('fe80::1%eth0'), senderOf('fe80::2%eth0'));
  assert.notEqual(senderOf('fe80::1%eth0'), senderOf('fe80::1%eth1'));
  assert.equal(senderOf('192.0.2.7'), '192.0.2.7');
  assert.equal(senderOf('no address: x'), 'no address: x');
  assert.equal(prefixOf(neighbour), prefixOf(hostile[0]!));
});

describe('guesses from 1,000 addresses of one /64', () => {
  const guess = (guard: ProofGuard, party: (at: number) => string) =>
    hostile.filter((address, at) => {
      const way = wayFrom(address);
      if (guard.lockOf(party(at), way)) return false;
      guard.failed(party(at), way);
      return true;
    }).length;

  test('in the name of one device: few are looked at, and it is not locked out elsewhere', () => {
    const clock = new HandClock();
    const guard = new ProofGuard(clock);
    assert.equal(
      guess(guard, () => 'a'),
      guessRates.share.burst,
    );
    for (let turn = 0; turn < 60; turn++) {
      clock.advance(10_000);
      guess(guard, () => 'a');
      assert.equal(guard.lockOf('a', wayFrom(elsewhere)), undefined);
    }
  });

  test('a neighbour is not locked out where it proved itself, nor any other device', () => {
    const clock = new HandClock();
    const guard = new ProofGuard(clock);
    guard.succeeded('a', wayFrom(neighbour));
    for (let second = 0; second < 60; second++) {
      guess(guard, () => 'a');
      assert.equal(guard.lockOf('a', wayFrom(neighbour)), undefined);
      assert.equal(guard.lockOf('b', wayFrom(neighbour)), undefined);
      clock.advance(1000);
    }
  });

  test('a neighbour at a new address waits no longer than seconds after the guesses end', () => {
    const clock = new HandClock();
    const guard = new ProofGuard(clock);
    for (let minute = 0; minute < 60; minute++) {
      clock.advance(60_000);
      guess(guard, () => 'a');
    }
    assert.equal(guard.lockOf('a', wayFrom(neighbour))?.code, 'lockedOut');
    clock.advance(1000 / guessRates.share.rate);
    assert.equal(guard.lockOf('a', wayFrom(neighbour)), undefined);
  });

  test('in the names of 1,000 devices: most of what is looked at in all is left to others', () => {
    const guard = new ProofGuard(new HandClock());
    const most = guessRates.address.burst + Math.ceil(guessRates.total.burst / 10);
    assert.equal(
      guess(guard, (at) => `device ${at}`),
      most,
    );
    assert.equal(guard.lockOf('device 1', wayFrom(elsewhere)), undefined);
  });
});

test('packages in the names of known devices from 1,000 addresses of one /64 leave most to other networks', () => {
  const clock = new HandClock();
  const policy = new TunnelPolicy({
    knownDevices: () => 1,
    isKnown: () => true,
    devices: () => ({ patterns: [], rate: 1 }),
    clock,
    events: new EventRecorder(),
  });
  const through = (addresses: readonly string[]) =>
    addresses.filter((address, at) => !policy.refusalOf(`device ${at}`, address, 10)).length;
  assert.equal(through(hostile), 16 + 26);
  assert.equal(through([elsewhere]), 1);
  assert.equal(through([neighbour]), 0);
  clock.advance(1000);
  assert.equal(through([neighbour]), 1, 'the neighbour has its turn when the burst is over');
});

describe('HTTP connections from 1,000 addresses of one /64', () => {
  function table(known: readonly string[]) {
    const admission = new Admission({ clock: new HandClock(), events: new EventRecorder() });
    for (const address of known) admission.know(address);
    const connections = new HttpConnections(admission, connectionDefaults);
    const closing: (() => void)[] = [];
    const open = (remoteAddress: string) =>
      connections.opened({
        remoteAddress,
        destroy: () => {},
        once: (_: string, close: () => void) => closing.push(close),
      } as unknown as Socket);
    return { open, closing };
  }

  test('of strangers: half the places of strangers, and none of a neighbour that is known', () => {
    const { open, closing } = table([neighbour]);
    assert.equal(hostile.filter(open).length, connectionDefaults.perPrefix);
    assert.ok(open(elsewhere));
    assert.ok(open(neighbour));
    assert.equal(open('2001:db8:0:1::8'), false);
    closing[0]?.();
    assert.ok(open('2001:db8:0:1::8'), 'a neighbour that is new has a place when one is free');
  });

  test('of a device that has proved itself at each of them: places are left for others', () => {
    const { open } = table([...hostile, elsewhere]);
    assert.equal(hostile.filter(open).length, connectionDefaults.total - connectionDefaults.perPrefix);
    assert.ok(open(elsewhere));
    assert.ok(open('192.0.2.7'));
  });
});

test('an event of 1,000 addresses of one /64 is told once, and leaves the lines of its name to others', () => {
  const clock = new HandClock();
  const lines: string[] = [];
  const log = new LogEvents('info', 'gateway', { write: (line: string) => lines.push(line) }, clock);
  const refused = (peer: string) =>
    log.emit('bootstrap.refused', { device: 'a', peer, reason: 'wrong proof' });
  for (const address of [...hostile, elsewhere, '192.0.2.7']) refused(address);
  assert.equal(lines.length, 3);
  for (const address of hostile) refused(`[${address}]:5683`);
  assert.equal(lines.length, 3, 'also where the event has a port');
});
