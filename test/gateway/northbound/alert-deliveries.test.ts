import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { AlertDeliveries } from '../../../src/gateway/northbound/alert-deliveries.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from '../store/failing-disk.ts';

for (const failing of ['nothing', 'the first removal', 'the last removal', 'the commit'] as const)
  test(`the alerts of a package leave the outbox together, and are not sent again when ${failing} fails`, async () => {
    using disk = new FailingDisk();
    const folder = mkdtempSync(join(tmpdir(), 'postern-deliveries-'));
    const file = join(folder, 'state.db');
    const database = openDatabase(file, gatewaySchema);
    const outbox = new Outbox(database, 100);
    for (let at = 0; at < 20; at++) outbox.add('device-attach', `urn:dev:${at}`, '{}');
    const deliveries = new AlertDeliveries(outbox, new HandClock(), () => {});
    const due = deliveries.due(undefined);
    for (const entry of due.slice(0, 10)) deliveries.delivered(entry);
    const before = disk.writes;
    // BEGIN, ten deletions, COMMIT.
    const skipped = { nothing: 100, 'the first removal': 1, 'the last removal': 10, 'the commit': 11 }[
      failing
    ];
    disk.failAfter(skipped);
    deliveries.forgetDelivered();
    const isWhole = failing === 'nothing';
    if (isWhole) assert.equal(disk.writes - before, 12);
    assert.equal(outbox.size, isWhole ? 10 : 20);
    disk.failAfter(0, { staysFull: true });
    const left = deliveries.due(undefined).map(({ deviceId }) => deviceId);
    assert.deepEqual(
      left,
      due.slice(10).map(({ deviceId }) => deviceId),
    );
    disk.mend();
    deliveries.due(undefined);
    assert.equal(outbox.size, 10);
    deliveries.stop();
    await database.close();
    const again = openDatabase(file, gatewaySchema);
    assert.equal(new Outbox(again, 100).size, 10);
    await again.close();
    rmSync(folder, { recursive: true });
  });
