import { BlockList, isIP, isIPv6 } from 'node:net';
import * as v from 'valibot';
import { described, integerBetween, text } from '../../base/config.ts';

const address = v.pipe(
  v.string(),
  v.check((one) => isIP(one) > 0, 'an IP address, such as 192.0.2.1 or 2001:db8::1'),
);

/** An address with the length of its prefix. Undefined when the text is none. */
export function prefixed(one: string): { readonly ip: string; readonly bits: number } | undefined {
  const [, ip = '', length = ''] = /^([0-9a-fA-F.:]+)\/(\d{1,3})$/.exec(one) ?? [];
  const [bits, most] = [Number(length), isIP(ip) === 6 ? 128 : 32];
  return isIP(ip) > 0 && bits >= 1 && bits <= most ? { ip, bits } : undefined;
}

/** The network of an address. It is made when it is needed: no start-up snapshot can hold one. */
function networkOf(ip: string, bits: number): BlockList {
  const list = new BlockList();
  list.addSubnet(ip, bits, familyOf(ip));
  return list;
}

const familyOf = (ip: string) => (isIPv6(ip) ? 'ipv6' : 'ipv4');
const holds = (list: BlockList, ip: string): boolean => list.check(ip, familyOf(ip));

/** Networks with addresses that no interface can have: unspecified, loopback, multicast and broadcast. */
const unusable = [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['224.0.0.0', 3],
  ['::', 127],
  ['ff00::', 8],
] as const;
const isUnusable = (ip: string): boolean =>
  unusable.some(([network, bits]) => holds(networkOf(network, bits), ip));
const isLinkLocal = (ip: string): boolean => holds(networkOf('fe80::', 10), ip);

/** Whether an address is that of an interface, and not of its network or its broadcast. */
function isOfInterface(one: string): boolean {
  const { ip, bits } = prefixed(one) ?? { ip: '', bits: 0 };
  if (ip === '' || isUnusable(ip)) return false;
  if (isIPv6(ip) || bits > 30) return true;
  const host = ip.split('.').reduce((sum, part) => sum * 256 + Number(part), 0) % 2 ** (32 - bits);
  return host !== 0 && host !== 2 ** (32 - bits) - 1;
}

/** Asks for an address of IPv4 by DHCP. */
const byDhcp = 'dhcp';
const addressRule = '"dhcp", or an address of the board with its prefix, such as 192.0.2.10/24';
const printable = (min: number, max: number) =>
  v.pipe(
    v.string(),
    v.regex(new RegExp(`^[ -~]{${min},${max}}$`), `a text of ${min} to ${max} characters of ASCII`),
  );

/** Without what would end a value in the settings of ModemManager. */
const accessName = v.pipe(
  v.string(),
  v.regex(/^[!#-&(-+\--~]{1,64}$/, 'a text of 1 to 64 characters of ASCII without space, quotes and comma'),
);

const interfaceTable = v.strictObject({
  name: described(
    v.pipe(v.string(), v.regex(/^[a-z][a-z0-9]{0,9}$/, 'the name of an interface, such as eth0')),
    'Name of the interface, as the kernel has it: `eth0`, `wlan0`, `wwan0`',
  ),
  vlan: described(
    v.optional(integerBetween(1, 4094)),
    'Number of a VLAN (IEEE 802.1Q): the addresses are those of the board in this VLAN, as interface `NAME.VLAN`',
  ),
  addresses: described(
    v.optional(
      v.pipe(
        v.array(
          v.pipe(
            v.string(),
            v.check((one) => one === byDhcp || isOfInterface(one), addressRule),
          ),
        ),
        v.maxLength(8, 'a list of at most 8 addresses'),
      ),
      [byDhcp],
    ),
    'Addresses of the board with their prefixes, and `dhcp` for one of IPv4 by DHCP. With an address of IPv6 here, router advertisements are not taken; otherwise they are',
  ),
  gateways: described(
    v.optional(v.pipe(v.array(address), v.maxLength(2, 'one gateway of each family')), []),
    'The way to all other networks: one of IPv4, one of IPv6. An interface with one, or with DHCP, is an uplink',
  ),
  dns: described(
    v.optional(v.pipe(v.array(address), v.maxLength(3, 'a list of at most 3 addresses')), []),
    'DNS servers, besides those that DHCP names',
  ),
  wifi: described(
    v.optional(
      v.strictObject({
        ssid: described(
          v.pipe(
            v.string(),
            v.check(
              (one) => one !== '' && Buffer.byteLength(one) <= 32 && !/\0/.test(one),
              'a text of 1 to 32 bytes',
            ),
          ),
          'Name of the wireless network',
        ),
        password: described(printable(8, 63), 'Its password, for WPA2 and WPA3'),
        country: described(
          v.pipe(v.string(), v.regex(/^[A-Z]{2}$/, 'a country code such as DE')),
          'Country where the board is, whose radio rules count',
        ),
      }),
    ),
    'The interface is a Wi-Fi client. The image must be made with `--with wifi`',
  ),
  cellular: described(
    v.optional(
      v.strictObject({
        apn: described(
          v.pipe(v.string(), v.regex(/^[A-Za-z0-9.-]{1,100}$/, 'an access point name such as internet')),
          'Access point name of the operator',
        ),
        username: described(v.optional(accessName), 'User name at the access point'),
        password: described(v.optional(accessName), 'Its password'),
        pin: described(
          v.optional(v.pipe(v.string(), v.regex(/^\d{4,8}$/, 'a PIN of 4 to 8 digits'))),
          'PIN of the SIM',
        ),
      }),
    ),
    'The interface is a cellular modem. The image must be made with `--with cellular`',
  ),
});
export type NetworkInterface = v.InferOutput<typeof interfaceTable>;

/** Name of an interface, with its VLAN. */
export const nameOf = ({ name, vlan }: Pick<NetworkInterface, 'name' | 'vlan'>): string =>
  vlan === undefined ? name : `${name}.${vlan}`;

/** Whether default routes may lead out of an interface. */
export const isUplink = ({ addresses, gateways, cellular }: NetworkInterface): boolean =>
  cellular !== undefined || addresses.includes(byDhcp) || gateways.length > 0;

/** What does not fit together in an interface. Undefined when all does. */
function conflictIn({ addresses, gateways, wifi, cellular, vlan }: NetworkInterface): string | undefined {
  if (wifi && cellular) return 'wifi and cellular exclude each other';
  if (cellular && (vlan !== undefined || gateways.length > 0 || addresses.some((one) => one !== byDhcp)))
    return 'a cellular modem gets its addresses from its operator; remove vlan, addresses and gateways';
  const networks = addresses.map(prefixed).filter((one) => one !== undefined);
  for (const gateway of gateways) {
    if (isLinkLocal(gateway)) continue;
    if (
      !networks.some(
        ({ ip, bits }) => familyOf(ip) === familyOf(gateway) && holds(networkOf(ip, bits), gateway),
      )
    )
      return `the gateway ${gateway} is in no network of the addresses of this interface`;
    if (networks.some(({ ip }) => ip === gateway)) return `the gateway ${gateway} is the board itself`;
  }
  return new Set(gateways.map(familyOf)).size === gateways.length
    ? undefined
    : 'there are two gateways of one family; name one';
}

/** The first thing that is there twice, in words. */
function repeated(interfaces: readonly NetworkInterface[]): string | undefined {
  const names = interfaces.map((one) => `interface ${nameOf(one)}`);
  const addresses = interfaces.flatMap((one) =>
    one.addresses.filter((ip) => ip !== byDhcp).map((ip) => `address ${ip.replace(/\/.*/, '')}`),
  );
  const all = [...names, ...addresses];
  return all.find((one, at) => all.indexOf(one) !== at);
}

type Interfaces = NetworkInterface[];
const proxyRule = 'a URL such as http://proxy.example:3128';

/** The table `[network]` of a board. Root reads it; the gateway does not. */
export const networkSection = described(
  v.optional(
    v.strictObject({
      'fall-back-after': described(
        // An attempt to reach the broker may come a minute and a half after the last one.
        v.optional(integerBetween(3, 1440), 10),
        'Minutes without a way to the broker or the parent after which the board tries the next uplink, and after the last one DHCP on all its interfaces',
      ),
      proxy: described(
        v.optional(
          v.pipe(
            text,
            v.regex(
              /^https?:\/\/([A-Za-z0-9._~%!*-]+(:[A-Za-z0-9._~%!*-]*)?@)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\/?$/,
              proxyRule,
            ),
            v.check((one) => URL.canParse(one), proxyRule),
          ),
        ),
        'HTTP proxy for `wss:` and `ws:` to the broker, and for downloads. It does not carry `mqtts:`',
      ),
      'no-proxy': described(
        v.optional(
          v.pipe(
            v.array(
              v.pipe(
                text,
                v.regex(/^[A-Za-z0-9.:*[\]-]+$/, 'a host such as server.example, *.example or 192.0.2.1'),
              ),
            ),
            v.maxLength(16, 'a list of at most 16 hosts'),
          ),
          [],
        ),
        'Hosts that are reached without the proxy; `*.example` for all below a name',
      ),
      interface: described(
        v.optional(
          v.pipe(
            v.array(
              v.pipe(
                interfaceTable,
                v.check<NetworkInterface, (issue: v.CheckIssue<NetworkInterface>) => string>(
                  (one) => conflictIn(one) === undefined,
                  ({ input }) => conflictIn(input)!,
                ),
              ),
            ),
            v.maxLength(8, 'at most 8 interfaces'),
            v.check<Interfaces, (issue: v.CheckIssue<Interfaces>) => string>(
              (all) => repeated(all) === undefined,
              ({ input }) => `the ${repeated(input)} is there twice`,
            ),
          ),
          [],
        ),
        'Interfaces of the board. Those with a default route are uplinks, the first one is preferred. Others are not used, unless all uplinks fail. Without any, the board asks for addresses by DHCP on all interfaces',
      ),
    }),
  ),
  'Network of a board of the firmware image',
);
export type NetworkConfig = NonNullable<v.InferOutput<typeof networkSection>>;
