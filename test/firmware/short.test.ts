import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { BuiltImage } from '../../firmware-image/recipe/image.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Site } from '../journeys/site.ts';
import { type Broker, startAedes } from '../peers/brokers.ts';
import { Board, bundleServer, patience } from './board.ts';
import { buildFor, versions } from './images.ts';

const ids = ['urn:dev:ops:1', 'urn:dev:ops:2'];

describe('the firmware image on an emulated board', { timeout: 600_000 }, () => {
  let broker: Broker;
  let site: Site;
  let headend: Headend;
  let board: Board;
  let images: Record<'first' | 'next' | 'crashing', BuiltImage>;
  let files: Awaited<ReturnType<typeof bundleServer>>;

  before(async () => {
    images = {
      first: await buildFor('test-first', versions.first, { withDisk: true }),
      next: await buildFor('test-next', versions.next),
      crashing: await buildFor('test-crashing', versions.bad, { fault: 'crashes' }),
    };
    files = await bundleServer({ next: images.next.bundle, crashing: images.crashing.bundle });
    broker = await startAedes();
    site = new Site(broker.url);
    headend = await site.headend([]);
    board = await Board.flash({
      disk: images.first.disk!,
      trust: images.first.trust,
      brokerUrl: broker.url,
      devices: ids,
    });
  });

  after(async () => {
    await board?.[Symbol.asyncDispose]();
    await site?.[Symbol.asyncDispose]();
    await broker?.[Symbol.asyncDispose]();
    await files?.[Symbol.asyncDispose]();
  });

  const order = (url: string, correlator: string) =>
    headend.manage('gw-1', [
      { name: 'Replace', uri: './FwUpdate/DownloadAndUpdate/PkgURL', data: url },
      { name: 'Exec', uri: './FwUpdate/DownloadAndUpdate', correlator },
    ]);

  const limit = { timeout: patience.update };

  test('it boots, and a device is bootstrapped and attached through its forwarded port', limit, async (t) => {
    const ready = await board.start();
    t.diagnostic(`first boot, from power-on to ready: ${(ready / 1000).toFixed(1)} s`);
    const device = site.device(ids[0]!, board as never, { factory: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: ids[0] });
  });

  test('the DM server updates it by FUMO; it keeps its devices, and says 200', limit, async () => {
    const outcomes = await order(files.url('next'), 'update-1');
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 202],
    );
    const told = await site.headendEvents.until('alert.firmware-update', { correlator: 'update-1' });
    assert.equal(told.fields.result, 200);
    assert.deepEqual(board.bootState().good, 'B');
  });

  test(
    'a version that crashes at its start is given up after its attempts; the old one comes back and says so',
    limit,
    async () => {
      const outcomes = await order(files.url('crashing'), 'update-2');
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        [200, 202],
      );
      const told = await site.headendEvents.until('alert.firmware-update', { correlator: 'update-2' });
      assert.equal(told.fields.result, 410);
      const state = board.bootState();
      assert.deepEqual([state.good, state.failed, state.trying], ['B', 'A', undefined]);
      const [seen] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevDetail/FwV' }]);
      assert.equal(seen?.results[0]?.data, versions.next);
    },
  );
});
