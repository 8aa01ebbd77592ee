import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { writeIndex } from '../../src/gateway/store/block-index.ts';
import { programOf, slotVariable } from '../../src/gateway/update/directory-slots.ts';
import type { FanoutRequest } from '../../src/headend/orders.ts';
import { makeAuthority } from '../gateway/update/signing.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { Nat } from '../peers/nat.ts';
import { smallDisk } from '../small-disk.ts';
import { lyingServer, serves } from './lying-server.ts';
import { start, stepsUntil } from './parent-and-child.ts';
import { Site, secrets, type Toml } from './site.ts';

// The child gateways of these tests run from slot A.
process.env[slotVariable] = 'A';

const limit = { timeout: 60_000 };
const block = 4096;
const ours = makeAuthority('ours');
const old = randomBytes(250 * block);
/** The old program with other bytes in some of its blocks. */
const changed = (...numbers: readonly number[]) => {
  const next = Buffer.from(old);
  for (const number of numbers) randomBytes(100).copy(next, number * block + 7);
  return next;
};
const bundleOf = (version: string, program: Buffer) => ours.sign(program, { version });

const item = (uri: string, data?: string) =>
  `<Item><Target><LocURI>${uri}</LocURI></Target>${data === undefined ? '' : `<Data>${data}</Data>`}</Item>`;
/** Orders a child to download an image of its parent. */
const order = (name: string, url = 'gw-image:fw'): FanoutRequest => ({
  name,
  command:
    `<Replace><CmdID>1</CmdID>${item('./FwUpdate/Download/PkgURL', url)}</Replace>` +
    `<Exec><CmdID>2</CmdID>${item('./FwUpdate/Download')}</Exec>`,
  targets: { devices: ['gw-2'] },
  returnFormat: 0,
});

/** A DM server, a parent with an Image Inventory, and a child whose updates come from it. Between the two gateways is a NAT, which counts. */
async function family(t: TestContext, changes: { readonly child?: string; readonly parent?: Toml } = {}) {
  const stack = new AsyncDisposableStack();
  t.after(() => stack.disposeAsync());
  const broker = stack.use(await startAedes());
  const site = stack.use(new Site(broker.url));
  const nat = stack.use(await Nat.open());
  const folder = mkdtempSync(join(tmpdir(), 'postern-child-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const headend = await site.headend([]);
  const directory = join(folder, 'images');
  const clocks = { parent: new LeapClock(), child: new LeapClock(4) };
  const startParent = async () => {
    const made = await start(
      t,
      ['gw-2'],
      {
        gateway: { id: 'gw-1', state: join(folder, 'gw-1.db') },
        coap: { port: 0, leisure: 50 },
        images: { directory },
        ...changes.parent,
      },
      clocks.parent,
      broker.url,
    );
    nat.leadTo({ coapPort: made.gateway.coapsPort! });
    await made.events.until('mqtt.connected');
    return made;
  };
  const slots = changes.child ?? join(folder, 'slots');
  mkdirSync(dirname(programOf(slots, 'A')), { recursive: true });
  writeFileSync(programOf(slots, 'A'), old);
  writeFileSync(join(folder, 'ca.pem'), ours.certificate);
  const parent = await startParent();
  const child = await start(
    t,
    [],
    {
      gateway: { id: 'gw-2', state: join(folder, 'gw-2.db') },
      coap: { port: 0, leisure: 50 },
      mqtt: undefined,
      parent: {
        id: 'gw-1',
        uri: `coaps://127.0.0.1:${nat.coapPort}`,
        'factory-secret': secrets.factory('gw-2'),
      },
      update: { slots: 'directory', directory: slots, authority: join(folder, 'ca.pem') },
      limits: { 'keep-free': 1 },
    },
    clocks.child,
  );
  await parent.events.until('device.attached', { device: 'gw-2' });
  /** Puts a version into the inventory of the parent, in place of the one before. */
  const stage = async (bundle: Buffer, name = 'fw') => {
    const server = stack.use(await lyingServer(serves(bundle, '"v1"')));
    const { correlator } = await headend.stageImage('gw-1', { name, url: server.url });
    await site.headendEvents.until('alert.image-operation', { correlator });
  };
  /** Orders the download. Resolves with what it came to when the DM server is told. */
  let orders = 0;
  const update = async (url?: string) => {
    const { correlator } = await headend.fanOut('gw-1', order(`order-${orders++}`, url));
    const told = async () => {
      await site.headendEvents.until('alert.command-fanout', { correlator });
      const { result } = headend.fanouts().find((each) => each.correlator === correlator)!;
      return /Status="(\d+)"/.exec(result)?.[1];
    };
    return { told };
  };
  let [received, sent] = [0, 0];
  let seen = () => {};
  nat.tap = (datagram, isOutward) => {
    if (isOutward) sent++;
    else received += datagram.length;
    seen();
  };
  return {
    ...{ nat, headend, site, parent, child, clocks, startParent, stage, update, directory, slots },
    /** Datagrams that the child has sent, and bytes that it got. */
    traffic: () => ({ sent, received }),
    /** Resolves when the child has sent this many datagrams more. What `then` does is done before another one passes. */
    after: (count: number, then: () => void) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const until = sent + count;
      seen = () => {
        if (sent < until) return;
        seen = () => {};
        then();
        resolve();
      };
      return promise;
    },
    downloaded: () => readFileSync(join(slots, 'update.bundle')),
  };
}

describe('a child gateway that updates itself from the images of its parent', { timeout: 300_000 }, () => {
  test('gets only the blocks that are new, over the way to its parent', limit, async (t) => {
    const { stage, update, traffic, downloaded, child, directory } = await family(t);
    const bundle = bundleOf('1.0.0', changed(3, 4, 5, 100, 249));
    await stage(bundle);
    const before = traffic().received;
    const { told } = await update();
    assert.equal(await told(), '200');
    assert.ok(downloaded().equals(bundle));
    const delta = await child.events.until('update.delta');
    const head = bundle.length - old.length;
    assert.deepEqual(delta.fields, { bytes: head + 5 * block, total: bundle.length });
    const moved = traffic().received - before;
    t.diagnostic(`${moved} bytes in datagrams, of a bundle of ${bundle.length}`);
    assert.ok(moved < 50_000, `${moved} bytes`);
    assert.equal(readdirSync(directory).filter((name) => name.endsWith('.blocks')).length, 1);
  });

  test('an index that lies leads to the whole image, and is told', limit, async (t) => {
    const { stage, update, downloaded, child, directory } = await family(t);
    const bundle = bundleOf('1.0.0', changed(7));
    await stage(bundle);
    // What the parent has made of the image is exchanged on its disk.
    const other = bundleOf('1.0.0', changed(8));
    const [image] = readdirSync(directory);
    writeFileSync(join(directory, `${image}.blocks`), writeIndex(Buffer.from(other)));
    const { told } = await update();
    assert.equal(await told(), '200');
    assert.ok(downloaded().equals(bundle));
    assert.equal(child.events.count('update.delta-failed'), 1);
  });

  test('a parent without room for an index is asked for all of the image', limit, async (t) => {
    const bundle = bundleOf('1.0.0', changed(7));
    const disk = smallDisk(t, 3);
    if (!disk) return;
    const { stage, update, downloaded, child } = await family(t, {
      parent: { images: { directory: disk }, limits: { 'keep-free': 1 } },
    });
    await stage(bundle);
    writeFileSync(join(disk, 'others'), Buffer.alloc(3 * 1024 * 1024 - bundle.length - 1_048_576));
    const { told } = await update();
    assert.equal(await told(), '200');
    assert.ok(downloaded().equals(bundle));
    assert.equal(child.events.count('update.delta') + child.events.count('update.delta-failed'), 0);
    assert.deepEqual(
      readdirSync(disk).filter((name) => name.includes('.blocks')),
      [],
    );
  });

  test('a child whose disk is full says so, and takes the image when there is room', limit, async (t) => {
    const bundle = bundleOf('1.0.0', changed(7));
    const disk = smallDisk(t, 5);
    if (!disk) return;
    const { stage, update, downloaded } = await family(t, { child: join(disk, 'slots') });
    await stage(bundle);
    const others = join(disk, 'others');
    writeFileSync(others, Buffer.alloc(2_500_000));
    assert.equal(await (await update()).told(), '501');
    assert.deepEqual(
      readdirSync(join(disk, 'slots')).filter((name) => name.endsWith('.part')),
      [],
    );
    rmSync(others);
    assert.equal(await (await update()).told(), '200');
    assert.ok(downloaded().equals(bundle));
  });

  test('a parent that starts anew in the middle is asked only for what is missing', limit, async (t) => {
    const many = Array.from({ length: 100 }, (_, number) => number);
    const made = await family(t);
    const { nat, stage, update, after, traffic, downloaded, parent, child, clocks, startParent } = made;
    const bundle = bundleOf('1.0.0', changed(...many));
    await stage(bundle);
    const begun = child.events.next('update.delta');
    const { told } = await update();
    await begun;
    // 400 blocks of 1 KiB are to come.
    const port = nat.insidePorts[0]!;
    await after(200, () => nat.lost.add(port));
    await parent.gateway[Symbol.asyncDispose]();
    const lost = child.events.next('parent.lost');
    await stepsUntil(lost, clocks.child);
    await startParent();
    nat.lost.clear();
    const { sent } = traffic();
    const result = told();
    await stepsUntil(result, clocks.child);
    assert.equal(await result, '200');
    assert.ok(downloaded().equals(bundle));
    assert.ok(traffic().sent - sent < 300, `${traffic().sent - sent} datagrams after the new start`);
    assert.equal(child.events.count('update.delta-failed'), 0);
  });

  test(
    'an image that is replaced meanwhile is not mixed: the order ends with 500, the next one succeeds',
    limit,
    async (t) => {
      const { nat, stage, update, after, downloaded, child, clocks } = await family(t);
      const many = Array.from({ length: 100 }, (_, number) => number);
      await stage(bundleOf('1.0.0', changed(...many)));
      const begun = child.events.next('update.delta');
      const { told } = await update();
      await begun;
      const port = nat.insidePorts[0]!;
      await after(100, () => nat.lost.add(port));
      const next = bundleOf('1.1.0', changed(...many, 200));
      await stage(next);
      nat.lost.clear();
      const result = told();
      await stepsUntil(result, clocks.child);
      assert.equal(await result, '500');
      assert.equal(await (await update()).told(), '200');
      assert.ok(downloaded().equals(next));
      assert.equal(child.events.count('update.delta-failed'), 0);
    },
  );

  test(
    'a URI of another resource ends with 411, that of an image that is not there with 500',
    limit,
    async (t) => {
      const { update } = await family(t);
      for (const [url, result] of [
        ['coaps://127.0.0.1/.well-known/core', '411'],
        ['coap:img', '411'],
        ['coaps://127.0.0.1/img/none', '500'],
      ] as const)
        assert.equal(await (await update(url)).told(), result, url);
    },
  );

  test(
    'the inventory of a child downloads from that of its parent, for the gateways below',
    limit,
    async (t) => {
      const { stage, headend, child, parent } = await family(t);
      const bundle = bundleOf('1.0.0', changed(7));
      await stage(bundle);
      const url = `coaps://127.0.0.1:${parent.gateway.coapsPort}/img/fw`;
      const at = './GwImageInventory/Images/below';
      await headend.fanOut('gw-1', {
        ...order('stage'),
        command:
          `<Add><CmdID>1</CmdID>${item(`${at}/PkgURL`, url)}</Add>` +
          `<Exec><CmdID>2</CmdID>${item(`${at}/Operations/Download`)}</Exec>`,
      });
      const ready = await child.events.until('image.ready', { image: 'below' });
      assert.equal(ready.fields.bytes, bundle.length);
    },
  );
});
