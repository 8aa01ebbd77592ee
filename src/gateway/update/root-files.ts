// What root reads on a board, as text of lines that its scripts take apart by words. Each value was checked, and a text that a person
// chooses freely is in hexadecimal: no script ever has to quote one.
import { pbkdf2Sync } from 'node:crypto';
import { isIP } from 'node:net';
import { PosternError } from '../../base/errors.ts';
import { isUplink, type NetworkConfig, type NetworkInterface, nameOf } from './network-config.ts';

const hex = (text = ''): string => Buffer.from(text).toString('hex') || '-';

/** nftables commands that open the ports. */
export function firewallText({
  udp,
  tcp,
}: {
  readonly udp: readonly number[];
  readonly tcp: readonly number[];
}): string {
  const open = (set: string, ports: readonly number[]) =>
    ports.map((port) => `add element inet postern ${set} { ${port} }\n`).join('');
  return open('open_udp', udp) + open('open_tcp', tcp);
}

/**
 * What a script needs for an interface: the line `interface NAME DEVICE VLAN METRIC uplink|local RA`, and the lines that belong to it.
 * RA is 1 where router advertisements are taken.
 */
function* interfaceLines(one: NetworkInterface, at: number): Generator<string> {
  const { wifi, cellular, addresses, gateways, dns } = one;
  // The preferred uplink has the lowest metric. An interface that is none has no default route.
  const kind = isUplink(one) ? 'uplink' : 'local';
  const advertised = addresses.some((address) => address.includes(':')) ? 0 : 1;
  yield `interface ${nameOf(one)} ${one.name} ${one.vlan ?? 0} ${(at + 1) * 100} ${kind} ${advertised}`;
  if (wifi) {
    const key = pbkdf2Sync(wifi.password, wifi.ssid, 4096, 32, 'sha1').toString('hex');
    yield `wifi ${wifi.country} ${hex(wifi.ssid)} ${key} ${hex(wifi.password)}`;
  }
  if (cellular) {
    yield `cellular ${cellular.apn} ${hex(cellular.username)} ${hex(cellular.password)} ${cellular.pin ?? '-'}`;
  } else for (const address of addresses) yield address === 'dhcp' ? 'dhcp' : `address ${address}`;
  for (const gateway of gateways) yield `gateway ${gateway}`;
  for (const server of dns) yield `dns ${server}`;
}

/**
 * The network of a board, for the script `network`.
 * @param parent address of the parent gateway, where there is one in place of a broker
 */
export function networkText(network: NetworkConfig, parent: string | undefined): string {
  const { proxy, interface: interfaces } = network;
  return [
    `fall-back ${network['fall-back-after']}`,
    ...(proxy === undefined ? [] : [`proxy ${proxy} ${network['no-proxy'].join(',') || '-'}`]),
    ...(parent === undefined ? [] : [`parent ${parent.replace(/%.*/, '')}`]),
    ...interfaces.flatMap((one, at) => [...interfaceLines(one, at)]),
    '',
  ].join('\n');
}

/** Parts of an image that not every image has (`npm run image -- --with`). */
const optionalParts = ['wifi', 'cellular'] as const;

/**
 * Refuses a network that cannot work with the rest of the configuration, or with this image.
 * @param broker URL of the broker
 * @param parts optional parts of the image; undefined when it is not known
 * @throws {PosternError} `configuration`
 */
export function demandUsableNetwork(
  { interface: interfaces, proxy }: NetworkConfig,
  broker: string | undefined,
  parts: readonly string[] | undefined,
  file: string,
): void {
  for (const [at, one] of interfaces.entries())
    for (const part of optionalParts)
      if (one[part] && parts && !parts.includes(part))
        throw new PosternError(
          'configuration',
          `${file}: network.interface[${at}].${part}: this image has no ${part}; make it by npm run image -- --with ${part}`,
        );
  const host = broker === undefined ? '' : new URL(broker).hostname.replace(/^\[|\]$/g, '');
  const hasNames =
    proxy !== undefined ||
    interfaces.length === 0 ||
    interfaces.some(
      ({ addresses, dns, cellular }) => cellular || addresses.includes('dhcp') || dns.length > 0,
    );
  if (!hasNames && host !== '' && isIP(host) === 0)
    throw new PosternError(
      'configuration',
      `${file}: network.interface: no interface has a DNS server, and mqtt.url has the name ${host}; add dns = ["…"]`,
    );
}
