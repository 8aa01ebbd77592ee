// npm run image:pages: starts the gateway on the emulated board, finds the pages of Node that this touches, and writes them to
// recipe/start-pages.txt.
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
client-secret = "not used here"
server-secret = "not used here"
`;

/**
 * Runs in the guest, with a process ID as its argument. Prints the pages of Node's program that the process has touched,
 * from the kernel's page map.
 */
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
  // By default the kernel maps sixteen pages at each fault, which would hide the pages that are really touched. The gateway
  // is started again, since the pages of the first start were mapped before this setting.
  machine.type('mount -t debugfs none /sys/kernel/debug; echo 4096 > /sys/kernel/debug/fault_around_bytes');
  const again = machine.says(/gateway\.started/, patience);
  machine.type('killall node');
  await again;
  // The start includes one attempt at the uplink by each protocol. There is no broker, so both fail.
  for (const protocol of [5, 4])
    await machine.says(new RegExp(`connect-failed.*"protocol":${protocol}`), patience);
  machine.type(`echo ${Buffer.from(pageReader).toString('base64')} | base64 -d > /tmp/pages.cjs`);
  const all = machine.says(/^touched all/, patience);
  // Without a terminal as standard input and output, which Node would wait for.
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
  // Enough memory that no page is evicted.
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
