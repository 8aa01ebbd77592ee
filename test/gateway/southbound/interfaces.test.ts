import assert from 'node:assert/strict';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { describe, test } from 'node:test';
import { sourceAddressTowards } from '../../../src/base/source-address.ts';
import {
  addressTowards,
  type LocalAddress,
  localAddresses,
  type Routing,
} from '../../../src/gateway/southbound/interfaces.ts';
import { membershipKey, readKernelNetwork } from '../../../src/gateway/southbound/kernel-network.ts';
import { boundSocket } from '../../../src/gateway/southbound/udp-socket.ts';

const entry = (cidr: string, scopeid = 0) => ({
  address: cidr.split('/')[0]!,
  netmask: '',
  mac: '',
  internal: false,
  cidr,
  ...(cidr.includes(':') ? { family: 'IPv6' as const, scopeid } : { family: 'IPv4' as const }),
});
const machine = {
  lo: [entry('127.0.0.1/8'), entry('::1/128')],
  eth0: [entry('192.0.2.1/24'), entry('fe80::1/64', 2), entry('2001:db8:1::1/64')],
  eth1: [
    entry('198.51.100.1/24'),
    entry('fe80::1/64', 3),
    entry('2001:db8:2::1/64'),
    entry('2001:db8:2::77/64'),
  ],
  tun0: [entry('192.0.2.130/25')],
};
const kernel = {
  indexes: new Map([
    ['lo', 1],
    ['eth0', 2],
    ['eth1', 3],
  ]),
  passing: new Set<string>(),
};
const locals = localAddresses([], () => machine, kernel);
const without = (...names: string[]): LocalAddress[] =>
  locals.filter(({ interfaceName }) => !names.includes(interfaceName));
const noRoute: Routing = { sourceTowards: () => undefined, interfaceOf: () => undefined };

describe('the local addresses of the machine', () => {
  test('have the index of their interface, and a zone where they need one', () => {
    const addresses = localAddresses(['eth1', 'tun0'], () => machine, kernel);
    assert.deepEqual(
      addresses.map(({ address, interfaceIndex }) => [address, interfaceIndex]),
      [
        ['198.51.100.1', 3],
        ['fe80::1%eth1', 3],
        ['2001:db8:2::1', 3],
        ['2001:db8:2::77', 3],
        ['192.0.2.130', undefined],
      ],
    );
  });

  test('leave out those that pass, and name an address once', () => {
    const addresses = localAddresses([], () => ({ ...machine, eth9: [entry('192.0.2.1/24')] }), {
      ...kernel,
      passing: new Set(['2001:db8:2::77']),
    }).map(({ address }) => address);
    assert.ok(!addresses.includes('2001:db8:2::77'));
    assert.equal(addresses.filter((address) => address === '192.0.2.1').length, 1);
  });
});

describe('the local address towards a remote one', () => {
  const towards = (remote: string, routing = noRoute, from = locals) =>
    addressTowards(from, remote, routing)?.address;

  test('is on its link, and in its smallest subnet', () => {
    assert.equal(towards('198.51.100.77'), '198.51.100.1');
    assert.equal(towards('192.0.2.5'), '192.0.2.1');
    assert.equal(towards('192.0.2.200'), '192.0.2.130');
    assert.equal(towards('2001:db8:2::9'), '2001:db8:2::1');
    assert.equal(towards('127.0.0.9'), '127.0.0.1');
    assert.equal(towards('::1'), '::1');
  });

  test('is in its zone, or there is none', () => {
    assert.equal(towards('fe80::9%eth1'), 'fe80::1%eth1');
    assert.equal(towards('fe80::9%eth7'), undefined);
    assert.equal(towards('fe80::9'), 'fe80::1%eth0');
  });

  test('is what the kernel says, where the remote one is on no link', () => {
    const via = (source: string) => ({ ...noRoute, sourceTowards: () => source });
    assert.equal(towards('203.0.113.5', via('198.51.100.1')), '198.51.100.1');
    assert.equal(towards('2001:db8:9::5', via('2001:db8:2::77')), '2001:db8:2::77');
    const temporary = { sourceTowards: () => '2001:db8:2::abcd', interfaceOf: () => 'eth1' };
    assert.equal(towards('2001:db8:9::5', temporary), '2001:db8:2::1', 'at least of that interface');
  });

  test('is never a loopback address, nor a link-local one, for a remote one that is neither', () => {
    assert.equal(towards('203.0.113.5'), '192.0.2.1');
    assert.equal(towards('2001:db8:9::5'), '2001:db8:1::1');
    assert.equal(towards('203.0.113.5', noRoute, without('eth0', 'eth1', 'tun0')), undefined);
    const lies = { ...noRoute, sourceTowards: () => '127.0.0.1' };
    assert.equal(towards('203.0.113.5', lies), '192.0.2.1');
    assert.equal(
      towards('2001:db8:9::5', noRoute, [locals.find((one) => one.address === 'fe80::1%eth0')!]),
      undefined,
    );
  });
});

describe('what the kernel says', () => {
  const onLinux = { skip: process.platform === 'linux' ? false : 'this is not Linux' };

  test('the index of each interface, as Node has it in the scope of a link-local address', onLinux, () => {
    const { indexes } = readKernelNetwork();
    for (const [name, addresses = []] of Object.entries(networkInterfaces()))
      for (const { address, family, ...more } of addresses)
        if (family === 'IPv6' && address.startsWith('fe80:') && 'scopeid' in more)
          assert.equal(indexes.get(name), more.scopeid);
    assert.equal(indexes.get('lo'), 1);
  });

  test('a membership comes and goes', onLinux, async () => {
    const group = '239.1.2.3';
    const joined = () => readKernelNetwork().memberships[4]?.has(membershipKey(1, group));
    assert.equal(joined(), false);
    const socket = await boundSocket({ family: 4, address: group, port: 0, reuseAddr: true });
    socket.addMembership(group, '127.0.0.1');
    assert.equal(joined(), true);
    const closed = once(socket, 'close');
    socket.close();
    await closed;
    assert.equal(joined(), false);
  });

  test('the source of what would be sent', onLinux, () => {
    assert.equal(sourceAddressTowards('127.0.0.9'), '127.0.0.1');
    assert.equal(sourceAddressTowards('gateway.example'), undefined);
    assert.equal(sourceAddressTowards(''), undefined);
    assert.equal(sourceAddressTowards('fe80::1%none'), undefined);
  });
});
