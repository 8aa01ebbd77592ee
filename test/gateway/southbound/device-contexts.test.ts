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
import { KeyEnds } from '../../../src/gateway/southbound/key-ends.ts';
import { PreSharedKeys } from '../../../src/gateway/southbound/pre-shared-keys.ts';
import { DeviceKeys } from '../../../src/gateway/store/device-keys.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { numbersByClock } from '../../../src/wire/secure/numbers-by-clock.ts';
import { OscoreContexts } from '../../../src/wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../../../src/wire/secure/oscore/keys.ts';
import { StoredSenders } from '../../../src/wire/secure/oscore/stored-senders.ts';
import { issuedContext } from '../../../src/wire/secure/transport-keys.ts';
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

const name = (number: number) => `oscore:sender${number}`;
const keyOf = (number: number) => ({ identity: name(number), key: `master secret ${number}` });

/** The contexts of a gateway in a new run over this state, and the keys that they follow. */
function run(database: Database, configured: Record<string, OscoreParameters> = {}, sealer = sealing) {
  const keys = new DeviceKeys(database, sealer);
  const contexts = new DeviceContexts({
    configured: asConfigured(configured),
    keys,
    senders: new StoredSenders(database, clock, false),
    clock,
    entropy: systemEntropy,
    events: new EventRecorder(),
  });
  new KeyEnds({
    credentials: { keys, onEnded: () => {} },
    transport: undefined,
    contexts,
    sessions: { detached: () => {} },
  });
  return { keys, contexts };
}

const asConfigured = (contexts: Record<string, OscoreParameters>) =>
  new Map(
    Object.entries(contexts).map(([identity, parameters]) => [identity, { parameters, owner: { identity } }]),
  );

/** A commit that fails. */
const failing = (database: Database, work: () => void) =>
  assert.throws(
    () =>
      database.transaction(() => {
        work();
        throw new Error('no commit');
      }),
    /no commit/,
  );

describe('contexts that a bootstrap issues', () => {
  test('are there after a restart, sealed, and gone when their key is', async () => {
    const file = join(folder, 'issued.db');
    const database = openDatabase(file, gatewaySchema);
    const first = run(database, { configured: context(1) });
    assert.equal(first.contexts.has('device'), false);
    first.keys.add('device', keyOf(2));
    assert.equal(first.contexts.has('device'), true, 'what comes in clear from its address is a stranger');
    assert.equal(first.contexts.size, 2);
    await database.settled();
    const second = run(database, { configured: context(1) });
    assert.equal(second.contexts.size, 2);
    for (const bytes of [readFileSync(file), readFileSync(`${file}-wal`)]) {
      assert.ok(!bytes.includes('master secret 2'));
      assert.ok(!bytes.includes(Buffer.from('master secret 2').toString('base64')));
    }
    second.keys.remove('device');
    assert.equal(second.contexts.size, 1);
    assert.equal(run(database).contexts.size, 0);
    await database.close();
  });

  test('of another sealing key, or damaged, are left out', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    run(database).keys.add('device', keyOf(2));
    assert.equal(run(database, {}, new Sealing(systemEntropy.bytes(32), systemEntropy)).contexts.size, 0);
    database.prepare("UPDATE device_key SET identity = 'oscore:another'").run();
    assert.equal(run(database).contexts.size, 0);
    await database.close();
  });

  test('are two for a device until it uses the newer one', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const { keys, contexts } = run(database);
    keys.add('device', keyOf(1));
    keys.add('device', keyOf(2));
    // The answer with the second one was lost.
    keys.add('device', keyOf(3));
    assert.equal(contexts.size, 2);
    keys.used(name(1));
    assert.equal(contexts.size, 2);
    keys.used(name(3));
    assert.equal(contexts.size, 1);
    assert.deepEqual(
      keys.of('device').map(({ identity }) => identity),
      [name(3)],
    );
    await database.close();
  });

  test('are what they were after a commit that failed', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const { keys, contexts } = run(database);
    failing(database, () => keys.add('device', keyOf(1)));
    assert.equal(contexts.size, 0);
    keys.add('device', keyOf(1));
    failing(database, () => keys.add('device', keyOf(2)));
    failing(database, () => keys.remove('device'));
    assert.equal(contexts.size, 1);
    keys.add('device', keyOf(2));
    failing(database, () => keys.used(name(2)));
    assert.equal(contexts.size, 2);
    database.prepare('PRAGMA query_only = 1').run();
    assert.throws(() => keys.add('device', keyOf(3)));
    database.prepare('PRAGMA query_only = 0').run();
    assert.equal(contexts.size, 2);
    await database.close();
  });

  test('that cannot be told from one of the configuration are not issued', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const { senderId } = issuedContext(name(1), Buffer.of());
    const twin = { masterSecret: Buffer.from('another'), senderId, recipientId: Buffer.from('sender1') };
    const { keys, contexts } = run(database, { configured: twin });
    assert.throws(() => keys.add('device', keyOf(1)), { code: 'conflict' });
    assert.deepEqual([contexts.size, keys.size], [1, 0]);
    await database.close();
  });

  test('are of keys for OSCORE alone, and these open no DTLS association', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const { keys, contexts } = run(database);
    keys.add('one', { identity: 'gw:identity', key: 'a key for DTLS' });
    keys.add('two', keyOf(1));
    assert.equal(contexts.size, 1);
    const shared = new PreSharedKeys({ configured: () => new Map(), factory: () => new Map(), issued: keys });
    assert.ok(shared.keyOf('gw:identity'));
    assert.equal(shared.keyOf(name(1)), undefined);
    await database.close();
  });
});

test('a configuration that is read again adds contexts, and ends those that are gone', async () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const { contexts } = run(database, { a: context(1), b: context(2) });
  contexts.configure(asConfigured({ b: context(3), c: context(4) }));
  assert.equal(contexts.size, 2);
  contexts.configure(new Map());
  assert.equal(contexts.size, 0);
  await database.close();
});

test('a configuration that is read again may give the IDs of one device to another one', async () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const { contexts } = run(database, { a: context(1), b: context(2), c: context(3) });
  for (const next of [
    { a: context(2), b: context(1), c: context(3) },
    { a: context(3), b: context(2), c: context(1) },
  ]) {
    contexts.demandTogether(asConfigured(next));
    contexts.configure(asConfigured(next));
    assert.deepEqual(
      ['a', 'b', 'c'].map((each) => contexts.has(each)),
      [true, true, true],
    );
  }
  await database.close();
});

test('a configuration with the ID of an issued context is refused before anything changes', async () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const { contexts, keys } = run(database, { a: context(1) });
  keys.add('device', keyOf(2));
  const taken = { ...context(9), recipientId: issuedContext(name(2), keys.at(name(2))!.key).recipientId };
  assert.throws(
    () => contexts.demandTogether(asConfigured({ b: taken })),
    /oscore\.device: b: oscore:sender2 has/,
  );
  assert.deepEqual([contexts.has('a'), contexts.has(name(2))], [true, true]);
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

  test('of a state that went back with its lock continue by the clock, in each run', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    let now = wall.wall() as number;
    const moving = { wall: () => now as never };
    const first = await taken(new StoredSenders(database, moving), moving);
    const snapshot = database.prepare('SELECT reserved FROM oscore_sender').get()!;
    now += 3_600_000;
    const second = await taken(new StoredSenders(database, moving), moving);
    database.prepare('UPDATE oscore_sender SET reserved = ?').run(snapshot.reserved!);
    now += 1000;
    const third = await taken(new StoredSenders(database, moving), moving);
    assert.ok(first < second && second < third, `${first}, ${second}, ${third}`);
    await database.close();
  });

  test('are not used up by a clock that is centuries ahead', async () => {
    const database = openDatabase(':memory:', gatewaySchema);
    const far = { wall: () => Date.UTC(9999, 0, 1) as never };
    const first = await taken(new StoredSenders(database, far), far);
    assert.equal(await taken(new StoredSenders(database, wall), wall), first + 1024);
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
