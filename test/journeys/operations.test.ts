import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ServiceProcess } from '../cli/service-process.ts';
import { startAedes } from '../peers/brokers.ts';

// The commands of docs/operations.md are run in their order, by a shell, against processes of all parties.
// POSTERN_WRITE=1 writes what they print into the page.
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const pageFile = fileURLToPath(new URL('../../docs/operations.md', import.meta.url));
const page = readFileSync(pageFile, 'utf8');

const folder = mkdtempSync(join(tmpdir(), 'postern-operations-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (...parts: string[]) => join(folder, ...parts);
for (const name of ['bin', 'etc', 'lib', 'backups', 'run']) mkdirSync(at(name));

/** Places of the page, and of this test. */
const places: readonly (readonly [string, string])[] = [
  ['/etc/postern/', `${at('etc')}/`],
  ['/var/lib/postern/', `${at('lib')}/`],
  ['/var/backups/', `${at('backups')}/`],
];
const here = (text: string) => places.reduce((now, [theirs, ours]) => now.replaceAll(theirs, ours), text);
const there = (text: string) => places.reduce((now, [theirs, ours]) => now.replaceAll(ours, theirs), text);

const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];
const secrets = 'client-secret = "gateway-client-secret"\nserver-secret = "gateway-server-secret"\n';
const listed = (id: string) =>
  `# begin ${id}\n[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "secret of ${id}"\n# end\n`;

const script = (name: string, text: string) => {
  writeFileSync(at('bin', name), `#!/bin/bash\n${text}\n`);
  chmodSync(at('bin', name), 0o755);
};
script('postern', `exec ${process.execPath} ${main} "$@"`);
// Takes the place of systemd: it starts, stops and reloads the gateway as the unit does.
script(
  'systemctl',
  `PID=$(cat ${at('gateway.pid')} 2>/dev/null)
case "$1 $2" in
'reload postern') kill -HUP "$PID" ;;
'stop postern') kill "$PID"; tail --pid="$PID" -f /dev/null ;;
'start postern')
  : > ${at('gateway.log')}
  RUNTIME_DIRECTORY=${at('run')} ${process.execPath} ${main} gateway --config ${at('etc/gateway.toml')} > ${at('gateway.log')} 2>&1 < /dev/null &
  echo $! > ${at('gateway.pid')}
  timeout 60 grep -q -m1 '"mqtt.connected"' <(tail -n +1 -f ${at('gateway.log')}) ;;
*) exit 5 ;;
esac`,
);

/** The log of the gateway. */
const log = () => (existsSync(at('gateway.log')) ? readFileSync(at('gateway.log'), 'utf8') : '');

/** Runs commands in a shell. Returns what they print. */
async function shell(commands: string): Promise<string> {
  const env = {
    ...process.env,
    PATH: `${at('bin')}:${process.env.PATH}`,
    RUNTIME_DIRECTORY: at('run'),
    NO_PROXY: '*',
  };
  const child = spawn('bash', ['--norc', '-eu', '-c', commands], { cwd: folder, env });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => {
      said += text;
    });
  const [code] = await once(child, 'exit');
  assert.equal(code, 0, `${commands}\n${said}\n${log()}`);
  return said;
}

/** What differs from run to run, in one form. */
const settled = (text: string): string =>
  text
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '2026-11-28T12:00:00.000Z')
    .replaceAll(/"due": "[^"]+"/g, '"due": "2026-11-28T13:00:00.000Z"')
    .replaceAll(/"correlator": "[0-9a-f]{16}"/g, '"correlator": "0123456789abcdef"')
    .replaceAll(/Postern \d+\.\d+\.\d+|"software": "[^"]+"/g, (found) =>
      found.replace(/\d+\.\d+\.\d+/, '0.1.0'),
    )
    .replaceAll(/mqtt:\/\/127\.0\.0\.1:\d+/g, 'mqtt://broker.example')
    .replaceAll(/ +$/gm, '')
    .trim();

interface Step {
  readonly commands: string;
  readonly output: string;
  /** The output in the page, with its fence. */
  readonly block: string;
}

const steps: readonly Step[] = [
  ...page.matchAll(/^```sh\n(.*?)^```\n\n(```(?:text|json)\n(.*?)^```)/gms),
].map(([, commands = '', block = '', output = '']) => ({ commands, block, output }));

test('the commands of docs/operations.md print what the page shows', { timeout: 170_000 }, async (t) => {
  assert.equal(steps.length, page.match(/^```sh$/gm)?.length, 'each command is followed by its output');
  await using broker = await startAedes();
  writeFileSync(
    at('etc/gateway.toml'),
    `[gateway]\nid = "gw-1"\nstate = "${at('lib/state.db')}"\n[coap]\nport = 0\ninterfaces = ["lo"]\ninsecure-plain-coap = true\n[mqtt]\nurl = "${broker.url}"\n[dm-server]\nid = "dm.example"\n${secrets}${ids.map(listed).join('')}`,
  );
  const headendFile = at('headend.toml');
  writeFileSync(
    headendFile,
    `[headend]\nid = "dm.example"\nstate = "${at('headend.db')}"\n[api]\nport = 0\n[mqtt]\nurl = "${broker.url}"\n[[gateway]]\nid = "gw-1"\n${secrets}`,
  );
  await using headend = ServiceProcess.postern(['headend', '--config', headendFile]);
  const { url } = await headend.until('api.listening');
  await headend.until('mqtt.connected');
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => void (await shell('systemctl stop postern')));
  await shell('systemctl start postern');
  const [, port] = /"event":"gateway\.started".*?"port":(\d+)/.exec(log()) ?? [];
  for (const id of ids) {
    writeFileSync(at('secret'), `secret of ${id}\n`);
    const secret = ['--factory-secret-file', at('secret')];
    const args = ['--id', id, ...secret, '--gateway', `coap://127.0.0.1:${port}`];
    stack.use(ServiceProcess.postern(['device', ...args, '--interface', '127.0.0.1']));
    await headend.until('alert.device-attach', { device: id });
  }
  let written = page;
  for (const { commands, output, block } of steps) {
    if (/GET|\/fanouts\/gw-1\/firmware-1$/m.test(commands) && !commands.includes('DELETE'))
      await headend.until('alert.command-fanout', { name: 'firmware-1' });
    const said = settled(there(await shell(here(commands.replaceAll('http://127.0.0.1:8080', String(url))))));
    if (process.env.POSTERN_WRITE) {
      const fence = block.slice(0, block.indexOf('\n'));
      const from = written.indexOf(commands) + commands.length;
      written =
        written.slice(0, from) + written.slice(from).replace(block, () => `${fence}\n${said}\n\`\`\``);
    } else await t.test(commands.split('\n')[0], () => assert.equal(said, settled(output)));
  }
  if (process.env.POSTERN_WRITE) writeFileSync(pageFile, written);
});
