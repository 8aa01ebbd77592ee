import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PendingRegistrations } from '../../../src/gateway/southbound/pending-registrations.ts';
import type { Registration } from '../../../src/gateway/store/registrations.ts';

const registration = (deviceId: string, location: string, address = '192.0.2.1'): Registration => ({
  ...{ deviceId, location, address, port: 5683, version: '1.1', lifetime: 60, queueMode: false },
  ...{ root: [], paths: [], formats: [] },
});

const bounds = { entries: 6, perAddress: 3, perPrefix: 5, bytes: 1000 };

/** Adds registrations. Returns whether each of them still waits. */
function kept(...added: readonly [name: string, address?: string, bytes?: number][]): boolean[] {
  const pending = new PendingRegistrations(bounds);
  const ends = added.map(([name, address, bytes = 1], at) => {
    pending.add(registration(name, `l${at}`, address), undefined, bytes);
    return pending.at(`l${at}`)?.end.signal;
  });
  const waits = added.map((_, at) => pending.at(`l${at}`) !== undefined);
  // The question to a client that no longer waits has ended.
  for (const [at, end] of ends.entries()) if (end) assert.equal(end.aborted, !waits[at]);
  return waits;
}

test('of one address, of one prefix, and in all, the oldest registration gives way at the bound', () => {
  assert.deepEqual(kept(['a'], ['b'], ['c'], ['d']), [false, true, true, true], 'of one address');
  const hosts = (...last: readonly number[]) =>
    last.map((each, at): [string, string] => [`n${at}`, `192.0.2.${each}`]);
  assert.deepEqual(kept(...hosts(1, 2, 3, 4, 5, 6)), [false, true, true, true, true, true], 'of a prefix');
  const networks = [1, 2, 3, 4, 5, 6, 7].map((each): [string, string] => [`n${each}`, `10.0.${each}.1`]);
  assert.deepEqual(kept(...networks), [false, true, true, true, true, true, true], 'in all');
});

test('a registration takes the place of one in the same name from the same address and port', () => {
  const pending = new PendingRegistrations(bounds);
  pending.add(registration('a', '1'), undefined, 1);
  pending.add({ ...registration('a', '2'), port: 1 }, undefined, 1);
  pending.add(registration('b', '3'), undefined, 1);
  pending.add(registration('a', '4'), undefined, 1);
  assert.deepEqual(
    ['1', '2', '3', '4'].map((location) => pending.at(location) !== undefined),
    [false, true, true, true],
  );
});

test('the bytes of links are bounded', () => {
  assert.deepEqual(kept(['a', '10.0.0.1', 600], ['b', '10.0.1.1', 300], ['c', '10.0.2.1', 200]), [
    false,
    true,
    true,
  ]);
});

test('a registration that becomes valid ends those of its name that came before it', () => {
  const pending = new PendingRegistrations({ ...bounds, perAddress: 4 });
  const [first, second, third] = ['1', '2', '3'].map((location) => ({
    ...registration('a', location),
    port: Number(location),
  }));
  for (const each of [first!, second!, third!]) pending.add(each, undefined, 1);
  pending.becomesValid(second!);
  assert.deepEqual(
    ['1', '2', '3'].map((location) => pending.at(location) !== undefined),
    [false, false, true],
  );
  pending.update({ ...third!, address: '192.0.2.9' }, 1);
  assert.equal(pending.at('3')?.registration.address, '192.0.2.9');
  pending.end('3');
  assert.equal(pending.size, 0);
});
