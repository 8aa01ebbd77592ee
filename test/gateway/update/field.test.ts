import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { type Answer, breaksAt, endless, lyingServer, says, serves } from '../../journeys/lying-server.ts';
import { Site, secrets } from '../../journeys/site.ts';
import { ownInterface } from '../../own-interface.ts';
import { startAedes } from '../../peers/brokers.ts';
import { smallDisk } from '../../small-disk.ts';
import { deaf, device, Launched, versioned } from './launched.ts';
import { makeAuthority } from './signing.ts';

const limit = { timeout: 60_000 };
const mebibyte = 1024 * 1024;
const newcomer = 'urn:dev:ops:2';
const ours = makeAuthority('ours');
const bundleOf = (version: string, program = versioned()) => ours.sign(program, { version });

async function scene(
  t: TestContext,
  update: Record<string, unknown> = {},
  tables: Readonly<Record<string, object>> = {},
) {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const broker = stack.use(await startAedes());
  const site = stack.use(new Site(broker.url));
  const launched = stack.use(new Launched(broker, ours.certificate, update, tables));
  launched.start();
  await launched.says('mqtt.connected');
  /** Serves a bundle, and has the gateway install it. Resolves when the order is taken. */
  const install = async (...answers: readonly Answer[]) => {
    const server = stack.use(await lyingServer(...answers));
    return { server, order: launched.cli('update', 'install', server.url) };
  };
  return { broker, site, launched, install };
}

describe('updates as they happen in the field', { timeout: 300_000 }, () => {
  test('a new device attaches while the new version is on trial', limit, async (t) => {
    const bootstrap = [device, newcomer].map((id) => ({ id, 'factory-secret': secrets.factory(id) }));
    const { broker, site, launched, install } = await scene(
      t,
      { 'health-deadline': 50 },
      { bootstrap: { device: bootstrap } },
    );
    const { port } = await launched.says('gateway.started');
    const first = site.device(device, { coapPort: Number(port) }, { factory: true });
    await first.start();
    await first.attached;
    // Without the broker the trial lasts.
    const isWritten = launched.says('update.restarting').then(() => broker.stop());
    const from = launched.lines.length;
    await install(serves(bundleOf('1.0.0'), '"v1"'));
    await isWritten;
    await launched.says('update.not-healthy-yet', { reason: 'the broker is not reached' }, from);
    const [, started] = launched.lines.filter(({ event }) => event === 'gateway.started');
    const second = site.device(newcomer, { coapPort: Number(started?.port) }, { factory: true });
    await second.start();
    await launched.says('device.attached', { device: newcomer }, from);
    await broker.restart();
    await launched.says('update.healthy', { slot: 'B' }, from);
    assert.equal(launched.boot.good, 'B');
  });

  for (const [what, addresses] of [
    ['at one interface, and not at loopback', ['198.51.100.202/32', 'fd00:7057:1::1/64']],
    ['with IPv6 only', ['fd00:7057:2::1/64']],
  ] as const)
    test(
      `a gateway that serves devices ${what} keeps a good version, and feeds its watchdog`,
      limit,
      async (t) => {
        const name = ownInterface(t, ...addresses);
        if (!name) return;
        const folder = mkdtempSync(join(tmpdir(), 'postern-dog-'));
        t.after(() => rmSync(folder, { recursive: true }));
        const watchdog = join(folder, 'watchdog');
        writeFileSync(watchdog, '');
        const { launched, install } = await scene(t, { watchdog }, { coap: { interfaces: [name] } });
        const from = launched.lines.length;
        await install(serves(bundleOf('1.0.0'), '"v1"'));
        await launched.says('update.healthy', { slot: 'B' }, from);
        assert.equal(launched.lines.filter(({ event }) => event === 'watchdog.hungry').length, 0);
        await launched.kill();
        assert.match(readFileSync(watchdog, 'latin1'), /^\0+$/);
      },
    );

  test(
    'a bundle that changes at the server while it is downloaded comes whole, and not in halves',
    limit,
    async (t) => {
      const [old, next] = [bundleOf('1.0.0'), bundleOf('1.0.1')];
      const { launched, install } = await scene(t);
      const half = 300_000;
      let stored = () => false;
      const { server } = await install(
        breaksAt(old, half, { etag: '"v1"' }, 'reset', () => stored()),
        says(
          206,
          { etag: '"v2"', 'content-range': `bytes ${half}-${next.length - 1}/${next.length}` },
          next.subarray(half),
        ),
        serves(next, '"v2"'),
      );
      stored = () => launched.lines.some(({ event }) => event === 'update.download-progress');
      await launched.says('update.healthy', { version: '1.0.1' });
      const reason = 'the download server has another version';
      assert.equal((await launched.says('update.downloading', { reason })).from, 0);
      assert.match(server.requests[1] ?? '', /^bytes=[1-9]\d+-$/);
    },
  );
});

describe('updates on a small disk', { timeout: 300_000 }, () => {
  const free = (folder: string) => {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  };

  test('a version without room is refused, and installed when there is room', limit, async (t) => {
    const disk = smallDisk(t, 8);
    if (!disk) return;
    const { launched, install } = await scene(
      t,
      { directory: join(disk, 'slots') },
      { limits: { 'keep-free': 1 } },
    );
    const others = join(disk, 'others');
    const bundle = bundleOf('1.0.0');
    // Room for the bundle, and then none for the slot.
    writeFileSync(others, Buffer.alloc(free(disk) - mebibyte - bundle.length - 100_000));
    const refused = await (await install(serves(bundle, '"v1"'))).order;
    assert.match(refused.said, /refused with 501: slot B cannot be written: no room on the disk/);
    assert.ok(free(disk) >= mebibyte, 'nothing of it is left, except the package');
    // No room for the package.
    rmSync(join(launched.slots, 'update.bundle'));
    writeFileSync(others, Buffer.alloc(free(disk) - mebibyte - 1000), { flag: 'a' });
    const again = await (await install(serves(bundle, '"v1"'))).order;
    assert.match(again.said, /refused with 501: no room on the disk/);
    const rest = await (await install(endless(200, {}))).order;
    assert.match(rest.said, /refused with 501: no room on the disk/);
    assert.ok(free(disk) >= mebibyte);
    rmSync(others);
    const done = await (await install(serves(bundle, '"v1"'))).order;
    assert.equal(done.code, 0, done.said);
    await launched.says('update.healthy', { slot: 'B' });
  });
});

test('a version that was given up is installed again when it is ordered again', limit, async (t) => {
  const { launched, install } = await scene(t, { attempts: 1 });
  const bundle = bundleOf('1.0.0', versioned(deaf));
  for (const time of [1, 2]) {
    const from = launched.lines.length;
    await install(serves(bundle, '"v1"'));
    await launched.says('update.installing', { slot: 'B', version: '1.0.0' }, from);
    await launched.says('slot.starting', { slot: 'B', tried: true }, from);
    const { reason } = await launched.says('update.failed', { result: 410 }, from);
    assert.match(String(reason), /did not prove healthy/, `time ${time}`);
    await launched.says('mqtt.connected', {}, from);
  }
  const from = launched.lines.length;
  await install(serves(bundleOf('1.0.0'), '"v1"'));
  await launched.says('update.healthy', { slot: 'B', version: '1.0.0' }, from);
});
