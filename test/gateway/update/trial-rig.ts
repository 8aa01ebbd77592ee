import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { Database } from '../../../src/base/database.ts';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { download } from '../../../src/gateway/northbound/download.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { type UpdateRecord, UpdateRecords } from '../../../src/gateway/store/update-record.ts';
import {
  BootStateCopies,
  keptState,
  otherSlot,
  type SlotName,
} from '../../../src/gateway/update/boot-state.ts';
import { BundleDownload, type BundleDownloadParts } from '../../../src/gateway/update/download-bundle.ts';
import { Updater, type UpdaterParts } from '../../../src/gateway/update/updater.ts';
import { FirmwareBranch } from '../../../src/mo/firmware-branch.ts';
import type { HandClock } from '../../hand-clock.ts';
import { HastyRecorder } from '../modes/image-rig.ts';

export interface Settings {
  readonly slot?: SlotName;
  readonly devices?: readonly string[];
  readonly more?: Partial<UpdaterParts>;
  readonly download?: (clock: HandClock) => Partial<BundleDownloadParts>;
  readonly install?: () => Promise<void>;
  readonly restart?: () => void;
}

/** A machine with two slots: its folder, its state, and the gateways that run there one after the other. */
export function machine(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-trial-'));
  const database = openDatabase(join(folder, 'state.db'), gatewaySchema);
  t.after(async () => {
    await database.close();
    rmSync(folder, { recursive: true });
  });
  return { folder, database, boot: new BootStateCopies([join(folder, '1'), join(folder, '2')]) };
}

/** A gateway that starts from a slot of the machine. */
export function gateway({ folder, database, boot }: ReturnType<typeof machine>, settings: Settings = {}) {
  const { slot = 'A', devices = ['d1', 'd2'] } = settings;
  const events = new HastyRecorder();
  const { clock } = events;
  const calls: string[] = [];
  const ended: { result: number; record: UpdateRecord }[] = [];
  const lost: (string | undefined)[] = [];
  const present = [...devices];
  const bundleFile = join(folder, 'update.bundle');
  const parts = { clock, entropy: seededEntropy(1), events };
  const branch = new FirmwareBranch({
    nodes: new Nodes(database as Database),
    clock,
    runner: {
      admit: (order) => updater.admit(order),
      record: (order) => updater.record(order),
      launch: (order) => updater.launch(order),
      cancel: () => updater.cancel(),
    },
  });
  const updater: Updater = new Updater({
    slots: {
      ...{ current: slot, version: slot === 'A' ? '1.0.0' : '1.1.0', compatible: 'test', bundleFile },
      ...{ sources: [], diagnosis: folder },
      state: () => boot.read(),
      inspect: async () => ({ compatible: 'test', version: '1.1.0' }),
      install: async () => {
        calls.push('install');
        boot.change({ good: slot, trying: undefined, left: 0 });
        await settings.install?.();
      },
      try: async (left) => void boot.change({ trying: otherSlot(slot), left, failed: undefined }),
      keep: async () => void boot.change(keptState(boot.read(), slot)),
      lists: () => '',
      revoke: async () => {},
      restart: () => {
        calls.push('restart');
        settings.restart?.();
      },
    },
    records: new UpdateRecords(database),
    branch,
    bundle: new BundleDownload({
      ...parts,
      ...{ file: bundleFile, disk: new DiskRoom(0), download, ca: undefined, imageFile: () => undefined },
      ...{ sources: [], retryFor: 3_600_000, ...settings.download?.(clock) },
    }),
    ...{ allowOlder: false, window: undefined, attempts: 2, healthDeadline: 10_000 },
    probe: () => undefined,
    isConnected: () => true,
    isServed: () => true,
    devices: () => present,
    ended: (record, result) => void ended.push({ result, record }),
    lost: (slot) => void lost.push(slot),
    settledWell: () => {},
    ...parts,
    ...settings.more,
  });
  return { updater, branch, events, clock, calls, ended, lost, present, bundleFile };
}

/** Lets time pass until something holds. */
export async function until(made: ReturnType<typeof gateway>, holds: () => boolean): Promise<void> {
  for (let look = 0; !holds(); look++) {
    await turn();
    if (look % 10 === 9) made.clock.advance(1000);
  }
}
