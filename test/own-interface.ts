import { execFileSync } from 'node:child_process';
import type { TestContext } from 'node:test';

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
let made = 0;

/**
 * A network interface of the test's own, with these addresses and a link-local one of IPv6. Skips the test, and returns
 * undefined, where none can be made.
 */
export function ownInterface(t: TestContext, ...addresses: string[]): string | undefined {
  const name = `pt${process.pid % 100_000}n${made++}`;
  try {
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`);
  } catch (thrown) {
    t.skip(`no network interface can be made here: ${String(thrown).split('\n')[0]}`);
    return undefined;
  }
  t.after(() => ip('link', 'del', name));
  for (const address of addresses)
    ip('address', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  for (const end of [name, `${name}p`]) ip('link', 'set', end, 'up');
  return name;
}
