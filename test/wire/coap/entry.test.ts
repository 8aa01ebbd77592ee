import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Admission, Standing } from '../../../src/base/admission.ts';
import { noEvents } from '../../../src/base/events.ts';
import { Entry, placesOfParty } from '../../../src/wire/coap/entry.ts';
import { HandClock } from '../../hand-clock.ts';

function rig() {
  const admission = new Admission({ clock: new HandClock(), events: noEvents });
  const entry = new Entry(admission, 100);
  const at = (number: number) => {
    const address = `192.0.2.${number}`;
    return { address, port: 1, key: `${address}|1` };
  };
  return { admission, entry, at };
}

describe('the entry of an endpoint', () => {
  test('a party that proves itself at one place has no bucket; at many, nine of its addresses become known', () => {
    const { admission, entry, at } = rig();
    entry.vouch(at(1), 'device');
    entry.vouch(at(1), 'device');
    assert.deepEqual([admission.footprint.parties, admission.footprint.known], [0, 1]);
    for (let number = 2; number < 30; number++) entry.vouch(at(number), 'device');
    assert.deepEqual([admission.footprint.parties, admission.footprint.known], [1, 9]);
  });

  test('the latest places of a party count as proven', () => {
    const { entry, at } = rig();
    const proven = () =>
      Array.from({ length: 10 }, (_, number) => number).filter((number) => entry.isProven(at(number).key));
    entry.vouch(at(1), 'device');
    assert.deepEqual(proven(), [1]);
    for (const number of [2, 3, 4, 1, 5]) entry.vouch(at(number), 'device');
    assert.deepEqual(proven(), [1, 3, 4, 5], `at most ${placesOfParty}`);
    entry.vouch(at(6), 'another');
    assert.deepEqual(proven(), [1, 3, 4, 5, 6]);
    assert.equal(entry.standingOf(at(2)), Standing.Known);
  });

  test('each proven peer is held to its own rate', () => {
    const { entry, at } = rig();
    for (const number of [1, 2]) entry.vouch(at(number), `device ${number}`);
    const admitted = (number: number) =>
      Array.from({ length: 20_000 }, () => entry.admits(Buffer.alloc(4), at(number), undefined)).filter(
        Boolean,
      ).length;
    assert.deepEqual([admitted(1), admitted(2)], [10_000, 10_000]);
  });
});
