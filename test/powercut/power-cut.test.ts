import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { SystemClock } from '../../src/base/clock.ts';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy, systemEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { noEvents } from '../../src/base/events.ts';
import { countSetAside } from '../../src/base/rows.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { type GatewayState, openState } from '../../src/gateway/state.ts';
import { vocabularyOf } from '../../src/mo/vocabulary.ts';
import { Site } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { GatewayProcess, gatewayToml, type Promised, work, writeConfig } from './load.ts';
import { type Leftovers, leftovers, Recording } from './recording.ts';
import { ServerMemory } from './server-memory.ts';

/** Points at which the power is cut, and times that the process is killed: few in `npm test`, all in `npm run powercut`. */
const cuts = Number(process.env.POSTERN_POWER_CUTS ?? 60);
const kills = Number(process.env.POSTERN_KILLS ?? 3);
const seed = Number(process.env.POSTERN_SEED ?? 1 + Math.floor(Math.random() * 1e6));
const devices = Array.from({ length: 10 }, (_, at) => `urn:dev:ops:${at}`);

const folder = mkdtempSync(join(tmpdir(), 'postern-power-'));
after(() => rmSync(folder, { recursive: true }));
const shim = join(folder, 'recorder.so');
before(() => {
  const source = fileURLToPath(new URL('recorder.c', import.meta.url));
  execFileSync('gcc', ['-shared', '-fPIC', '-O2', '-o', shim, source, '-ldl', '-lpthread']);
});

/** Lines that a gateway logs, about, while all devices are bootstrapped and attach, and their alerts are delivered. */
const linesOfWork = 45;

/** A UDP port that is free: the gateway has it before and after the kill, as in the field. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp6').bind(0);
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

/** Opens a rebuilt state by the real code. */
function open(state: string): GatewayState {
  const config = checkConfig(gatewayConfigSchema, gatewayToml(state, 'mqtt://127.0.0.1:1', devices), 'test');
  const machine = { clock: new SystemClock(), entropy: systemEntropy, events: noEvents };
  return openState(config, vocabularyOf(config.gwmo), machine);
}

/** What was promised before the power cut is there after it. */
function assertKept(state: GatewayState, promised: readonly Promised[], cut: bigint, where: string): void {
  const outbox = new Map(state.outbox.peek(1000).map((entry) => [entry.sequence, entry]));
  const waiting = new Set(
    [...outbox.values()].flatMap(({ kind, deviceId }) => (kind === 'device-attach' ? [deviceId] : [])),
  );
  const known = promised.filter(({ time }) => time <= cut).map(({ what }) => what);
  const alerted = new Set(known.flatMap((what) => (what.kind === 'alerted' ? [what.device] : [])));
  let setting: string | undefined;
  for (const what of known)
    switch (what.kind) {
      case 'bootstrapped':
        assert.ok(state.credentials.get(what.device), `${where}: the credential of ${what.device}`);
        break;
      case 'attached':
        assert.ok(state.inventory.get(what.device), `${where}: ${what.device} is attached`);
        assert.ok(
          state.credentials.get(what.device)?.attached,
          `${where}: ${what.device} proved its credential`,
        );
        assert.ok(
          waiting.has(what.device) || alerted.has(what.device),
          `${where}: the alert of ${what.device}`,
        );
        break;
      case 'delivered': {
        // The server takes a number that it knows for a repetition: no other alert may have it.
        const entry = outbox.get(what.sequence);
        assert.ok(
          !entry || entry.deviceId === what.device,
          `${where}: number ${what.sequence} stands for one alert`,
        );
        const row = state.database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").get();
        assert.ok(Number(row?.seq ?? 0) >= what.sequence, `${where}: numbers after ${what.sequence} are new`);
        break;
      }
      case 'setting':
        setting = what.value;
    }
  // The next value may be stored already, though nobody knows of it yet.
  const next = promised.find(({ time, what }) => time > cut && what.kind === 'setting')?.what;
  const possible = [setting, next?.kind === 'setting' ? next.value : undefined];
  if (setting !== undefined)
    assert.ok(possible.includes(state.gwConfig.text('DetachAlert')), `${where}: the setting`);
}

describe(`the power is cut, seed ${seed}`, { timeout: 3_600_000 }, () => {
  test(`at ${cuts} points under load, and at each point of the first start: the file is whole, and nothing that was promised is lost`, async (t) => {
    const entropy = seededEntropy(seed);
    const log = join(folder, 'record');
    const promised: Promised[] = [];
    // The server has no room for the first alert of some devices, and an error in that of others.
    const refusedOnce = new Map<string, Error>([
      [devices[2]!, new PosternError('storage', 'the disk of the server is full')],
      [devices[5]!, new Error('an error of the server')],
      [devices[8]!, new PosternError('storage', 'the disk of the server is full')],
    ]);
    using memory = new ServerMemory((device) => {
      const error = refusedOnce.get(device);
      refusedOnce.delete(device);
      return error;
    });
    {
      await using broker = await startAedes();
      const config = writeConfig(folder, broker.url, devices);
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      await using gateway = new GatewayProcess(
        config,
        { LD_PRELOAD: shim, RECORD_FOLDER: join(folder, 'state'), RECORD_LOG: log },
        ({ event, device, sequence }) => {
          if (event === 'alert.delivered')
            promised.push({
              time: process.hrtime.bigint(),
              what: { kind: 'delivered', device: String(device), sequence: Number(sequence) },
            });
        },
      );
      const port = await gateway.coapPort;
      await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
      await work(site, headend, port, devices, promised);
    }
    const recording = new Recording(log);
    const { entries } = recording;
    t.diagnostic(`${entries.length} writes and syncs, ${promised.length} promises`);
    let slowest = 0;
    const check = async (cut: number, count: number, left: Leftovers) => {
      const where = `seed ${seed}, cut ${cut} behind entry ${count}, leftovers ${left}`;
      const state = join(folder, `cut-${cut}`);
      recording.rebuild(count, left, entropy, state);
      const began = performance.now();
      const opened = open(state);
      slowest = Math.max(slowest, performance.now() - began);
      const found = opened.database.prepare('PRAGMA integrity_check').get();
      assert.equal(found?.integrity_check, 'ok', where);
      assert.equal(countSetAside(opened.database), 0, where);
      const { time } = entries[count - 1]!;
      assertKept(opened, promised, time, where);
      assert.deepEqual(await memory.wrong(opened.outbox.peek(1000), 'gw-1', time), [], where);
      await opened.database.close();
      rmSync(state, { recursive: true, force: true });
    };
    // Each point of the first start: the file is made, and no cut may leave a part of it.
    const made = 1 + entries.findIndex(({ kind, data }) => kind === 'R' && data.toString() === 'state.db');
    assert.ok(made > 0, 'the file gets its name when it is complete');
    for (let count = 1; count <= made + 5; count++) for (const left of leftovers) await check(0, count, left);
    // Each point after an alert was refused, until the gateway has stored that: the server may have taken later ones.
    assert.equal(memory.refusals.length, 3);
    for (const refused of memory.refusals) {
      const at = entries.findIndex(({ time }) => time >= refused);
      for (let count = at + 1; count <= Math.min(at + 6, entries.length); count++)
        for (const left of leftovers) await check(0, count, left);
    }
    // All cuts but the first are spread over the whole of the record.
    for (let cut = 0; cut < cuts; cut++)
      await check(
        cut,
        1 + Math.floor(((cut + entropy.uniform()) / cuts) * (entries.length - 1)),
        leftovers[cut % leftovers.length]!,
      );
    t.diagnostic(`opened in ${slowest.toFixed(0)} ms at most`);
    assert.ok(slowest < 2000, `${slowest} ms`);
  });

  test(`${kills} times the process is killed under load: each device attaches, and its alert reaches the server once`, async (t) => {
    const entropy = seededEntropy(seed + 1);
    // The kill comes behind one of the lines that the gateway logs: a point in the work, and not a time.
    const points = Array.from({ length: kills }, () => 1 + Math.floor(entropy.uniform() * linesOfWork));
    const killOnce = async (kill: number, last: number) => {
      const where = join(folder, `kill-${kill}`);
      await using broker = await startAedes();
      const config = writeConfig(where, broker.url, devices, await freePort());
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      let lines: number | undefined;
      const killed = Promise.withResolvers<void>();
      await using first = new GatewayProcess(config, {}, () => {
        if (lines !== undefined && ++lines === last) void first.kill().then(killed.resolve);
      });
      const port = await first.coapPort;
      await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
      lines = 0;
      const crowd = devices.map((id) => site.device(id, { coapPort: port }, { factory: true }));
      for (const device of crowd) await device.start();
      // Work that took fewer lines than the point is all done: the kill comes behind it.
      const done = devices.map((device) => site.headendEvents.until('alert.device-attach', { device }));
      void Promise.all(done).then(() => first.kill().then(killed.resolve));
      await killed.promise;
      const told = headend.records.alerts(1000).length;
      await using second = new GatewayProcess(config, {});
      await second.coapPort;
      await Promise.all(devices.map((device) => site.headendEvents.until('alert.device-attach', { device })));
      const alerts = headend.records.alerts(1000).filter((alert) => alert.kind === 'DeviceAttach');
      for (const [device, all] of Map.groupBy(alerts, (alert) => alert.device))
        assert.equal(all.length, 1, `seed ${seed}, kill ${kill} behind line ${last}: ${device} is told once`);
      t.diagnostic(`kill ${kill} behind line ${last}: ${told} of ${devices.length} alerts had come`);
    };
    // Most of the time is that of devices that wait before they repeat a message.
    const rest = points.entries();
    const atOnce = Array.from({ length: 6 }, async () => {
      for (const [kill, last] of rest) await killOnce(kill, last);
    });
    await Promise.all(atOnce);
  });
});
