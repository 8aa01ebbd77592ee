import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { untilOpen, windowForm } from '../../../src/gateway/update/maintenance.ts';
import { FumoState } from '../../../src/mo/fumo.ts';
import { hastyDownload } from './bundle-rig.ts';
import { BundleServer } from './bundle-server.ts';
import { gateway, machine, type Settings, until } from './trial-rig.ts';

const limit = { timeout: 30_000 };
const file = randomBytes(200_000);
const hour = 3_600_000;

/** A gateway that is ordered to update itself from a server. */
async function scene(t: TestContext, settings: Settings = {}, retryFor = 6 * hour, failed = () => {}) {
  const server = await new BundleServer(file).start();
  t.after(() => server[Symbol.asyncDispose]());
  const board = machine(t);
  const start = (more: Settings = {}) => {
    const made = gateway(board, {
      download: (clock) => ({ retryFor, download: hastyDownload(t, clock, failed) }),
      ...settings,
      ...more,
    });
    t.after(() => made.updater[Symbol.asyncDispose]());
    made.updater.start();
    return made;
  };
  const made = start();
  const order = () =>
    made.updater.begin({ operation: 'DownloadAndUpdate', url: server.url, correlator: 'c', server: 'dm' });
  const parts = () => readdirSync(board.folder).filter((name) => name.endsWith('.part'));
  return { server, board, made, start, order, parts };
}

/** Breaks off the first answer when a part of it is stored. */
const breaksFirst =
  (server: BundleServer, made: ReturnType<typeof gateway>): BundleServer['fault'] =>
  (_, response, part) => {
    if (server.requests.length !== 1) return false;
    response.writeHead(200, { etag: '"v1"', 'content-length': part.length });
    response.write(part.subarray(0, 120_000));
    const stored = async () => {
      while ((made.updater.status().received ?? 0) < 120_000) await turn();
      response.destroy();
    };
    void stored();
    return true;
  };

/** Waits for the end of an update. */
async function failed(made: ReturnType<typeof gateway>, result: number): Promise<void> {
  await made.events.until('update.failed', { result });
  // The next order may come in the next turn.
  await turn();
}

/** Sends the first bytes of what is wanted, and then nothing. */
const drips =
  (bytes: number): BundleServer['fault'] =>
  ({ url, headers }, response, part) => {
    if (url?.includes('.blocks')) return false;
    const from = file.length - part.length;
    response.writeHead(headers.range ? 206 : 200, {
      etag: '"v1"',
      'content-length': part.length,
      ...(headers.range && { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` }),
    });
    response.write(part.subarray(0, bytes));
    return true;
  };

describe('a download server that is gone', { timeout: 120_000 }, () => {
  test('for hours is asked again and again, and the download goes on where it was', limit, async (t) => {
    let failures = 0;
    const { server, made, order } = await scene(t, {}, 6 * hour, () => {
      failures++;
      if (failures === 1) void server.stop();
      if (failures === 150) void server.start();
    });
    server.fault = breaksFirst(server, made);
    order();
    await made.events.until('update.restarting');
    assert.ok(failures >= 150);
    assert.match(server.requests.at(-1) ?? '', /^bytes=[1-9]\d+-$/);
    const told = made.events.all.filter(({ name }) => name === 'update.download-broken');
    assert.ok(told.length <= 4, `told ${told.length} times`);
  });

  test(
    'for longer than the window ends the update; what came is kept for the next order',
    limit,
    async (t) => {
      const { server, made, order, parts } = await scene(t, {}, 2 * hour, () => void server.stop());
      server.fault = breaksFirst(server, made);
      order();
      await failed(made, 503);
      const waited = made.clock.now() - 1000;
      assert.ok(waited >= 2 * hour && waited < 3 * hour, `${waited} ms`);
      assert.equal(made.branch.state, FumoState.DownloadFailed);
      assert.equal(parts().length, 1);
      await server.start();
      order();
      await made.events.until('update.restarting');
      assert.match(server.requests.at(-1) ?? '', /^bytes=[1-9]\d+-$/, 'it goes on where it was');
      assert.deepEqual(parts(), []);
    },
  );

  test('and has another version when it comes back sends that as a whole', limit, async (t) => {
    const { server, made, order } = await scene(t, {}, 2 * hour, () => void server.stop());
    server.fault = breaksFirst(server, made);
    order();
    await failed(made, 503);
    [server.etag, server.bundle] = ['"v2"', randomBytes(150_000)];
    await server.start();
    order();
    await made.events.until('update.restarting');
    assert.equal(server.requests.at(-1), undefined);
  });

  test('and an answer that does not pass end the update at once, and nothing is kept', limit, async (t) => {
    const { server, made, order, parts } = await scene(t);
    const breaks = breaksFirst(server, made);
    server.fault = (request, response, part) => {
      if (server.requests.length < 2) return breaks(request, response, part);
      response.writeHead(404).end();
      return true;
    };
    order();
    await failed(made, 500);
    assert.deepEqual(parts(), []);
  });

  test('that takes requests and says nothing is given up with 412', limit, async (t) => {
    const { server, made, order } = await scene(t, { download: () => ({ retryFor: hour }) });
    server.fault = ({ url }) => !url?.includes('.blocks');
    order();
    await until(made, () => made.ended.length > 0);
    assert.equal(made.ended[0]?.result, 412);
    assert.ok(made.clock.now() < 2 * hour);
  });

  test('that drips is given up, although each attempt comes further', limit, async (t) => {
    const { server, made, order } = await scene(t, { download: () => ({ retryFor: hour / 4 }) });
    server.fault = drips(50);
    order();
    await until(made, () => made.ended.length > 0);
    assert.equal(made.ended[0]?.result, 412);
    assert.ok(server.requests.length > 5);
    assert.ok(made.clock.now() < hour, `${made.clock.now()} ms`);
  });
});

describe('an update that is cancelled', { timeout: 60_000 }, () => {
  test('during its download ends with 401, and leaves nothing', limit, async (t) => {
    const { server, made, order, parts } = await scene(t, { download: () => ({ retryFor: hour }) });
    server.fault = drips(100_000);
    order();
    await made.events.until('update.download-progress');
    made.updater.cancel()();
    await failed(made, 401);
    assert.equal(made.ended[0]?.result, 401);
    assert.equal(made.branch.state, FumoState.DownloadFailed);
    assert.deepEqual(parts(), []);
    assert.throws(() => made.updater.cancel(), { code: 'conflict' });
    server.fault = () => false;
    order();
    await made.events.until('update.restarting');
  });

  test('between two attempts ends at once', limit, async (t) => {
    const { server, made, order } = await scene(t, { download: () => ({ retryFor: hour }) });
    await server.stop();
    order();
    await made.events.until('update.download-broken');
    assert.match(String(made.updater.status().reason), /ECONNREFUSED/);
    made.updater.cancel()();
    await failed(made, 401);
  });

  test('while it is installed goes on', limit, async (t) => {
    const begun = Promise.withResolvers<void>();
    const { promise, resolve } = Promise.withResolvers<void>();
    const install = async () => {
      begun.resolve();
      await promise;
    };
    const { made, order } = await scene(t, { install });
    order();
    await begun.promise;
    assert.throws(() => made.updater.cancel(), { code: 'conflict' });
    resolve();
    await made.events.until('update.restarting');
  });

  test('by a DM server: at the end of its package, and not by a package that fails', limit, async (t) => {
    const { server, made, order } = await scene(t, { download: () => ({ retryFor: hour }) });
    const { branch } = made;
    const cancel = () => branch.exec(['Ext', 'Cancel'], { format: 'null' }, undefined, 'dm');
    assert.throws(cancel, { code: 'conflict' });
    server.fault = drips(100_000);
    order();
    await made.events.until('update.download-progress');
    branch.begin();
    assert.equal(cancel(), 200);
    branch.rollback();
    branch.begin();
    branch.begin();
    assert.equal(cancel(), 200);
    branch.commit();
    assert.equal(made.ended.length, 0);
    branch.commit();
    branch.committed();
    await failed(made, 401);
    assert.deepEqual(branch.view(['Ext', 'Cancel'])?.access, ['Exec']);
  });
});

// The clock of the tests begins at 22:13 UTC.
describe('a maintenance window', { timeout: 60_000 }, () => {
  const window = '02:00-04:00';
  const hourOf = (made: ReturnType<typeof gateway>) => new Date(made.clock.wall()).getUTCHours();

  test('is waited for before the installation, also over a restart', limit, async (t) => {
    const { server, made, start, order } = await scene(t, { more: { window } });
    order();
    await made.events.until('update.waiting', { window });
    assert.equal(made.branch.state, FumoState.Ready);
    assert.equal(made.updater.status().window, window);
    assert.deepEqual(made.calls, []);
    await made.updater[Symbol.asyncDispose]();
    const again = start();
    await again.events.until('update.waiting');
    await until(again, () => again.calls.length > 0);
    assert.equal(hourOf(again), 2);
    await again.events.until('update.restarting');
    assert.equal(server.requests.length, 1, 'the bundle came once');
    assert.equal(again.events.count('update.waiting'), 1);
  });

  test('that opens because the clock is set is noticed within a minute', limit, async (t) => {
    const { made, order } = await scene(t, { more: { window } });
    order();
    await made.events.until('update.waiting');
    const wall = made.clock.wall.bind(made.clock);
    made.clock.wall = () => (wall() + 4 * hour) as ReturnType<typeof wall>;
    made.clock.advance(60_000);
    await made.events.until('update.restarting');
  });

  test('is not waited for by an order at the gateway itself, or when it is open', limit, async (t) => {
    const { made, server } = await scene(t, { more: { window } });
    made.updater.begin({ operation: 'DownloadAndUpdate', url: server.url, correlator: undefined });
    await made.events.until('update.restarting');
    const open = await scene(t, { more: { window: '22:00-01:00' } });
    open.order();
    await open.made.events.until('update.restarting');
  });

  test('can be left by a cancellation; the package stays, and can be installed', limit, async (t) => {
    const { made, order } = await scene(t, { more: { window } });
    order();
    await made.events.until('update.waiting');
    made.updater.cancel()();
    await failed(made, 401);
    assert.equal(made.branch.state, FumoState.FailedWithData);
    assert.ok(existsSync(made.bundleFile));
    made.updater.begin({ operation: 'Update', url: '', correlator: 'd', server: 'dm' });
    await until(made, () => made.calls.length > 0);
    assert.equal(hourOf(made), 2);
  });

  test('is open from its first minute to the one before its last, each day', (t) => {
    const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 1e6);
    t.diagnostic(`seed ${seed}`);
    const entropy = seededEntropy(seed);
    const any = (count: number) => Math.floor(entropy.uniform() * count);
    const text = (minute: number) =>
      `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
    for (let round = 0; round < 1000; round++) {
      const [opens, now] = [any(1440), any(1440)];
      const closes = (opens + 1 + any(1439)) % 1440;
      const period = `${text(opens)}-${text(closes)}`;
      assert.match(period, windowForm);
      let wait = 0;
      const isOpen = (minute: number) =>
        opens < closes ? minute >= opens && minute < closes : minute >= opens || minute < closes;
      while (!isOpen((now + wait) % 1440)) wait++;
      const wall = (any(20_000) * 86_400_000 + now * 60_000) as Parameters<typeof untilOpen>[1];
      assert.equal(untilOpen(period, wall), wait * 60_000, `${period} at ${text(now)}`);
    }
    for (const wrong of ['2:00-04:00', '02:00-02:00', '24:00-01:00', '02:60-03:00', '02:00', '02:00-04:00 '])
      assert.doesNotMatch(wrong, windowForm);
  });
});
