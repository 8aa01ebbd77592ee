// npm run image:pages: finds out which pages of Node a start of the gateway touches, by a start of it on the emulated board.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { qemu } from './boards/qemu.ts';
import { virt } from './qemu/hardware.ts';
import { flash, Machine } from './qemu/machine.ts';
import { buildImage } from './recipe/image.ts';
import { signingKeys } from './recipe/keys.ts';
import { describePages, type PageRun, startPagesFile } from './recipe/start-pages.ts';
import { nodeVersion, step } from './recipe/tools.ts';

/** Milliseconds for one step on the board. */
const patience = 180_000;

const config = `[gateway]
id = "pages"
[coap]
insecure-plain-coap = true
[mqtt]
url = "mqtt://127.0.0.1:1"
[dm-server]
id = "dm.example"
client-secret = "of no server"
server-secret = "of no gateway"
`;

/** Runs in the guest: pages of the program that a process has touched, as the kernel's page map tells them. */
const pageReader = `
const fs = require('fs'), id = process.argv[2], map = fs.openSync('/proc/' + id + '/pagemap');
for (const line of fs.readFileSync('/proc/' + id + '/maps', 'utf8').split('\\n')) {
  if (!line.endsWith('/usr/lib/node/node')) continue;
  const [from, to] = line.split(' ')[0].split('-').map((one) => parseInt(one, 16) / 4096);
  const entries = Buffer.alloc((to - from) * 8);
  fs.readSync(map, entries, 0, entries.length, from * 8);
  for (let page = from; page < to; page++)
    if (entries[(page - from) * 8 + 7] & 0xc0) console.log('touched ' + page.toString(16));
}
console.log('touched all');
`;

async function touchedPages(machine: Machine): Promise<PageRun[]> {
  const started = machine.says(/gateway\.started/, patience);
  machine.start();
  await started;
  // One page at a time, where the kernel would map sixteen at once; and what was mapped already does not count.
  machine.type('mount -t debugfs none /sys/kernel/debug; echo 4096 > /sys/kernel/debug/fault_around_bytes');
  const again = machine.says(/gateway\.started/, patience);
  machine.type('killall node');
  await again;
  // With its uplink: the broker is not there, and is looked for by either protocol.
  for (const protocol of [5, 4])
    await machine.says(new RegExp(`connect-failed.*"protocol":${protocol}`), patience);
  machine.type(`echo ${Buffer.from(pageReader).toString('base64')} | base64 -d > /tmp/pages.cjs`);
  const all = machine.says(/^touched all/, patience);
  // Not on the terminal itself, which Node waits for.
  machine.type('node /tmp/pages.cjs $(pidof node) < /dev/null | cat');
  await all;
  const pages = machine.serial.flatMap((line) => /^touched ([0-9a-f]+)$/.exec(line)?.[1] ?? []);
  const runs: { from: number; to: number }[] = [];
  for (const page of pages.map((one) => Number.parseInt(one, 16)).toSorted((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last?.to === page) last.to++;
    else runs.push({ from: page, to: page + 1 });
  }
  return runs;
}

const { disk, trust } = await buildImage({
  board: qemu,
  version: '0.0.1',
  name: 'start-pages',
  keys: signingKeys(undefined),
  isDeveloperImage: true,
  level: 3,
  withDisk: true,
});
const folder = mkdtempSync(join(tmpdir(), 'postern-pages-'));
try {
  const flashed = join(folder, 'disk.img');
  flash(disk!, flashed, { 'gateway.toml': config });
  // With memory enough that nothing is thrown out again.
  const machine = new Machine({
    folder,
    disk: flashed,
    hardware: virt({ trust, memory: 512 }),
    kernelArguments: 'postern.log=console',
  });
  await using _ = machine;
  const runs = await step('a start of the gateway', () => touchedPages(machine));
  writeFileSync(startPagesFile, describePages(nodeVersion(), runs));
  const pages = runs.reduce((sum, { from, to }) => sum + to - from, 0);
  console.log(`${pages} pages of 4096 bytes, in ${runs.length} runs: ${startPagesFile}`);
} finally {
  rmSync(folder, { recursive: true });
}
