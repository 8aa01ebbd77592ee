// The network of a board by its table [network]: the board's own scripts in network namespaces, with real DHCP and real connections.
import assert from 'node:assert/strict';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'smol-toml';
import { takeBoardConfig } from '../../src/gateway/update/board-config.ts';
import { networkText } from '../../src/gateway/update/root-files.ts';
import { BoardNetwork, skipNetwork } from './network-rig.ts';

/** What root reads for a table, as the provisioning makes it. */
const plan = (toml: string, parent?: string) =>
  networkText(takeBoardConfig(parse(toml), 'gateway.toml').network!, parent);
const fixed = (name: string, net: number) => `[[network.interface]]
name = "${name}"
addresses = ["192.0.${net}.10/24"]
gateways = ["192.0.${net}.1"]
dns = ["192.0.${net}.53"]
`;
const two = plan(fixed('eth0', 2) + fixed('eth1', 3));
const limit = { timeout: 60_000 };
const broker = '198.51.100.1';

/** A world with two uplinks to the same broker. */
async function open(): Promise<BoardNetwork> {
  const network = await BoardNetwork.open();
  network.cable('eth0', '192.0.2.1/24');
  network.cable('eth1', '192.0.3.1/24');
  network.world.run('ip', 'addr', 'add', `${broker}/32`, 'dev', 'lo');
  return network;
}

describe('the network of a board', { skip: skipNetwork }, () => {
  test('static addresses of both families, gateways and name servers are as configured', limit, async () => {
    using network = await open();
    network.up(
      plan(`[[network.interface]]
name = "eth0"
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
gateways = ["192.0.2.1", "fe80::1"]
dns = ["192.0.2.53", "2001:db8::53"]
[[network.interface]]
name = "eth1"
addresses = ["192.0.3.10/24"]
`),
    );
    assert.ok(network.addresses('eth0').includes('2001:db8::10/64'));
    assert.deepEqual(network.routes(), ['192.0.2.1 eth0 100']);
    assert.deepEqual(network.routes('-6'), ['fe80::1 eth0 100']);
    assert.equal(network.file('run/resolv.conf'), 'nameserver 192.0.2.53\nnameserver 2001:db8::53\n');
    assert.equal(network.file('clocks'), '\n\n', 'the clock is set without a lease');
    const conf = (name: string, key: string) =>
      network.board.run('cat', `/proc/sys/net/ipv6/conf/${name}/${key}`).trim();
    assert.equal(conf('eth0', 'accept_ra'), '0');
    assert.deepEqual([conf('eth1', 'accept_ra'), conf('eth1', 'accept_ra_defrtr')], ['1', '0']);
    assert.ok(!existsSync(join(network.folder, 'run/udhcpc.eth0')), 'nothing is asked for by DHCP');
  });

  test(
    'without a table each interface asks by DHCP, and the leases of two do not displace each other',
    limit,
    async () => {
      using network = await open();
      await network.dhcp('eth0', '192.0.2.77', '192.0.2.1', '192.0.2.53');
      await network.dhcp('eth1', '192.0.3.77', '192.0.3.1', '192.0.3.53');
      network.up();
      await network.until(() => network.routes().length === 2);
      assert.deepEqual(network.routes(), ['192.0.2.1 eth0 100', '192.0.3.1 eth1 200']);
      await network.until(() => network.file('run/resolv.conf').split('\n').length === 3);
      assert.equal(network.file('run/resolv.conf'), 'nameserver 192.0.2.53\nnameserver 192.0.3.53\n');
    },
  );

  test('a lease that ends takes its own address alone, and its routes and name servers', limit, async () => {
    using network = await open();
    await network.dhcp('eth0', '192.0.2.77', '192.0.2.1', '192.0.2.53');
    network.up(
      plan('[[network.interface]]\nname = "eth0"\naddresses = ["dhcp", "192.0.9.9/24", "fd00:7057::7/64"]\n'),
    );
    await network.until(() => network.routes().length === 1);
    const lease = join(network.folder, 'scripts/lease');
    network.board.run('env', 'interface=eth0', 'metric=100', lease, 'deconfig');
    const left = network.addresses('eth0');
    assert.ok(!left.includes('192.0.2.77/24'));
    assert.ok(left.includes('192.0.9.9/24') && left.includes('fd00:7057::7/64'));
    assert.match(left.join(), /fe80:/);
    assert.deepEqual(network.routes(), []);
    assert.equal(network.file('run/resolv.conf'), '');
  });

  test(
    'a cable that is pulled out moves the traffic to the next uplink at once, and back when it is in again',
    limit,
    async () => {
      using network = await open();
      network.up(two);
      assert.equal(network.wayTo(broker), '192.0.2.1 eth0');
      network.plug('eth0', 'down');
      await network.until(() => network.wayTo(broker) === '192.0.3.1 eth1');
      network.plug('eth0', 'up');
      await network.until(() => network.wayTo(broker) === '192.0.2.1 eth0');
    },
  );

  test(
    'without a way up each uplink gets its turn, then DHCP beside what is configured, and it begins anew',
    limit,
    async () => {
      using network = await open();
      await network.dhcp('eth0', '192.0.2.77', '192.0.2.254', '192.0.2.99');
      network.up(two);
      await network.watch();
      assert.deepEqual(await network.look(590), []);
      assert.deepEqual(await network.look(10), ['network: eth1']);
      assert.equal(network.wayTo(broker), '192.0.3.1 eth1');
      assert.match(network.file('run/resolv.conf'), /^nameserver 192\.0\.3\.53\n/);
      assert.deepEqual(await network.look(600), ['network: dhcp']);
      await network.until(() => network.wayTo(broker) === '192.0.2.254 eth0');
      for (const [name, address] of [
        ['eth0', '192.0.2.10/24'],
        ['eth1', '192.0.3.10/24'],
      ] as const)
        assert.ok(network.addresses(name).includes(address), 'devices reach the board as before');
      await network.until(() => network.file('run/resolv.conf').startsWith('nameserver 192.0.2.99\n'));
      assert.equal(network.file('run/network-turn'), 'dhcp\n');
      assert.deepEqual(await network.look(600), ['network: configured']);
      assert.equal(network.wayTo(broker), '192.0.2.1 eth0');
      assert.ok(!network.addresses('eth0').includes('192.0.2.77/24'));
      assert.doesNotMatch(network.file('run/resolv.conf'), /192\.0\.2\.99/);
    },
  );

  test(
    'a connection of the gateway keeps the turn; one of another user, or from a device, does not',
    limit,
    async () => {
      using network = await open();
      network.up(two);
      await network.watch();
      const close = await network.connect(broker);
      for (let minute = 0; minute < 30; minute += 10) assert.deepEqual(await network.look(600), []);
      close();
      assert.deepEqual(await network.look(590), []);
      const other = await network.connect(broker, '101');
      assert.deepEqual(await network.look(600), ['network: eth1']);
      other();
      // A device that is connected to the gateway.
      network.world.run('true');
      const server = network.board.spawn(
        'setpriv',
        '--reuid',
        '100',
        '--clear-groups',
        'busybox',
        'nc',
        '-ll',
        '-p',
        '8053',
        '-e',
        'cat',
      );
      await network.until(() => /:1F75 /.test(network.board.run('cat', '/proc/net/tcp', '/proc/net/tcp6')));
      const device = network.world.spawn('busybox', 'nc', '192.0.2.10', '8053');
      device.stdin!.write('x');
      await new Promise((resolve) => device.stdout!.once('data', resolve));
      assert.deepEqual(await network.look(600), ['network: dhcp']);
      for (const child of [device, server]) child.kill('SIGKILL');
    },
  );

  test('an uplink that works is kept for an hour; then the first one has three minutes', limit, async () => {
    using network = await open();
    network.up(two);
    await network.watch();
    assert.deepEqual(await network.look(600), ['network: eth1']);
    let close = await network.connect(broker);
    assert.deepEqual(await network.look(100), []);
    assert.deepEqual(await network.look(3400), []);
    assert.deepEqual(await network.look(100), ['network: configured']);
    // The connection of the turn before is still there for a while, and proves nothing.
    assert.deepEqual(await network.look(80), []);
    close();
    assert.deepEqual(await network.look(90), []);
    assert.deepEqual(
      await network.look(10),
      ['network: eth1'],
      'back to the one that works, past no other one',
    );
    close = await network.connect(broker);
    assert.deepEqual(await network.look(3600), ['network: configured']);
    close();
    close = await network.connect(broker);
    assert.deepEqual(await network.look(100), []);
    assert.deepEqual(await network.look(7200), [], 'the first uplink works again, and is kept');
    close();
  });

  test(
    'a gateway that does not run, and one whose parent answers, is no reason for a turn',
    limit,
    async () => {
      using network = await open();
      network.up(plan(fixed('eth0', 2), '192.0.2.1'));
      await network.watch();
      assert.deepEqual(await network.look(6000), [], 'the parent answers');
      writeFileSync(join(network.folder, 'no-gateway'), '');
      network.world.run('ip', 'addr', 'del', '192.0.2.1/24', 'dev', 'eth0');
      assert.deepEqual(await network.look(6000), []);
      rmSync(join(network.folder, 'no-gateway'));
      assert.deepEqual(await network.look(590), []);
      assert.deepEqual(await network.look(10), ['network: dhcp'], 'the parent does not answer');
    },
  );

  test('an interface that comes late, or goes and comes again, is set up then', limit, async () => {
    using network = await open();
    network.up(plan(fixed('eth7', 7)));
    await network.watch();
    await network.look(10);
    for (let turn = 0; turn < 2; turn++) {
      network.cable('eth7', '192.0.7.1/24');
      await network.look(10);
      assert.deepEqual(network.routes(), ['192.0.7.1 eth7 100']);
      network.world.run('ip', 'link', 'del', 'eth7');
      await network.look(10);
      assert.deepEqual(network.routes(), []);
    }
  });

  test(
    'a modem gets its addresses from its bearer, is connected again when that ends, and a wrong PIN is given once',
    limit,
    async () => {
      using network = await open();
      network.cable('wwan0', '100.64.0.1/30');
      // In place of ModemManager, which needs a modem: what mmcli prints of a bearer with static addresses.
      const { folder } = network;
      for (const name of ['modem-bus', 'ModemManager']) network.program(name, ':');
      network.program(
        'mmcli',
        `case "$*" in
  *--simple-connect*) echo "$*" >> ${folder}/orders; [ -e ${folder}/refuses ] && { echo "error: SIM-PIN is wrong" >&2; exit 1; }; : ;;
  "-m any -K") echo 'modem.generic.bearers.value[1]       : /org/freedesktop/ModemManager1/Bearer/0' ;;
  "-b "*) cat ${folder}/bearer ;;
esac`,
      );
      const bearer = (state: string) =>
        writeFileSync(
          join(folder, 'bearer'),
          `bearer.status.connected                : ${state}
bearer.status.interface                : wwan0
bearer.ipv4-config.method              : static
bearer.ipv4-config.address             : 100.64.0.2
bearer.ipv4-config.prefix              : 30
bearer.ipv4-config.gateway             : 100.64.0.1
bearer.ipv4-config.dns.value[1]        : 100.64.0.53
bearer.ipv6-config.method              : --
`,
        );
      bearer('yes');
      writeFileSync(join(folder, 'refuses'), '');
      network.up(
        plan(
          `[[network.interface]]
name = "wwan0"
cellular = { apn = "internet", username = "me", password = "it's", pin = "1234" }
`.replace("it's", 'a=$(b)'),
        ),
      );
      const orders = () =>
        existsSync(join(folder, 'orders')) ? network.file('orders').trim().split('\n') : [];
      const ordered = async (count: number) => {
        network.tick();
        while (orders().length < count) await new Promise((resolve) => setImmediate(resolve));
      };
      await ordered(1);
      await ordered(2);
      rmSync(join(folder, 'refuses'));
      network.tick();
      await network.until(() => network.routes().length === 1);
      assert.deepEqual(network.routes(), ['100.64.0.1 wwan0 100']);
      assert.deepEqual(
        orders().map((order) => /pin=/.test(order)),
        [true, false, false],
      );
      assert.match(orders()[2]!, /apn=internet,user=me,password=a=\$\(b\)$/);
      assert.equal(network.file('run/resolv.conf'), 'nameserver 100.64.0.53\n');
      bearer('no');
      writeFileSync(join(folder, 'refuses'), '');
      network.tick();
      await network.until(() => network.routes().length === 0);
      rmSync(join(folder, 'refuses'));
      bearer('yes');
      network.tick();
      await network.until(() => network.routes().length === 1);
    },
  );

  test('what a script that was killed in a turn has left is gone when it starts again', limit, async () => {
    using network = await open();
    await network.dhcp('eth0', '192.0.2.77', '192.0.2.254', '192.0.2.99');
    network.up(two);
    await network.watch();
    await network.look(600);
    await network.look(600);
    await network.until(() => network.wayTo(broker) === '192.0.2.254 eth0');
    await network.watch();
    assert.deepEqual(network.routes(), ['192.0.2.1 eth0 100', '192.0.3.1 eth1 200']);
    assert.ok(!network.addresses('eth0').includes('192.0.2.77/24'));
  });
});
