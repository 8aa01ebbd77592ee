import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { Database } from '../../../src/base/database.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import { DeviceContexts } from '../../../src/gateway/southbound/device-contexts.ts';
import { IssuedContexts } from '../../../src/gateway/store/issued-contexts.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { numbersByClock, OscoreContexts } from '../../../src/wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../../../src/wire/secure/oscore/keys.ts';
import { StoredSenders } from '../../../src/wire/secure/oscore/stored-senders.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-contexts-'));
after(() => rmSync(folder, { recursive: true }));
const clock = new HandClock();
const wall = { wall: () => Date.UTC(2026, 10, 29) as never };
const key = systemEntropy.bytes(32);
const sealing = new Sealing(key, systemEntropy);

const context = (number: number): OscoreParameters => ({
  masterSecret: Buffer.from(`master secret ${number}`),
  senderId: Buffer.of(0),
  recipientId: Buffer.of(number),
});

/** The contexts of a gateway in a new run over this state. */
function run(
  database: Database,
  configured: Record<string, OscoreParameters> = {},
  isNew = false,
  limit = 10,
) {
  return new DeviceContexts({
    configured: new Map(Object.entries(configured)),
    issued: new IssuedContexts(database, sealing, limit),
    senders: new StoredSenders(database, clock, isNew),
    clock,
    entropy: systemEntropy,
    events: new EventRecorder(),
  });
}

describe('contexts that a bootstrap issues', () => {
  test('are there after a restart, sealed, and gone when they are revoked', async () => {
    const file = join(folder, 'issued.db');
    const database = openDatabase(file, gatewaySchema);
    const first = run(database, { configured: context(1) });
    const issued = { ...context(2), masterSalt: Buffer.of(1, 2), idContext: Buffer.of(3) };
    first.issue('device', issued);
    assert.equal(first.size, 2);
    await database.settled();
    assert.equal(run(database, { configured: context(1) }).size, 2);
    const loaded = new IssuedContexts(database, sealing, 10).load();
    assert.deepEqual(loaded, [['device', issued]]);
    assert.ok(!readFileSync(file).includes('master secret'));
    assert.ok(!readFileSync(`${file}-wal`).includes(Buffer.from('master secret 2').toString('base64')));
    const second = run(database);
    second.revoke('device');
    assert.equal(second.size, 0);
    assert.equal(run(database).size, 0);
    await database.close();
  });

  test('of another sealing key, or damaged, are left out', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    run(database).issue('device', context(2));
    const other = new Sealing(systemEntropy.bytes(32), systemEntropy);
    assert.deepEqual(new IssuedContexts(database, other, 10).load(), []);
    database.prepare("UPDATE oscore_context SET identity = 'another'").run();
    assert.equal(run(database).size, 0);
    await database.close();
  });

  test('are refused beyond the limit, where the configuration has one, and where they would share a nonce', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const contexts = run(database, { configured: context(1) }, false, 1);
    assert.throws(() => contexts.issue('configured', context(5)), { code: 'conflict' });
    assert.throws(() => contexts.issue('x', { ...context(1), recipientId: Buffer.of(7) }), {
      code: 'conflict',
    });
    contexts.issue('a', context(2));
    contexts.issue('a', context(3));
    assert.throws(() => contexts.issue('b', context(4)), { code: 'full' });
    assert.equal(contexts.size, 2);
    await database.close();
  });

  test('that cannot be stored do not count', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const contexts = run(database);
    database.prepare('PRAGMA query_only = 1').run();
    assert.throws(() => contexts.issue('a', context(2)));
    assert.equal(contexts.size, 0);
    database.prepare('PRAGMA query_only = 0').run();
    await database.close();
  });
});

test('a configuration that is read again adds contexts, and ends those that are gone', async () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const contexts = run(database, { a: context(1), b: context(2) });
  contexts.configure(
    new Map([
      ['b', context(3)],
      ['c', context(4)],
    ]),
  );
  assert.equal(contexts.size, 2);
  contexts.configure(new Map());
  assert.equal(contexts.size, 0);
  await database.close();
});

describe('stored sequence numbers', () => {
  const taken = async (senders: StoredSenders, now: Pick<HandClock, 'wall'> = clock) => {
    const contexts = new OscoreContexts({ clock: now, events: new EventRecorder(), store: senders });
    contexts.add('device', context(1));
    return await contexts.get('device')!.sequence.take();
  };

  test('rise from run to run; a write that fails uses none', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const runs = [
      await taken(new StoredSenders(database, clock)),
      await taken(new StoredSenders(database, clock)),
    ];
    assert.deepEqual(runs, [0, 1024]);
    database.prepare('PRAGMA query_only = 1').run();
    await assert.rejects(taken(new StoredSenders(database, clock)), { code: 'storage' });
    database.prepare('PRAGMA query_only = 0').run();
    assert.equal(await taken(new StoredSenders(database, clock)), 2048);
    await database.close();
  });

  test('of a state that went back in time continue by the clock, also in the runs after', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    await taken(new StoredSenders(database, clock));
    const byClock = numbersByClock(wall);
    new StoredSenders(database, wall, true);
    assert.equal(await taken(new StoredSenders(database, clock)), byClock);
    // A clock that was set back takes nothing back.
    new StoredSenders(database, { wall: () => 0 as never }, true);
    assert.equal(await taken(new StoredSenders(database, clock)), byClock + 1024);
    await database.close();
  });

  test('of a state that went back in time continue by the clock on a disk that takes no writes', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    await taken(new StoredSenders(database, clock));
    database.prepare('PRAGMA query_only = 1').run();
    const senders = new StoredSenders(database, wall, true);
    await assert.rejects(taken(senders), { code: 'storage' });
    database.prepare('PRAGMA query_only = 0').run();
    assert.equal(await taken(senders), numbersByClock(wall));
    await database.close();
  });

  test('of a row that cannot be read are set aside, and continue by the clock', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    await taken(new StoredSenders(database, clock));
    database.prepare('UPDATE oscore_sender SET reserved = -5').run();
    assert.equal(await taken(new StoredSenders(database, wall), wall), numbersByClock(wall));
    await database.close();
  });

  test('are never lowered by a later write', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const senders = new StoredSenders(database, clock);
    senders.put('m', { reserved: 5000, place: undefined });
    senders.put('m', { reserved: 1000, place: { address: '192.0.2.1', port: 5683 } });
    assert.deepEqual(new StoredSenders(database, clock).get('m'), {
      reserved: 5000,
      place: { address: '192.0.2.1', port: 5683 },
    });
    await database.close();
  });

  test('are kept for 262,144 senders, those that were used last', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const put = (marks: number) => {
      const row = database.prepare('INSERT INTO oscore_sender (mark, reserved) VALUES (?, 1)');
      database.transaction(() => {
        for (let mark = 0; mark < marks; mark++) row.run(`${marks} ${mark}`);
      });
    };
    const senders = new StoredSenders(database, clock);
    senders.put('idle', { reserved: 1, place: undefined });
    senders.put('busy', { reserved: 1, place: undefined });
    put(262_142);
    assert.ok(new StoredSenders(database, clock).get('idle'));
    senders.put('another', { reserved: 1, place: undefined });
    senders.put('busy', { reserved: 2, place: undefined });
    const after = new StoredSenders(database, clock);
    assert.deepEqual([after.get('busy')?.reserved, after.get('idle')], [2, undefined]);
    await database.close();
  });
});
