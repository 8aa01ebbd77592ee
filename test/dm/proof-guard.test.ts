import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guessRates, ProofGuard, type Way } from '../../src/dm/proof-guard.ts';
import { HandClock } from '../hand-clock.ts';

/** A guard, and how many of these wrong proofs it looks at. */
function rig() {
  const clock = new HandClock();
  const guard = new ProofGuard(clock);
  const guess = (times: number, party: (at: number) => string, way: (at: number) => Way): number => {
    let looked = 0;
    for (let at = 0; at < times; at++) {
      if (guard.lockOf(party(at), way(at))) continue;
      guard.failed(party(at), way(at));
      looked++;
    }
    return looked;
  };
  return { clock, guard, guess };
}
const { address, total } = guessRates;

test('some addresses that fail in ever new names get a share, and leave the rest to others', () => {
  const { clock, guard, guess } = rig();
  for (let second = 0; second < 60; second++) {
    guess(
      1000,
      (at) => `x${second}-${at}`,
      (at) => ({ address: `192.0.2.${at % 20}` }),
    );
    assert.equal(guard.lockOf('honest', { address: '198.51.100.7' }), undefined, `second ${second}`);
    clock.advance(1000);
  }
  const looked = guess(
    1000,
    (at) => `y${at}`,
    () => ({ address: '192.0.2.1' }),
  );
  assert.ok(looked <= 2 * 0.1 * total.rate + address.rate + 1, String(looked));
});

test('all addresses together have a rate', () => {
  const { guess } = rig();
  const looked = guess(
    3000,
    (at) => `x${at}`,
    (at) => ({ address: `10.0.${at >> 8}.${at % 256}` }),
  );
  assert.equal(looked, total.burst);
});

test('what fails at one entrance takes nothing from another one: neither of the party nor of all', () => {
  const { guess, guard } = rig();
  const hostile = (at: number) => ({ entrance: 'gw-2', address: `10.0.${at >> 8}.${at % 256}` });
  guess(3000, (at) => `x${at}`, hostile);
  guess(3000, () => 'victim', hostile);
  assert.ok(guard.lockOf('victim', hostile(5)));
  assert.equal(guard.lockOf('victim', { entrance: 'gw-1', address: '10.0.0.5' }), undefined);
});
