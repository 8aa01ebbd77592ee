// What systemd hears of a gateway: a datagram socket of its own stands in systemd's place, and systemd's program sends to it.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { root, ServiceProcess } from './service-process.ts';

const has = (program: string) => spawnSync('which', [program]).status === 0;
const limit = { timeout: 60_000, skip: !has('systemd-notify') || !has('python3') };

/** Node has no datagrams of Unix sockets. */
const receiver = `import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True:
    data, ancillary, _, _ = s.recvmsg(4096, 1024)
    # The sender waits until what came with its message is closed.
    for _, _, fds in ancillary:
        for fd in array.array("i", fds[: len(fds) - len(fds) % 4]):
            os.close(fd)
    if data == b"BARRIER=1":
        continue
    print(data.decode().strip().replace("\\n", " "), flush=True)
`;

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-systemd-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(
    join(folder, 'gateway.toml'),
    `[gateway]
id = "gw-1"
state = "${folder}/state.db"
admin-socket = "${folder}/admin.sock"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "mqtt://127.0.0.1:1"
[dm-server]
id = "dm.example"
client-secret = "gateway-client-secret"
server-secret = "gateway-server-secret"
`,
  );
  return folder;
}

/** The socket in systemd's place. */
async function listener(t: TestContext, folder: string) {
  const path = join(folder, 'notify');
  const child = spawn('python3', ['-c', receiver, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => String((await lines.next()).value);
  assert.equal(await next(), 'bound');
  return { path, next };
}

test('a gateway that serves says that it is ready, and again that it works', limit, async (t) => {
  const folder = folderOf(t);
  const { path, next } = await listener(t, folder);
  const args = ['gateway', '--config', join(folder, 'gateway.toml')];
  await using gateway = ServiceProcess.postern(args, { NOTIFY_SOCKET: path });
  const first = await next();
  assert.match(first, /READY=1 WATCHDOG=1/);
  assert.ok(gateway.lines.some(({ event }) => event === 'gateway.started'));
  // The second message comes 15 seconds later.
  assert.match(await next(), /WATCHDOG=1/);
});

test('without the program of systemd it serves, and says why systemd hears nothing', limit, async (t) => {
  const folder = folderOf(t);
  const { path } = await listener(t, folder);
  const args = ['gateway', '--config', join(folder, 'gateway.toml')];
  await using gateway = ServiceProcess.postern(args, { NOTIFY_SOCKET: path, PATH: folder });
  const failed = await gateway.until('background.failed', { work: 'watchdog' });
  assert.match(JSON.stringify(failed), /systemd-notify/);
  assert.equal(gateway.child.exitCode, null);
});

test('the unit, alone and with the file for `postern launch`, is one that systemd takes', {
  skip: !has('systemd-analyze'),
}, async (t) => {
  const folder = folderOf(t);
  const unit = join(folder, 'postern.service');
  cpSync(join(root, 'firmware-image/postern.service'), unit);
  const verify = async () => {
    const child = spawn('systemd-analyze', ['verify', unit], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (said += text));
    const [code] = await once(child, 'close');
    // The program of this machine may be elsewhere.
    return [
      code,
      said.split('\n').filter((line) => line !== '' && !/\/usr\/bin\/node is not executable/.test(line)),
    ] as const;
  };
  const [, complaints] = await verify();
  assert.deepEqual(complaints, []);
  mkdirSync(`${unit}.d`);
  cpSync(join(root, 'firmware-image/postern-launch.conf'), join(`${unit}.d`, 'launch.conf'));
  assert.deepEqual((await verify())[1], []);
  writeFileSync(join(`${unit}.d`, 'wrong.conf'), '[Service]\nWatchdogSeconds=1\n');
  assert.match((await verify())[1].join(), /WatchdogSeconds/);
});
