import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claimedDevices, DeviceAddresses } from '../../../src/gateway/southbound/device-addresses.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';

const record = (deviceId: string, more: Partial<DeviceRecord> = {}): DeviceRecord => ({
  deviceId,
  state: 'attached',
  mode: 0,
  origin: 'local',
  address: 'coap://192.0.2.1:7',
  lastSeen: 0,
  protocol: 'OMA-DM',
  isGateway: false,
  ...more,
});
const at = (port: number) => ({ address: '192.0.2.1', port, heardOn: '192.0.2.9' });

test('16,500 claims of anyone push out neither a proven address nor, from one host, the claims of others', () => {
  const addresses = new DeviceAddresses(100);
  for (let device = 0; device < 100; device++) addresses.heard(`proven-${device}`, at(device), true);
  addresses.heard('honest', { address: '198.51.100.1', port: 1 }, false);
  for (let claim = 0; claim < 16_500; claim++)
    addresses.heard(`claimed-${claim}`, { address: '203.0.113.9', port: claim + 1 }, false);
  for (let device = 0; device < 100; device++)
    assert.deepEqual(
      [addresses.get(`proven-${device}`)?.proven, addresses.deviceAt(at(device))],
      [true, `proven-${device}`],
    );
  assert.equal(addresses.get('honest')?.address, '198.51.100.1');
  const claims = () =>
    Array.from({ length: 16_500 }, (_, claim) => addresses.get(`claimed-${claim}`)).filter(Boolean).length;
  assert.equal(claims(), claimedDevices.perAddress);
  for (let claim = 0; claim < 16_500; claim++)
    addresses.heard(`claimed-${claim}`, { address: `10.${claim >> 8}.${claim & 255}.1`, port: 1 }, false);
  assert.equal(claims(), claimedDevices.entries);
  assert.equal(addresses.get('proven-7')?.proven, true);
});

test('what a proven gateway says of the devices behind it stands against what strangers claim', () => {
  const addresses = new DeviceAddresses();
  addresses.heard('child', at(1), true);
  for (let device = 0; device < 2000; device++) addresses.heard(`behind-${device}`, at(1), false);
  for (let claim = 0; claim < 16_500; claim++)
    addresses.heard(`behind-${claim}`, { address: '203.0.113.9', port: claim + 1 }, false);
  for (let device = 0; device < 2000; device++) assert.equal(addresses.get(`behind-${device}`)?.port, 1);
  addresses.heard('behind-7', at(9), true);
  assert.deepEqual([addresses.get('behind-7')?.port, addresses.get('behind-7')?.proven], [9, true]);
});

test('addresses are restored from the inventory with their sockets, and with the zone of a link-local address', () => {
  const addresses = new DeviceAddresses();
  addresses.restore([
    record('four', { heardOn: '192.0.2.9' }),
    record('six', { address: 'coap://[2001:db8::1]:8', heardOn: '2001:db8::9' }),
    record('link', { address: 'coap://[fe80::1]:9', heardOn: 'fe80::9%eth1' }),
    record('of-0.1.0', { address: 'coap://192.0.2.3' }),
    record('over-http', { address: 'http://192.0.2.4' }),
    record('behind', { address: 'coap://192.0.2.5:1', via: 'gw-2' }),
    record('odd', { address: 'coap:' }),
  ]);
  const known = ['four', 'six', 'link', 'of-0.1.0', 'over-http', 'behind', 'odd'].map((id) =>
    addresses.get(id),
  );
  const proven = true;
  assert.deepEqual(known, [
    { address: '192.0.2.1', port: 7, heardOn: '192.0.2.9', proven },
    { address: '2001:db8::1', port: 8, heardOn: '2001:db8::9', proven },
    { address: 'fe80::1%eth1', port: 9, heardOn: 'fe80::9%eth1', proven },
    { address: '192.0.2.3', port: 5683, heardOn: undefined, proven },
    undefined,
    undefined,
    undefined,
  ]);
});

test('of two records with the same address, the device heard last has the address', () => {
  for (const order of [1, -1]) {
    const addresses = new DeviceAddresses();
    const records = [record('before', { lastSeen: 5 }), record('now', { lastSeen: 6 })];
    addresses.restore(order === 1 ? records : records.toReversed());
    assert.equal(addresses.deviceAt(at(7)), 'now');
    assert.deepEqual([addresses.successorOf('before'), addresses.successorOf('now')], ['now', undefined]);
  }
});

test('a device that was unreachable does not get the address of an attached one, whatever the clock said', () => {
  const addresses = new DeviceAddresses();
  // The clock stood in 1970 when the attached device was heard.
  const lost = record('lost', { state: 'unreachable', reason: 'silent', lastSeen: 1_800_000_000_000 });
  addresses.restore([record('there', { lastSeen: 5 }), lost]);
  assert.equal(addresses.deviceAt(at(7)), 'there');
  assert.deepEqual([addresses.successorOf('there'), addresses.successorOf('lost')], [undefined, 'there']);
});

test('after two devices swap their addresses, each has the address where it was heard last', () => {
  const addresses = new DeviceAddresses();
  assert.equal(addresses.heard('a', at(1), true), undefined);
  assert.equal(addresses.heard('b', at(2), true), undefined);
  assert.equal(addresses.heard('a', at(2), true), 'b', 'b is not there any more');
  assert.equal(addresses.successorOf('b'), 'a');
  assert.equal(addresses.deviceAt(at(1)), undefined);
  assert.equal(addresses.heard('b', at(1), true), undefined);
  assert.deepEqual(
    [1, 2].map((port) => addresses.deviceAt(at(port))),
    ['b', 'a'],
  );
  assert.deepEqual([addresses.successorOf('a'), addresses.successorOf('b')], [undefined, undefined]);
});

test('a claimed address replaces no proven one', () => {
  const addresses = new DeviceAddresses();
  addresses.heard('a', at(1), true);
  assert.equal(addresses.heard('a', at(2), false), undefined);
  assert.equal(addresses.heard('b', at(1), false), undefined);
  assert.equal(addresses.get('a')?.port, 1);
  assert.equal(addresses.deviceAt(at(1)), 'a');
  assert.equal(addresses.successorOf('b'), undefined, 'it never proved that it was there');
});

test('at the limit the device heard longest ago is forgotten', () => {
  const addresses = new DeviceAddresses(2);
  for (const [n, id] of ['a', 'b', 'a', 'c'].entries()) addresses.heard(id, at(n), true);
  assert.deepEqual(
    ['a', 'b', 'c'].map((id) => addresses.get(id)?.port),
    [2, undefined, 3],
  );
});
