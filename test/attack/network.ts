import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { deviceAddress } from '../bench/crowd.ts';
import { Lab, labSkip } from '../peers/lab.ts';

/** Where the parties of `npm run attack` are. */
export interface Network {
  /** Network namespaces of the honest devices and of the attacker. Absent on loopback. */
  readonly namespaces?: { readonly devices: string; readonly attacker: string };
  /** Interface that the gateway serves. */
  readonly interface: string;
  readonly host: string;
  readonly host6?: string;
  /** Address of the attacker on the gateway's network. */
  readonly attacker: string;
  /** First two octets of further addresses that the attacker has. */
  readonly sources: string;
  readonly deviceAddresses: readonly string[];
}

/** Most addresses of honest devices. */
const addresses = 200;
/** First two octets of addresses that everybody has on loopback. */
export const loopbackSources = '127.66';

const loopback: Network = {
  interface: 'lo',
  host: '127.0.0.1',
  attacker: `${loopbackSources}.0.1`,
  sources: loopbackSources,
  deviceAddresses: Array.from({ length: addresses }, (_, at) => deviceAddress(at)),
};
/** The variable of the environment by which this program finds itself in a network of its own. */
const variable = 'POSTERN_ATTACK_NETWORK';

/** The network that this process is in. */
export const network: Network = JSON.parse(process.env[variable] ?? JSON.stringify(loopback)) as Network;

/** Why there is no network of its own; false if there is one. */
export const networkSkip: string | false =
  network.namespaces === undefined && (labSkip || 'this process was started on loopback');

/**
 * Runs this program again on a machine of a lab, and returns its exit code: gateway, broker and head-end are on that machine,
 * honest devices and the attacker are on one each, and a switch joins the three. Each device has an address of its own, every
 * second one of IPv6. The attacker has 65,536 IPv4 addresses and as many IPv6 networks, and may send in the name of others.
 * Undefined where no network can be made, or where this process is in it already.
 */
export async function inOwnNetwork(devices: number): Promise<number | undefined> {
  if (process.env[variable] !== undefined || labSkip) return undefined;
  await using stack = new AsyncDisposableStack();
  const lab = new Lab({ after: (end) => void stack.defer(end as () => Promise<void>) });
  const [site, crowd, attacker] = [lab.machine('site'), lab.machine('devices'), lab.machine('attacker')];
  lab.cable(site, 'port0', crowd, 'lan0');
  lab.cable(site, 'port1', attacker, 'lan0');
  site.ip('link', 'add', 'lan0', 'type', 'bridge', 'mcast_snooping', '0');
  for (const port of ['port0', 'port1']) site.ip('link', 'set', port, 'master', 'lan0');
  site.up('lan0');
  site.address('lan0', '192.0.2.1/24', '2001:db8:1::1/64');
  const deviceAddresses = Array.from({ length: Math.min(devices, addresses) }, (_, at) =>
    at % 2 === 0 ? `192.0.2.${10 + at}` : `2001:db8:1::${(10 + at).toString(16)}`,
  );
  for (const address of deviceAddresses)
    crowd.address('lan0', `${address}/${address.includes(':') ? 64 : 24}`);
  attacker.address('lan0', '192.0.2.250/24', '2001:db8:1::250/64');
  // Whole networks are local to the attacker, and it may bind sockets to addresses that it does not have.
  attacker.ip('route', 'add', 'local', '198.18.0.0/16', 'dev', 'lo');
  attacker.ip('-6', 'route', 'add', 'local', '2001:db8:bad::/48', 'dev', 'lo');
  for (const family of ['ipv4', 'ipv6']) attacker.set(`net.${family}.ip_nonlocal_bind`, '1');
  site.ip('route', 'add', '198.18.0.0/16', 'via', '192.0.2.250');
  site.ip('-6', 'route', 'add', '2001:db8:bad::/48', 'via', '2001:db8:1::250');
  const made: Network = {
    namespaces: { devices: crowd.namespace, attacker: attacker.namespace },
    interface: 'lan0',
    host: '192.0.2.1',
    host6: '2001:db8:1::1',
    attacker: '192.0.2.250',
    sources: '198.18',
    deviceAddresses,
  };
  const again = spawn('ip', ['netns', 'exec', site.namespace, process.execPath, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, [variable]: JSON.stringify(made) },
  });
  process.once('exit', () => void again.kill());
  const [code] = (await once(again, 'exit')) as [number | null];
  return code ?? 1;
}

/** The program and its arguments, on the machine of honest devices or of the attacker where these are machines of their own. */
export function on(
  machine: 'devices' | 'attacker',
  program: string,
  args: readonly string[],
): [string, string[]] {
  const namespace = network.namespaces?.[machine];
  return namespace === undefined
    ? [program, [...args]]
    : ['ip', ['netns', 'exec', namespace, program, ...args]];
}
