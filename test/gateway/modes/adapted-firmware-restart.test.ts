import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { unwatch, watch } from '../../faults/failing-storage.ts';
import { turn } from '../../wire/coap/wire.ts';
import { behave, type Client, deviceId, firmwareRig, url } from './firmware-rig.ts';

const limit = { timeout: 30_000 };
const both = [`uri ${url}`, 'update'];

/** Begins an order, and resolves when the client has been asked for this. The order does not end. */
async function orderedUntil(
  rig: Awaited<ReturnType<typeof firmwareRig>>,
  isReached: () => boolean,
  operation = 'DownloadAndUpdate',
): Promise<void> {
  void rig.order(operation);
  while (!isReached()) await turn();
}

/** What the client says after it was asked. The URI leads to this state, and so does the Execute. */
function keepAt(client: Client, downloading: number, installing: number): void {
  client.uri = (value) => {
    Object.assign(client, { state: value === '' ? 0 : downloading, result: 0 });
    return Code.Changed;
  };
  client.update = () => {
    Object.assign(client, { state: installing, result: 0 });
    return Code.Changed;
  };
}

const set = (client: Client, state: number, result: number) => () => Object.assign(client, { state, result });

/** Where a client is when the gateway stops, and what it does meanwhile: the requests that follow, and the result. */
const cases: readonly [
  name: string,
  downloading: number,
  installing: number,
  at: (client: Client) => boolean,
  meanwhile: readonly [state: number, result: number],
  asked: readonly string[],
  result: number,
][] = [
  ['while it downloads', 1, 0, ({ polls }) => polls > 2, [1, 0], both, 200],
  ['and it has downloaded meanwhile', 1, 0, ({ polls }) => polls > 2, [2, 0], both, 200],
  ['and its download has failed meanwhile', 1, 0, ({ polls }) => polls > 2, [0, 4], both.slice(0, 1), 503],
  // It gets the URI once more.
  [
    'and it has lost its download by a reboot',
    1,
    0,
    ({ polls }) => polls > 2,
    [0, 0],
    [both[0]!, ...both],
    200,
  ],
  ['while it installs', 2, 3, ({ asked }) => asked.length > 1, [3, 0], both, 200],
  ['and it has installed meanwhile', 2, 3, ({ asked }) => asked.length > 1, [0, 1], both, 200],
  ['and its installation has failed', 2, 3, ({ asked }) => asked.length > 1, [2, 8], both, 410],
  ['and it puts its installation off', 2, 3, ({ asked }) => asked.length > 1, [2, 11], both, 200],
  // The Execute got lost.
  ['and it was not told to install', 2, 3, ({ asked }) => asked.length > 1, [2, 0], [...both, 'update'], 200],
  // It tells of an earlier success as well, and has not ended this one.
  ['and it installs, with an earlier success', 2, 3, ({ asked }) => asked.length > 1, [3, 1], both, 200],
  [
    'and it was not told to install, with an earlier success',
    2,
    3,
    ({ asked }) => asked.length > 1,
    [2, 1],
    [...both, 'update'],
    200,
  ],
  ['and it tells nothing of its update any more', 2, 3, ({ asked }) => asked.length > 1, [0, 0], both, 410],
];

for (const [name, downloading, installing, isAt, [state, result], asked, fumo] of cases)
  test(`the gateway restarts in the middle of an update ${name}: ${fumo}`, limit, async (t) => {
    const rig = await firmwareRig(t);
    const { client } = rig;
    keepAt(client, downloading, installing);
    await orderedUntil(rig, () => isAt(client));
    assert.equal(rig.updates.all().length, 1);
    const ended = await rig.restart(() => {
      set(client, state, result)();
      // From now on it does what it is told. What it has begun ends after some polls.
      behave(client);
      const { polls } = client;
      client.polled = (count) => {
        if (count < polls + 3) return;
        if (client.state === 1) set(client, 2, 0)();
        else if (client.state === 3 || client.result === 11) set(client, 0, 1)();
      };
    });
    assert.equal(ended, fumo);
    assert.deepEqual(client.asked, asked);
    assert.deepEqual(rig.updates.all(), []);
    assert.equal(rig.events.count('adaptation.update-resumed'), 1);
    // The next order is not blocked.
    client.polled = () => {};
    assert.equal(await rig.order(), 200);
  });

test('the gateway restarts before the client has got anything: the order begins', limit, async (t) => {
  const rig = await firmwareRig(t);
  const { client } = rig;
  behave(client);
  // It tells the result of an earlier update, which is not that of this one.
  Object.assign(client, { state: 0, result: 1 });
  rig.firmware.set(rig.known, ['DownloadAndUpdate', 'PkgURL'], url);
  rig.firmware.execute(rig.known, ['DownloadAndUpdate'], 'c');
  const [kept] = rig.updates.all();
  assert.deepEqual(kept, {
    deviceId,
    operation: 'DownloadAndUpdate',
    url,
    correlator: 'c',
    stage: 'ordered',
  });
  assert.equal(await rig.restart(), 200);
  assert.deepEqual(client.asked, ['uri ', ...both]);
});

test('an Update alone goes on, and a Download does not install', limit, async (t) => {
  const rig = await firmwareRig(t);
  const { client } = rig;
  keepAt(client, 1, 3);
  await orderedUntil(rig, () => client.polls > 2, 'Download');
  assert.equal(await rig.restart(set(client, 2, 0)), 200);
  assert.deepEqual(client.asked, both.slice(0, 1));
  await orderedUntil(rig, () => client.asked.length > 1, 'Update');
  assert.equal(await rig.restart(set(client, 0, 1)), 200);
  // Without a package it is refused, whatever the client tells of the update before.
  client.update = () => Code.MethodNotAllowed;
  assert.equal(await rig.order('Update'), 410);
  rig.firmware.execute(rig.known, ['Update'], undefined);
  assert.equal(await rig.restart(), 410);
});

test('a client that is away is waited for after the restart, for an hour', limit, async (t) => {
  const rig = await firmwareRig(t);
  const { client } = rig;
  keepAt(client, 2, 3);
  await orderedUntil(rig, () => client.asked.length > 1);
  const back = rig.restart(() => {
    rig.leave();
    set(client, 0, 1)();
    rig.clock.after(1_800_000, rig.comeBack);
  });
  assert.equal(await back, 200);
  await orderedUntil(rig, () => client.asked.length > 3);
  assert.equal(await rig.restart(rig.leave), 503);
});

test('an order of which nothing is left has failed; one that runs is not told twice', limit, async (t) => {
  const rig = await firmwareRig(t);
  const { client } = rig;
  const results: number[] = [];
  rig.hear((result) => results.push(result));
  // An OMA DM device, which reports by itself, is none of ours.
  assert.equal(await rig.restart(() => {}, [deviceId]), 410);
  keepAt(client, 1, 3);
  await orderedUntil(rig, () => client.polls > 2);
  behave(client);
  assert.equal(await rig.restart(set(client, 2, 0), [deviceId]), 200);
  assert.deepEqual(results, [410, 200]);
});

test('what was set outlasts a restart', limit, async (t) => {
  const rig = await firmwareRig(t);
  behave(rig.client);
  rig.firmware.set(rig.known, ['PkgVersion'], '2.0');
  assert.equal(await rig.order(), 200);
  await rig.restart(() => {}, [deviceId]);
  assert.equal(await rig.firmware.get(rig.known, ['PkgVersion']), '2.0');
  assert.equal(await rig.firmware.get(rig.known, ['DownloadAndUpdate', 'PkgURL']), url);
});

/** A rig whose state is in a file, and what is written to the file. */
async function onDisk(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-update-'));
  const file = join(folder, 'state.db');
  const watched = watch(file);
  const database = openDatabase(file, gatewaySchema);
  t.after(async () => {
    unwatch(file);
    await database.close();
    rmSync(folder, { recursive: true });
  });
  return { watched, rig: await firmwareRig(t, undefined, database) };
}

test('on a full disk an order is refused before the client hears of it', limit, async (t) => {
  const { watched, rig } = await onDisk(t);
  rig.firmware.set(rig.known, ['DownloadAndUpdate', 'PkgURL'], url);
  watched.refuses = /client_(update|setting)/;
  assert.throws(() => rig.firmware.set(rig.known, ['PkgVersion'], '3'), { code: 'storage' });
  assert.throws(() => rig.firmware.execute(rig.known, ['DownloadAndUpdate'], undefined), { code: 'storage' });
  watched.refuses = undefined;
  await rig.firmware.settled;
  assert.deepEqual([rig.client.polls, rig.updates.all()], [0, []]);
  behave(rig.client);
  assert.equal(await rig.order(), 200);
});

test(
  'a disk that fills up while a client downloads: it is told to install when that is stored',
  limit,
  async (t) => {
    const { watched, rig } = await onDisk(t);
    const { client, clock } = rig;
    keepAt(client, 1, 0);
    const { update } = client;
    client.update = () => {
      const { stage } = rig.updates.all()[0]!;
      assert.equal(stage, 'downloaded');
      update();
      client.result = 1;
      return Code.Changed;
    };
    const done = rig.order();
    while (client.polls < 3) await turn();
    watched.refuses = /client_update/;
    client.state = 2;
    await rig.events.until('background.failed', { work: 'lwm2m-update' });
    for (let at = 0; at < 20; at++) {
      await turn();
      clock.advance(60_000);
    }
    assert.deepEqual(client.asked, both.slice(0, 1));
    watched.refuses = undefined;
    while (client.asked.length < 2) {
      await turn();
      clock.advance(60_000);
    }
    assert.equal(await done, 200);
    assert.deepEqual(client.asked, both);
  },
);

test('a result that cannot be stored is told when it can, once', limit, async (t) => {
  const { watched, rig } = await onDisk(t);
  const { client, clock } = rig;
  behave(client);
  const results: number[] = [];
  let failures = 2;
  rig.hear((result) => {
    if (failures-- > 0) throw new PosternError('unavailable', 'a campaign is not continued yet');
    results.push(result);
  });
  const done = rig.order();
  let isOver = false;
  void done.then(() => {
    isOver = true;
  });
  await rig.events.until('background.failed', { work: 'lwm2m-update' });
  assert.equal(rig.updates.all().length, 1, 'it is not forgotten before it is told');
  watched.refuses = /COMMIT/;
  for (let at = 0; at < 10; at++) {
    await turn();
    clock.advance(60_000);
  }
  watched.refuses = undefined;
  while (!isOver) {
    await turn();
    clock.advance(60_000);
  }
  assert.equal(await done, 200);
  assert.deepEqual(rig.updates.all(), []);
  assert.equal(rig.events.count('adaptation.update-ended'), 1);
});
