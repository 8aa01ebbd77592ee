import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Lab, labSkip, type Machine, type Party } from '../../peers/lab.ts';
import type { LabRoles } from '../../peers/lab-party.ts';

const options = { timeout: 170_000, skip: labSkip };

type Network = Party<Awaited<ReturnType<LabRoles['network']>>>;
type Asker = Party<Awaited<ReturnType<LabRoles['asker']>>>;

/** A gateway's machine and a device's, with a cable between them. */
async function pair(lab: Lab, networkOptions: Parameters<LabRoles['network']>[0] = {}) {
  const [gateway, device] = [lab.machine('gateway'), lab.machine('device')];
  lab.cable(gateway, 'lan0', device, 'port0');
  gateway.address('lan0', '192.0.2.1/24', '2001:db8::1/64');
  device.address('port0', '192.0.2.7/24', '2001:db8::7/64');
  const network = await gateway.start('network', networkOptions);
  const asker = await device.start('asker');
  return { gateway, device, network, asker };
}

/** Asks a gateway in all ways in which a device may: its addresses, and its groups. */
async function assertServes(asker: Asker, gateway: Machine, name = 'lan0'): Promise<void> {
  const link = gateway.linkLocal(name);
  const unicast = ['192.0.2.1', '2001:db8::1', `${link}%port0`];
  for (const host of unicast) {
    const answer = await asker.call('ask', host);
    assert.equal(answer?.from, host, `${host} answers`);
    assert.equal(answer?.asked.split('%')[0], host.split('%')[0]);
  }
  const groups = [
    ['224.0.1.187', '192.0.2.7', '192.0.2.1'],
    ['ff02::fd%port0', '::%port0', undefined],
    ['ff05::fd', '::%port0', undefined],
  ] as const;
  for (const [group, via, from] of groups) {
    const answer = await asker.call('ask', group, via);
    assert.ok(answer, `${group} answers`);
    if (from !== undefined) assert.equal(answer.from, from);
  }
}

/** Takes the cable away, with its interfaces, and lays a new one with interfaces of the same names. */
function layAgain(lab: Lab, gateway: Machine, device: Machine): void {
  lab.cable(gateway, 'lan0', device, 'port0');
  gateway.address('lan0', '192.0.2.1/24', '2001:db8::1/64');
  device.address('port0', '192.0.2.7/24', '2001:db8::7/64');
}

const listening = async ({ events }: Network, addresses: readonly string[]) => {
  await Promise.all(addresses.map((address) => events.next('coap.listening', { address })));
};
const global = ['192.0.2.1', '2001:db8::1'];

describe('an interface of a gateway', options, () => {
  test('serves its addresses and groups, over IPv4 and IPv6', async (t) => {
    const lab = new Lab(t);
    const { gateway, asker } = await pair(lab);
    await assertServes(asker, gateway);
  });

  test('is taken away and made again between two checks', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab);
    for (let times = 0; times < 3; times++) {
      gateway.ip('link', 'del', 'lan0');
      layAgain(lab, gateway, device);
      await network.call('refresh');
      await assertServes(asker, gateway);
    }
    assert.equal(network.events.count('coap.join-failed'), 0);
  });

  test('is taken away and made again, and the gateway notices both by itself', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab);
    const gone = network.events.next('coap.address-gone', { address: '192.0.2.1' });
    gateway.ip('link', 'del', 'lan0');
    await gone;
    const back = listening(network, global);
    layAgain(lab, gateway, device);
    await back;
    await assertServes(asker, gateway);
  });

  test('is taken away and made again within one interval, and the gateway notices by itself', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab);
    const back = listening(network, global);
    gateway.ip('link', 'del', 'lan0');
    layAgain(lab, gateway, device);
    await back;
    await assertServes(asker, gateway);
  });

  test('is made again more often than a socket has memberships', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab);
    for (let times = 0; times < 25; times++) {
      gateway.ip('link', 'del', 'lan0');
      layAgain(lab, gateway, device);
      await network.call('refresh');
    }
    await assertServes(asker, gateway);
    assert.equal(network.events.count('coap.join-failed'), 0);
  });

  test('goes to another machine and comes back with the same index', async (t) => {
    const lab = new Lab(t);
    const { gateway, network, asker } = await pair(lab);
    const elsewhere = lab.machine('elsewhere');
    const index = /^(\d+):/.exec(gateway.ip('link', 'show', 'lan0'))?.[1];
    await network.call('refresh');
    gateway.ip('link', 'set', 'lan0', 'netns', elsewhere.namespace);
    elsewhere.ip('link', 'set', 'lan0', 'netns', gateway.namespace);
    gateway.up('lan0');
    gateway.address('lan0', '192.0.2.1/24', '2001:db8::1/64');
    assert.equal(/^(\d+):/.exec(gateway.ip('link', 'show', 'lan0'))?.[1], index);
    await network.call('refresh');
    await assertServes(asker, gateway);
  });

  test('goes down and up', async (t) => {
    const lab = new Lab(t);
    const { gateway, network, asker } = await pair(lab);
    gateway.ip('link', 'set', 'lan0', 'down');
    await network.call('refresh');
    assert.deepEqual(
      (await network.call('addresses')).filter((address) => address.startsWith('192')),
      [],
    );
    gateway.up('lan0');
    gateway.address('lan0', '2001:db8::1/64');
    await network.call('refresh');
    await assertServes(asker, gateway);
  });

  test('changes its name', async (t) => {
    const lab = new Lab(t);
    const { gateway, network, asker } = await pair(lab);
    gateway.ip('link', 'set', 'lan0', 'down');
    gateway.ip('link', 'set', 'lan0', 'name', 'wan0');
    gateway.up('wan0');
    gateway.address('wan0', '2001:db8::1/64');
    await network.call('refresh');
    await assertServes(asker, gateway, 'wan0');
  });

  test('comes late, where it was named in the configuration', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab, { interfaces: ['lan1'] });
    assert.deepEqual(await network.call('addresses'), []);
    assert.equal(network.events.count('coap.no-interface'), 1);
    gateway.ip('link', 'del', 'lan0');
    lab.cable(gateway, 'lan1', device, 'port0');
    gateway.address('lan1', '192.0.2.1/24', '2001:db8::1/64');
    device.address('port0', '192.0.2.7/24', '2001:db8::7/64');
    await network.call('refresh');
    await assertServes(asker, gateway, 'lan1');
  });

  test('a second one stays as it is while the first is made again', async (t) => {
    const lab = new Lab(t);
    const { gateway, device, network, asker } = await pair(lab);
    const other = lab.machine('other');
    lab.cable(gateway, 'lan9', other, 'port0');
    gateway.address('lan9', '198.51.100.1/24');
    other.address('port0', '198.51.100.7/24');
    await network.call('refresh');
    const otherAsker = await other.start('asker');
    const ask = () => otherAsker.call('ask', '224.0.1.187', '198.51.100.7');
    assert.equal((await ask())?.from, '198.51.100.1');
    gateway.ip('link', 'del', 'lan0');
    layAgain(lab, gateway, device);
    await network.call('refresh');
    await assertServes(asker, gateway);
    assert.equal((await ask())?.from, '198.51.100.1');
    assert.ok(
      !network.events.all.some(
        ({ name, fields }) => name === 'coap.address-gone' && fields.interface === 'lan9',
      ),
    );
  });
});

describe('addresses that pass', options, () => {
  test('a temporary one and a tentative one are not served; the gateway says nothing of them', async (t) => {
    const lab = new Lab(t);
    const { gateway, network } = await pair(lab);
    // A router advertises a prefix only in real networks, so the temporary address is made by hand.
    gateway.set('net.ipv6.conf.lan0.use_tempaddr', '2');
    gateway.ip('address', 'add', '2001:db8:7::1/64', 'dev', 'lan0', 'nodad', 'mngtmpaddr');
    gateway.set('net.ipv6.conf.lan0.accept_dad', '1');
    gateway.set('net.ipv6.conf.lan0.dad_transmits', '30');
    gateway.ip('address', 'add', '2001:db8:8::1/64', 'dev', 'lan0');
    await network.call('refresh');
    const shown = gateway.ip('-6', 'address', 'show', 'dev', 'lan0');
    assert.match(shown, /tentative/);
    assert.match(shown, /temporary/);
    const addresses = await network.call('addresses');
    assert.ok(addresses.includes('2001:db8:7::1'));
    assert.equal(addresses.filter((address) => address.startsWith('2001:db8:7:')).length, 1);
    assert.ok(!addresses.includes('2001:db8:8::1'));
    assert.equal(network.events.count('coap.bind-failed'), 0);
    gateway.ip('address', 'del', '2001:db8:8::1/64', 'dev', 'lan0');
    gateway.address('lan0', '2001:db8:8::1/64');
    await network.call('refresh');
    assert.ok((await network.call('addresses')).includes('2001:db8:8::1'));
  });
});

describe('own requests of a gateway with several networks', options, () => {
  /**
   * A gateway with two networks, and a device behind a router that is on both. The gateway's routes lead there by `lan0`.
   */
  async function routed(lab: Lab) {
    const [gateway, router, device] = ['gateway', 'router', 'device'].map((name) => lab.machine(name)) as [
      Machine,
      Machine,
      Machine,
    ];
    lab.cable(gateway, 'lan0', router, 'a0');
    lab.cable(gateway, 'lan1', router, 'b0');
    lab.cable(router, 'c0', device, 'port0');
    gateway.address('lan0', '192.0.2.1/24', '2001:db8:1::1/64');
    gateway.address('lan1', '198.51.100.1/24', '2001:db8:2::1/64');
    router.address('a0', '192.0.2.254/24', '2001:db8:1::fe/64');
    router.address('b0', '198.51.100.254/24', '2001:db8:2::fe/64');
    router.address('c0', '203.0.113.254/24', '2001:db8:3::fe/64');
    device.address('port0', '203.0.113.7/24', '2001:db8:3::7/64');
    router.set('net.ipv4.ip_forward', '1');
    router.set('net.ipv6.conf.all.forwarding', '1');
    for (const machine of [gateway, router])
      for (const scope of ['all', 'lan0', 'lan1', 'a0', 'b0'].slice(0, machine === gateway ? 3 : 1))
        machine.set(`net.ipv4.conf.${scope}.rp_filter`, '0');
    gateway.ip('route', 'add', 'default', 'via', '192.0.2.254');
    gateway.ip('-6', 'route', 'add', 'default', 'via', '2001:db8:1::fe');
    device.ip('route', 'add', 'default', 'via', '203.0.113.254');
    device.ip('-6', 'route', 'add', 'default', 'via', '2001:db8:3::fe');
    const network = await gateway.start('network');
    const asker = await device.start('asker');
    return { network, asker, gateway, router };
  }

  test('reach a device behind a router, with interfaces = []', async (t) => {
    const lab = new Lab(t);
    const { network, asker } = await routed(lab);
    for (const [device, local, family] of [
      ['203.0.113.7', '192.0.2.1', 4],
      ['2001:db8:3::7', '2001:db8:1::1', 6],
    ] as const) {
      assert.equal(await network.call('towards', device), local);
      const port = await asker.call('port', family);
      assert.equal(await network.call('ping', device, port), true);
    }
  });

  test('leave by the address at which the device was heard, while it exists', async (t) => {
    const lab = new Lab(t);
    const { network, asker, gateway } = await routed(lab);
    for (const [device, heardOn, family] of [
      ['203.0.113.7', '198.51.100.1', 4],
      ['2001:db8:3::7', '2001:db8:2::1', 6],
    ] as const) {
      assert.deepEqual(await asker.call('ask', heardOn), { from: heardOn, asked: heardOn });
      assert.equal(await network.call('towards', device, heardOn), heardOn);
      assert.equal(await network.call('ping', device, await asker.call('port', family), heardOn), true);
    }
    gateway.ip('link', 'del', 'lan1');
    await network.call('refresh');
    assert.equal(await network.call('towards', '203.0.113.7', '198.51.100.1'), '192.0.2.1');
    assert.equal(
      await network.call('ping', '203.0.113.7', await asker.call('port', 4), '198.51.100.1'),
      true,
    );
  });

  test('follow the routes of the kernel when these change, and do not take loopback without a route', async (t) => {
    const lab = new Lab(t);
    const { network, gateway } = await routed(lab);
    gateway.ip('route', 'replace', 'default', 'via', '198.51.100.254');
    assert.equal(await network.call('towards', '203.0.113.7'), '198.51.100.1');
    gateway.ip('route', 'del', 'default');
    assert.ok(['192.0.2.1', '198.51.100.1'].includes((await network.call('towards', '203.0.113.7')) ?? ''));
    gateway.ip('link', 'del', 'lan0');
    gateway.ip('link', 'del', 'lan1');
    await network.call('refresh');
    assert.equal(await network.call('towards', '203.0.113.7'), undefined);
    assert.equal(await network.call('towards', '2001:db8:3::7'), undefined);
    assert.equal(await network.call('towards', '127.0.0.1'), '127.0.0.1');
  });
});
