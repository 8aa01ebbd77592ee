import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { bootStateOf, programOf } from '../../../src/gateway/update/directory-slots.ts';
import { FumoState } from '../../../src/mo/fumo.ts';
import { fileServer } from '../../journeys/file-server.ts';
import { type Answer, lyingServer } from '../../journeys/lying-server.ts';
import { Site } from '../../journeys/site.ts';
import { startAedes } from '../../peers/brokers.ts';
import { crashing, deaf, device, Launched, versioned } from './launched.ts';
import { bundleBy, makeAuthority } from './signing.ts';

const limit = { timeout: 60_000 };

describe('a gateway that updates itself, with slots that are directories', { timeout: 300_000 }, () => {
  const ours = makeAuthority('ours');
  const theirs = makeAuthority('theirs');

  /** A test that times out never leaves its blocks, so `using` would not close the server. */
  async function serve(t: TestContext, ...file: Parameters<typeof fileServer>) {
    t.signal.throwIfAborted();
    const files = await fileServer(...file);
    t.after(() => files[Symbol.asyncDispose]());
    return files;
  }

  async function scene(t: TestContext, update: Record<string, unknown> = {}) {
    const stack = new AsyncDisposableStack();
    t.after(() => stack.disposeAsync());
    const broker = stack.use(await startAedes());
    const site = stack.use(new Site(broker.url));
    const launched = stack.use(new Launched(broker, ours.certificate, update));
    const headend = await site.headend([]);
    launched.start();
    await launched.says('mqtt.connected');
    const order = (url: string, correlator: string, operation = 'DownloadAndUpdate') =>
      headend.manage('gw-1', [
        ...(operation === 'Update'
          ? []
          : [{ name: 'Replace' as const, uri: `./FwUpdate/${operation}/PkgURL`, data: url }]),
        { name: 'Exec', uri: `./FwUpdate/${operation}`, correlator },
      ]);
    const told = async (correlator: string) => {
      const { fields } = await site.headendEvents.until('alert.firmware-update', { correlator });
      return fields.result;
    };
    const state = async () => {
      const [seen] = await headend.manage('gw-1', [{ name: 'Get', uri: './FwUpdate/State' }]);
      return Number(seen?.results[0]?.data);
    };
    return { site, launched, headend, order, told, state, broker };
  }

  // conforms: FUM-1, FUM-2, FUM-3
  test(
    'FUMO installs a new version after an interrupted download; the version proves healthy and is kept',
    limit,
    async (t) => {
      const bundle = ours.sign(versioned(), { version: '1.0.0', floor: '0.9.0' });
      const files = await serve(t, bundle, [400_000]);
      const { launched, order, told, state, headend } = await scene(t);
      assert.deepEqual(
        (await order(files.url, 'u1')).map(({ status }) => status),
        [200, 202],
      );
      assert.equal(await told('u1'), 200);
      assert.match(files.requests[1] ?? '', /^bytes=[1-9]\d+-$/, 'the rest, and not all of it again');
      assert.deepEqual(launched.boot, {
        good: 'B',
        trying: undefined,
        left: 0,
        floor: 0x000900,
        failed: undefined,
        starts: 0,
        spare: 'A',
        recovered: false,
      });
      assert.equal(await state(), FumoState.DoneWithoutData);
      const [seen] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevDetail/FwV' }]);
      assert.equal(seen?.results[0]?.data, '1.0.0');
      assert.ok(!existsSync(join(launched.slots, 'update.bundle')), 'what was installed is not kept twice');
    },
  );

  for (const [what, fault, starts] of [
    ['crashes at its start', crashing, 2],
    ['never gets healthy', deaf, 2],
  ] as const)
    test(
      `a version that ${what} is given up after its attempts, and the server gets result 410`,
      limit,
      async (t) => {
        const { site, launched, order, told, state, headend } = await scene(t);
        const { port } = await launched.says('gateway.started');
        const phone = site.device(device, { coapPort: Number(port) }, { factory: true });
        await phone.start();
        await phone.attached;
        await site.headendEvents.until('alert.device-attach', { device });
        const files = await serve(t, ours.sign(versioned(fault), { version: '1.0.0' }));
        await order(files.url, 'u2');
        assert.equal(await told('u2'), 410);
        const { good, trying, failed } = launched.boot;
        assert.deepEqual([good, trying, failed], ['A', undefined, 'B']);
        assert.equal(await state(), FumoState.FailedWithoutData);
        assert.equal(
          launched.lines.filter(({ event, slot }) => event === 'slot.starting' && slot === 'B').length,
          starts,
        );
        const [cause] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwDiagnostics/ResetCause' }]);
        assert.equal(cause?.results[0]?.data, fault === crashing ? 'slot B ended with 3' : 'ordered');
        const { code, said } = await launched.cli('devices');
        assert.equal(code, 0);
        assert.match(said, new RegExp(device), 'the device is attached as before');
      },
    );

  // conforms: FUM-4
  test(
    'a bundle that is not for this gateway is refused with its result, and the next update succeeds',
    limit,
    async (t) => {
      const good = ours.sign(versioned(), { version: '1.0.0' });
      const corrupt = Buffer.from(good);
      corrupt[corrupt.length - 10] = corrupt.at(-10)! ^ 1;
      const cases: readonly (readonly [string, Buffer, number])[] = [
        ['of another authority', theirs.sign(versioned(), { version: '1.0.0' }), 404],
        ['for another board', ours.sign(versioned(), { version: '1.0.0', compatible: 'postern-other' }), 403],
        ['older', ours.sign(versioned(), { version: '0.0.9' }), 405],
        ['of no version', ours.sign(versioned(), { version: 'new' }), 405],
        ['cut off', good.subarray(0, good.length - 1000), 402],
        ['corrupt in its program', corrupt, 402],
        ['no bundle at all', Buffer.from('hello'), 402],
      ];
      const { launched, order, told } = await scene(t);
      for (const [what, bytes, result] of cases) {
        const files = await serve(t, bytes);
        await order(files.url, what);
        assert.equal(await told(what), result, what);
        assert.equal(launched.boot.trying, undefined);
      }
      const files = await serve(t, good);
      await order(files.url, 'at last');
      assert.equal(await told('at last'), 200);
    },
  );

  test(
    'the DM server revokes a signer: its bundles get 404, and an older list 409; also after the restart of an update',
    limit,
    async (t) => {
      const [thief, good] = [ours.signer(), ours.signer()];
      const [old, list] = [ours.list(1, []), ours.list(2, [thief])];
      const { launched, headend, order, told } = await scene(t);
      const path = './FwUpdate/Ext/RevocationList';
      const put = async (data: string) =>
        (await headend.manage('gw-1', [{ name: 'Replace', uri: path, data }]))[0]?.status;
      const get = async () =>
        String((await headend.manage('gw-1', [{ name: 'Get', uri: path }]))[0]?.results[0]?.data).trim();
      assert.deepEqual(
        [await put(list), await put(list), await put(old), await put('x')],
        [200, 200, 409, 409],
      );
      await launched.says('update.revocation-list', { lists: 1 });
      const stolen = await serve(t, bundleBy([thief], versioned(), { version: '1.0.0' }));
      await order(stolen.url, 'stolen');
      assert.equal(await told('stolen'), 404);
      const { reason } = await launched.says('update.failed');
      assert.match(String(reason), /is revoked/);
      const files = await serve(t, bundleBy([good], versioned(), { version: '1.0.0' }));
      await order(files.url, 'good');
      assert.equal(await told('good'), 200);
      assert.equal(await get(), list.trim());
      await order(stolen.url, 'stolen again');
      assert.equal(await told('stolen again'), 404);
    },
  );

  test('Download and Update are two steps; Update without a package gets 400', limit, async (t) => {
    const files = await serve(t, ours.sign(versioned(), { version: '1.0.0' }));
    const { launched, order, told, state } = await scene(t);
    assert.deepEqual(
      (await order('', 'none', 'Update')).map(({ status }) => status),
      [400],
    );
    await order(files.url, 'd', 'Download');
    assert.equal(await told('d'), 200);
    assert.equal(await state(), FumoState.Downloaded);
    assert.equal(launched.boot.good, 'A');
    await order('', 'u', 'Update');
    assert.equal(await told('u'), 200);
    assert.equal(launched.boot.good, 'B');
  });

  test('a bundle of the Image Inventory installs like one from the network', limit, async (t) => {
    const files = await serve(t, ours.sign(versioned(), { version: '1.0.0' }));
    const { site, headend, order, told, launched } = await scene(t);
    const staged = await headend.stageImage('gw-1', { name: 'own', version: '1.0.0', url: files.url });
    await site.headendEvents.until('alert.image-operation', { correlator: staged.correlator });
    await order('gw-image:none', 'none');
    assert.equal(await told('none'), 411);
    await order('gw-image:own', 'own');
    assert.equal(await told('own'), 200);
    assert.equal(launched.boot.good, 'B');
  });

  test(
    'the command line installs a file; status shows the running version and the reason of a refusal',
    limit,
    async (t) => {
      const { launched } = await scene(t);
      const file = join(launched.folder, 'one.bundle');
      writeFileSync(file, theirs.sign(versioned(), { version: '1.0.0' }));
      const refused = await launched.cli('update', 'install', file);
      assert.equal(refused.code, 1);
      assert.match(refused.said, /refused with 404: no authority that is trusted has certified a signer/);
      const status = await launched.cli('update', 'status');
      assert.match(status.said, /A runs, version 0\.1\.0; A is good/);
      assert.match(status.said, /reason {3}no authority/);
      writeFileSync(file, ours.sign(versioned(), { version: '1.0.0' }));
      const from = launched.lines.length;
      const taken = await launched.cli('update', 'install', file);
      assert.equal(taken.code, 0, taken.said);
      await launched.says('update.healthy', { slot: 'B' }, from);
      assert.match((await launched.cli('update')).said, /B runs, version 1\.0\.0; B is good/);
    },
  );

  test('an update fails if it loses the broker, but not if the broker was away before', limit, async (t) => {
    const { launched, broker } = await scene(t, { attempts: 1, 'health-deadline': 10 });
    const install = async (version: string) => {
      const file = join(launched.folder, 'one.bundle');
      writeFileSync(file, ours.sign(versioned(), { version }));
      const from = launched.lines.length;
      const { code, said } = await launched.cli('update', 'install', file);
      assert.equal(code, 0, said);
      return from;
    };
    await broker.stop();
    await launched.says('mqtt.disconnected');
    let from = await install('1.0.0');
    await launched.says('update.healthy', { slot: 'B' }, from);
    await broker.restart();
    await launched.says('mqtt.connected', {}, from);
    from = launched.lines.length;
    const isWritten = launched.says('update.restarting', { slot: 'A' }, from).then(() => broker.stop());
    await install('1.1.0');
    await isWritten;
    const gaveUp = await launched.says('update.not-healthy', { slot: 'A' }, from);
    assert.equal(gaveUp.reason, 'the broker is not reached');
    await launched.says('update.failed', { result: 410 }, from);
    assert.equal(launched.boot.good, 'B');
  });

  test('an update is cancelled by the DM server, and by the command line', limit, async (t) => {
    const bundle = ours.sign(versioned(), { version: '1.0.0' });
    const stalls: Answer = (_, response) => {
      response.writeHead(200, { etag: '"v1"', 'content-length': bundle.length });
      response.write(bundle.subarray(0, 300_000));
    };
    const files = await lyingServer(stalls);
    t.after(() => files[Symbol.asyncDispose]());
    const { launched, order, told, headend } = await scene(t);
    const cancel = { name: 'Exec', uri: './FwUpdate/Ext/Cancel' } as const;
    assert.deepEqual(
      (await headend.manage('gw-1', [cancel])).map(({ status }) => status),
      [409],
    );
    await order(files.url, 'c');
    await launched.says('update.download-progress');
    const [cancelled, slots] = await headend.manage('gw-1', [
      cancel,
      { name: 'Get', uri: './GwDiagnostics/Slots' },
    ]);
    assert.equal(cancelled?.status, 200);
    assert.equal(JSON.parse(String(slots?.results[0]?.data)).slot, 'A');
    assert.equal(await told('c'), 401);
    const from = launched.lines.length;
    const install = launched.cli('update', 'install', files.url);
    await launched.says('update.download-progress', {}, from);
    assert.deepEqual(await launched.cli('update', 'cancel'), { code: 0, said: 'cancelled\n' });
    assert.match((await install).said, /refused with 401: the update was cancelled/);
    const again = await launched.cli('update', 'cancel');
    assert.equal(again.code, 1);
    const status = await launched.cli('status', '--json');
    assert.deepEqual(JSON.parse(status.said).diagnosis.ResetCause, '');
  });

  test('a gateway that is killed during a download continues it after its restart', limit, async (t) => {
    const bundle = ours.sign(versioned(), { version: '1.0.0' });
    const files = await serve(t, bundle, [300_000]);
    const { launched, order, told } = await scene(t);
    await order(files.url, 'u');
    await launched.says('update.download-broken');
    await launched.kill();
    launched.start();
    assert.equal(await told('u'), 200);
    assert.match(files.requests.at(-1) ?? '', /^bytes=[1-9]\d+-$/);
  });

  test(
    'a slot that was damaged is not started; the slot before runs, the server is told, and an update repairs it',
    limit,
    async (t) => {
      const { launched, site, order, told } = await scene(t);
      const first = await serve(t, ours.sign(versioned(), { version: '1.0.0' }));
      await order(first.url, 'first');
      assert.equal(await told('first'), 200);
      await launched.kill();
      writeFileSync(programOf(launched.slots, 'B'), 'damaged');
      const from = launched.lines.length;
      launched.start();
      const { reason } = await launched.says('slot.unusable', { slot: 'B' }, from);
      assert.equal(reason, 'its program was changed');
      await launched.says('slot.lost', { slot: 'B', version: '0.1.0' }, from);
      const { fields } = await site.headendEvents.until('alert.gateway-fault', { kind: 'slot' });
      assert.equal(fields.reason, 'slot B is not healthy any more; 0.1.0 runs');
      const second = await serve(t, ours.sign(versioned(), { version: '1.1.0' }));
      await order(second.url, 'second');
      assert.equal(await told('second'), 200);
      assert.equal(launched.boot.good, 'B');
    },
  );

  test('if the good slot has no program, the other slot is started', limit, async (t) => {
    const { launched } = await scene(t);
    await launched.kill();
    bootStateOf(launched.slots).change({ good: 'B' });
    const from = launched.lines.length;
    launched.start();
    await launched.says('slot.starting', { slot: 'A' }, from);
    await launched.says('gateway.started', {}, from);
    assert.ok(existsSync(programOf(launched.slots, 'A')));
  });
});
