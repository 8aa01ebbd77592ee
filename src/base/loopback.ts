import { BlockList } from 'node:net';

/** Whether a host of a configuration is an address of the loopback interface, or its name `localhost`. */
export function isLoopbackHost(host: string): boolean {
  const loopback = new BlockList();
  loopback.addSubnet('127.0.0.0', 8);
  loopback.addAddress('::1', 'ipv6');
  return host === 'localhost' || loopback.check(host, host.includes(':') ? 'ipv6' : 'ipv4');
}
