import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parse } from 'smol-toml';
import { takeBoardConfig } from '../../../src/gateway/update/board-config.ts';
import { demandUsableNetwork } from '../../../src/gateway/update/root-files.ts';

const network = (toml: string) => takeBoardConfig(parse(toml), 'gateway.toml').network!;
const one = (keys: string) => network(`[[network.interface]]\nname = "eth0"\n${keys}\n`);

describe('the network of a board', () => {
  test('is DHCP on a named interface when nothing else is said', () => {
    const [eth0] = one('').interface;
    assert.deepEqual(eth0?.addresses, ['dhcp']);
    assert.equal(network('[network]\n')['fall-back-after'], 10);
    assert.throws(() => network('[network]\nfall-back-after = 2\n'), /from 3 to 1440/);
  });

  test('takes static addresses of both families, gateways in their networks, and link-local gateways', () => {
    for (const keys of [
      'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.2.1"]',
      'addresses = ["192.0.2.1/31"]\ngateways = ["192.0.2.0"]',
      'addresses = ["192.0.2.1/32"]',
      'addresses = ["2001:db8::1/64"]\ngateways = ["fe80::1"]',
      'addresses = ["2001:db8::/127"]\ngateways = ["2001:db8::1"]',
      'addresses = ["dhcp", "2001:db8::10/64"]\ngateways = ["2001:db8::1"]',
      'addresses = []',
    ])
      assert.ok(one(keys).interface[0], keys);
  });

  for (const [what, keys, why] of [
    [
      'a prefix that is missing',
      'addresses = ["192.0.2.10"]',
      /addresses\[0\]: expected "dhcp", or an address/,
    ],
    ['a prefix that is too long', 'addresses = ["192.0.2.10/33"]', /addresses\[0\]: expected/],
    ['a mask in place of a prefix', 'addresses = ["192.0.2.10/255.255.255.0"]', /addresses\[0\]: expected/],
    ['the network itself', 'addresses = ["192.0.2.0/24"]', /addresses\[0\]: expected/],
    ['the broadcast', 'addresses = ["192.0.2.255/24"]', /addresses\[0\]: expected/],
    ['loopback', 'addresses = ["127.0.0.1/8"]', /addresses\[0\]: expected/],
    ['multicast', 'addresses = ["ff02::1/64"]', /addresses\[0\]: expected/],
    ['more than a value', 'addresses = ["192.0.2.10/24; reboot"]', /addresses\[0\]: expected/],
    ['a text in place of a list', 'addresses = "192.0.2.10/24"', /write it in brackets/],
    ['a gateway elsewhere', 'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.3.1"]', /in no network/],
    [
      'a gateway of the other family',
      'addresses = ["192.0.2.10/24"]\ngateways = ["2001:db8::1"]',
      /in no network/,
    ],
    [
      'a gateway that is the board',
      'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.2.10"]',
      /the board itself/,
    ],
    [
      'two gateways of one family',
      'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.2.1", "192.0.2.2"]',
      /two gateways of one family/,
    ],
    ['a DNS server by name', 'dns = ["dns.example"]', /dns\[0\]: expected an IP address/],
    ['VLAN 0', 'vlan = 0', /vlan: expected a whole number from 1 to 4094/],
    ['an unknown key', 'adresses = []', /adresses: unknown key; is addresses meant\?/],
    [
      'a short password',
      'wifi = { ssid = "a", password = "short", country = "DE" }',
      /password: expected a text of 8/,
    ],
    [
      'a country by name',
      'wifi = { ssid = "a", password = "password", country = "Germany" }',
      /country code/,
    ],
    [
      'a name that is too long',
      `wifi = { ssid = "${'ä'.repeat(17)}", password = "password", country = "DE" }`,
      /32 bytes/,
    ],
    ['a PIN with letters', 'cellular = { apn = "a", pin = "12a4" }', /a PIN of 4 to 8 digits/],
    ['an access point with a space', 'cellular = { apn = "a b" }', /an access point name/],
    ['a password with a comma', 'cellular = { apn = "a", password = "a,pin=0000" }', /without space, quotes/],
    [
      'static addresses of a modem',
      'cellular = { apn = "a" }\naddresses = ["192.0.2.10/24"]',
      /from its operator/,
    ],
    [
      'a modem with Wi-Fi',
      'cellular = { apn = "a" }\nwifi = { ssid = "a", password = "password", country = "DE" }',
      /exclude each other/,
    ],
  ] as const)
    test(`refuses ${what}`, () => assert.throws(() => one(keys), why));

  test('does not show the password of a Wi-Fi in its complaints', () => {
    assert.throws(
      () => one('wifi = { ssid = "a", password = "hidden", country = "DE" }'),
      (thrown: Error) => !thrown.message.includes('hidden'),
    );
  });

  test('refuses names that a shell or the kernel would take apart, an interface twice and an address twice', () => {
    for (const name of ['', 'eth0.20', '../x', 'eth0 up', '-x', 'Eth0', 'eth01234567'])
      assert.throws(() => network(`[[network.interface]]\nname = "${name}"\n`), /the name of an interface/);
    const twice = '[[network.interface]]\nname = "eth0"\n'.repeat(2);
    assert.throws(() => network(twice), /the interface eth0 is there twice/);
    assert.equal(network(`${twice}vlan = 3\n`).interface.length, 2);
    const address = (name: string) =>
      `[[network.interface]]\nname = "${name}"\naddresses = ["192.0.2.1/24"]\n`;
    assert.throws(
      () => network(address('eth0') + address('eth1')),
      /the address 192\.0\.2\.1 is there twice/,
    );
    const many = Array.from({ length: 9 }, (_, at) => `[[network.interface]]\nname = "eth${at}"\n`);
    assert.throws(() => network(many.join('')), /at most 8 interfaces/);
  });

  test('takes a proxy by URL, and nothing that is more than one', () => {
    for (const proxy of ['http://proxy:3128', 'http://user:p%40ss@10.0.0.1:80', 'https://[2001:db8::1]:443/'])
      assert.equal(network(`[network]\nproxy = "${proxy}"\n`).proxy, proxy);
    for (const proxy of [
      'proxy:3128',
      'socks5://proxy',
      'http://',
      'http://a b',
      "http://x'$(reboot)",
      'http://x/path',
    ])
      assert.throws(() => network(`[network]\nproxy = "${proxy}"\n`), /proxy: expected a URL/, proxy);
    assert.throws(() => network('[network]\nno-proxy = ["a,b"]\n'), /no-proxy\[0\]: expected a host/);
  });

  test('needs a DNS server where the broker has a name', () => {
    const fixed = 'addresses = ["192.0.2.10/24"]\ngateways = ["192.0.2.1"]\n';
    const fits = (keys: string, broker: string | undefined) =>
      demandUsableNetwork(one(keys), broker, undefined, 'gateway.toml');
    assert.throws(
      () => fits(fixed, 'mqtts://broker.example:8883'),
      /mqtt\.url has the name broker\.example; add dns/,
    );
    fits(`${fixed}dns = ["192.0.2.53"]\n`, 'mqtts://broker.example:8883');
    fits(fixed, 'mqtts://192.0.2.7:8883');
    fits(fixed, 'mqtts://[2001:db8::7]:8883');
    fits(fixed, undefined);
    fits('', 'mqtts://broker.example:8883');
  });
});
