import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { prefixOf } from '../../src/base/address-prefix.ts';
import { FairMap } from '../../src/base/fair-map.ts';

test('an address belongs to its /24 or /64; a mapped one to that of IPv4, a link-local one to its zone', () => {
  for (const [address, prefix] of [
    ['192.0.2.7', '192.0.2'],
    ['::ffff:192.0.2.7', '192.0.2'],
    ['2001:db8:0:1:2:3:4:5', '2001:db8:0:1%'],
    ['2001:db8::5', '2001:db8:0:0%'],
    ['2001:db8:0:0:1::5', '2001:db8:0:0%'],
    ['fe80::1%eth0', 'fe80:0:0:0%eth0'],
    ['fe80::2%eth1', 'fe80:0:0:0%eth1'],
    ['::1', '0:0:0:0%'],
    ['::', '0:0:0:0%'],
  ] as const)
    assert.equal(prefixOf(address), prefix, address);
});

describe('a table for what anyone may cause', () => {
  const bounds = { entries: 6, perAddress: 2, perPrefix: 3, bytes: 100 };

  test('one address displaces its own entries, one prefix its own, and only then the oldest of all gives way', () => {
    const gone: string[] = [];
    const map = new FairMap<number>(bounds, (key) => gone.push(key));
    map.set('honest', '192.0.2.1', 1);
    for (let at = 0; at < 5; at++) map.set(`a${at}`, '198.51.100.1', at);
    assert.deepEqual(gone.splice(0), ['a0', 'a1', 'a2']);
    for (let at = 0; at < 3; at++) map.set(`b${at}`, `198.51.100.${at + 2}`, at);
    assert.deepEqual(gone.splice(0), ['a3', 'a4'], 'the prefix has three');
    assert.ok(map.has('honest'));
    for (let at = 0; at < 3; at++) map.set(`c${at}`, `203.0.${at}.1`, at);
    assert.deepEqual([gone, map.size], [['honest'], 6]);
  });

  test('bytes have a bound, at which the oldest others give way; what has no room alone is refused', () => {
    const map = new FairMap<number>({ ...bounds, perAddress: 6, perPrefix: 6 });
    for (const key of ['a', 'b', 'c']) {
      map.set(key, '192.0.2.1', 0);
      assert.ok(map.grow(key, 40));
    }
    assert.deepEqual([map.has('a'), map.size, map.bytes], [false, 2, 80]);
    assert.equal(map.grow('c', 61), false);
    assert.equal(map.grow('a', 1), false, 'an entry that is gone');
    map.touch('b');
    assert.ok(map.grow('b', 30));
    assert.deepEqual([map.has('c'), map.bytes], [false, 70], 'the entry that was used longest ago gives way');
  });

  test('any calls keep all bounds, and nothing is left of entries that are gone', () => {
    const call = fc.record({
      what: fc.constantFrom('set', 'delete', 'grow', 'touch'),
      key: fc.integer({ min: 0, max: 15 }).map(String),
      host: fc.integer({ min: 0, max: 5 }),
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 200 }), (calls) => {
        const map = new FairMap<string>(bounds);
        for (const { what, key, host } of calls) {
          if (what === 'set') map.set(key, `192.0.${host % 3}.${host}`, key);
          else if (what === 'grow') map.grow(key, host * 10);
          else if (what === 'touch') map.touch(key);
          else map.delete(key);
          assert.ok(map.size <= 6 && map.bytes <= 100);
          for (let each = 0; each < 6; each++) {
            assert.ok(map.countOf(`192.0.${each % 3}.${each}`) <= 2);
            assert.ok(map.countOf(`/192.0.${each % 3}`) <= 3);
          }
        }
        for (const [key] of map.entries()) map.delete(key);
        assert.deepEqual([map.size, map.bytes, map.countOf('/192.0.0')], [0, 0, 0]);
      }),
    );
  });
});
