// What the board gives to wpa_supplicant and ModemManager, taken by these programs themselves. There is no radio here.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'smol-toml';
import { takeBoardConfig } from '../../src/gateway/update/board-config.ts';
import { networkText } from '../../src/gateway/update/root-files.ts';

const board = fileURLToPath(new URL('../../firmware-image/rootfs', import.meta.url));
const limit = { timeout: 60_000 };
const lacks = (...programs: string[]) =>
  programs.some(
    (name) =>
      spawnSync('sh', ['-c', `PATH=$PATH:/sbin:/usr/sbin:/usr/lib/polkit-1; command -v ${name}`]).status !==
      0,
  );
const cannot = process.getuid?.() !== 0 || spawnSync('unshare', ['-n', '-m', 'true']).status !== 0;

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-radio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** The file that the script `network` writes for wpa_supplicant. */
function wpaFile(folder: string, wifi: Readonly<Record<string, string>>): string {
  const toml = `[[network.interface]]\nname = "wlan0"\n[network.interface.wifi]\n${Object.entries(wifi)
    .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
    .join('')}`;
  const plan = networkText(takeBoardConfig(parse(toml), 'gateway.toml').network!, undefined);
  const words = /^wifi (.*)$/m.exec(plan)![1]!.split(' ');
  const script = readFileSync(join(board, 'usr/lib/postern/network'), 'utf8');
  const join_ = /^join_wifi\(\) \{[\s\S]*?^\}/m.exec(script)![0].replaceAll('/run/', `${folder}/`);
  const { status, stderr } = spawnSync(
    'busybox',
    [
      'sh',
      '-c',
      `name=wlan0; say() { :; }; wpa_supplicant() { :; }\n${join_}\njoin_wifi "$@"`,
      'sh',
      ...words,
    ],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  return join(folder, 'wpa.wlan0');
}

test('wpa_supplicant takes names and passwords of all kinds as they were written', {
  ...limit,
  skip: (cannot || lacks('wpa_supplicant', 'busybox')) && 'needs root and wpa_supplicant',
}, async (t) => {
  const folder = folderOf(t);
  for (const [ssid, password] of [
    ['plant', 'password'],
    ['"} network={ ssid="x', `a"b'c\\d$(reboot)#`],
    ['Büro 7\n', ' ~ spaces ~ '],
  ] as const) {
    const file = wpaFile(folder, { ssid, password, country: 'DE' });
    const child = spawn('unshare', [
      '-n',
      'sh',
      '-c',
      `ip link add wlan0 type veth peer name air; exec wpa_supplicant -dd -K -D wired -i wlan0 -c ${file}`,
    ]);
    t.after(() => child.kill('SIGKILL'));
    const said: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      said.push(line);
      // It begins to work when it has read the file.
      if (line.startsWith('Priority group')) break;
    }
    child.kill('SIGKILL');
    const text = said.join('\n');
    assert.doesNotMatch(text, /Line \d+: (invalid|failed|unknown)|Invalid/i, text);
    const dump = (name: string) => {
      const at = said.findIndex((line) => line.startsWith(`${name} - hexdump_ascii`));
      const rows = said.slice(at + 1).map((line) => /^ {5}((?:[0-9a-f]{2} ){1,16})/.exec(line)?.[1]);
      const end = rows.indexOf(undefined);
      return rows.slice(0, end).join('').replaceAll(' ', '');
    };
    assert.equal(dump('ssid'), Buffer.from(ssid).toString('hex'));
    assert.equal(dump('sae_password'), Buffer.from(password).toString('hex'));
    assert.equal(said.filter((line) => /start of a new network block/.test(line)).length, 1);
  }
});

test('ModemManager works on a bus of its own, without udev, for root alone', {
  ...limit,
  skip: (cannot || lacks('ModemManager', 'mmcli', 'polkitd', 'dbus-daemon')) && 'needs root and ModemManager',
}, (t) => {
  const folder = folderOf(t);
  const users = ['passwd', 'group']
    .map((file) => `mount --bind ${board}/etc/${file} /etc/${file}`)
    .join('\n');
  // Each request is repeated until both programs are on the bus.
  const script = `${users}
mount -t tmpfs tmpfs /run; mkdir -p -m 711 /run/modem
dbus-daemon --config-file=${board}/usr/share/postern/modem-bus.conf --nopidfile --fork
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/modem/bus
/usr/lib/polkit-1/polkitd --no-debug > /dev/null 2>&1 &
ModemManager --test-no-udev > /dev/null 2>&1 &
tries=0
until mmcli --report-kernel-event=action=add,subsystem=net,name=lo > /dev/null 2> ${folder}/why || [ $tries = 300 ]; do tries=$((tries + 1)); done
mmcli -L
setpriv --reuid 100 --clear-groups mmcli -L; echo "as the gateway: $?"
`;
  writeFileSync(join(folder, 'script'), script);
  const { stdout } = spawnSync(
    'unshare',
    ['-n', '-m', '-p', '-f', '--mount-proc', '--kill-child', 'sh', join(folder, 'script')],
    { encoding: 'utf8', timeout: 50_000 },
  );
  assert.match(stdout, /No modems were found/, readFileSync(join(folder, 'why'), 'utf8'));
  assert.match(stdout, /as the gateway: 1/);
});
