import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { Events } from '../../../src/base/events.ts';
import { BoardIdentity } from '../../../src/gateway/northbound/board-identity.ts';
import { DepartureMarks } from '../../../src/gateway/northbound/departure-marks.ts';
import type { EnrolmentWay } from '../../../src/gateway/northbound/enrolment.ts';
import { IdentityFiles } from '../../../src/gateway/northbound/identity-files.ts';
import { OwnerBranch } from '../../../src/gateway/northbound/owner-branch.ts';
import { Ownership } from '../../../src/gateway/northbound/ownership.ts';
import {
  readTransferOrder,
  stageTransfer,
  storedTransfer,
} from '../../../src/gateway/northbound/transfer-order.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { smallDisk } from '../../small-disk.ts';

/** A folder with the identity of a board. */
function identity(t: TestContext, parent = tmpdir()): string {
  const folder = mkdtempSync(join(parent, 'postern-identity-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ['gateway.pub', 'gateway.key', 'gateway.crt'])
    writeFileSync(join(folder, name), `old ${name}`);
  writeFileSync(join(folder, 'enrolled.json'), JSON.stringify({ gateway: 'gw-1', server: 'dm.example' }));
  return folder;
}

function branchOf(folder: string) {
  const events = new EventRecorder();
  const starts: string[] = [];
  const marks = new DepartureMarks(folder);
  const ownership = new Ownership({
    gatewayId: 'gw-1',
    server: 'dm.example',
    enrol: () => Promise.reject(new Error('nobody is asked')),
    marks,
    failed: () => {},
    startAgain: () => starts.push(marks.state ?? 'none'),
    clock: new HandClock(),
    events,
  });
  const branch = new OwnerBranch({ server: ownership.server, ownership, reset: () => () => {}, events });
  return { branch, ownership, marks, events, starts };
}

const none = { format: 'null' } as const;

describe('departure of a gateway', () => {
  test('the owner alone may order it; it takes effect once, and not inside an Atomic that fails', (t) => {
    const { branch, marks, events, starts } = branchOf(identity(t));
    assert.throws(() => branch.exec(['Decommission'], none, undefined, 'dm.other'), {
      code: 'forbidden',
      message: 'this gateway belongs to dm.example',
    });
    assert.equal(events.count('departure.refused'), 1);
    branch.begin();
    branch.begin();
    assert.equal(branch.exec(['Decommission'], none, undefined, 'dm.example'), 202);
    branch.rollback();
    branch.commit();
    branch.committed();
    assert.deepEqual([marks.state, starts], [undefined, []]);
    for (const _ of [1, 2]) branch.exec(['Decommission'], none, undefined, 'dm.example');
    assert.deepEqual([marks.state, starts], ['leaving', ['leaving']]);
    assert.equal(events.count('departure.begun'), 1);
    assert.deepEqual(marks.account(), { gateway: 'gw-1', server: 'dm.example' });
  });

  test('an order to pass it on that lies is refused', (t) => {
    const { branch, marks } = branchOf(identity(t));
    const good = { server: 'dm.next', code: 'c' };
    for (const bad of [
      '',
      '[',
      '[]',
      '{}',
      'null',
      '7',
      JSON.stringify({ ...good, code: 7 }),
      JSON.stringify({ ...good, keep: 1 }),
    ])
      assert.throws(() => branch.exec(['Transfer'], { format: 'chr', value: bad }, undefined, 'dm.example'), {
        code: 'malformed',
      });
    assert.deepEqual([marks.state, existsSync(marks.next)], [undefined, false]);
  });

  test('a transfer is taken back by the owner alone, until the gateway leaves; without one nothing happens', (t) => {
    const folder = identity(t);
    const { branch, ownership, marks, events } = branchOf(folder);
    const withdraw = (by = 'dm.example') => branch.exec(['Withdraw'], none, undefined, by);
    assert.throws(() => withdraw('dm.next'), { code: 'forbidden' });
    assert.equal(withdraw(), 202);
    assert.equal(events.count('departure.transfer-failed'), 0);
    mkdirSync(marks.next);
    writeFileSync(
      join(marks.next, 'order.json'),
      JSON.stringify({ server: 'dm.next', code: 'c', keep: true }),
    );
    branch.begin();
    withdraw();
    branch.rollback();
    branch.committed();
    assert.ok(existsSync(marks.next), 'an Atomic that fails takes nothing back');
    withdraw();
    assert.deepEqual([existsSync(marks.next), ownership.problem], [false, '']);
    assert.equal(events.count('departure.transfer-failed'), 1);
    marks.leave();
    assert.throws(() => withdraw(), { code: 'conflict' });
  });

  test('the answer of the next owner that comes after the transfer was taken back leads to nothing', async (t) => {
    const folder = identity(t);
    const marks = new DepartureMarks(folder);
    const granted = Promise.withResolvers<void>();
    const failures: string[] = [];
    const ownership = new Ownership({
      gatewayId: 'gw-1',
      server: 'dm.example',
      // It does not hear that it is to stop: its answer was on the way.
      enrol: () => granted.promise,
      marks,
      failed: (reason) => failures.push(reason),
      startAgain: () => failures.push('it has left'),
      clock: new HandClock(),
      events: new EventRecorder(),
    });
    mkdirSync(marks.next);
    writeFileSync(
      join(marks.next, 'order.json'),
      JSON.stringify({ server: 'dm.next', code: 'c', keep: true }),
    );
    ownership.start();
    ownership.order('Withdraw', '').begin();
    granted.resolve();
    for (let turns = 0; turns < 4; turns++) await turn();
    assert.deepEqual(
      [failures, marks.state, existsSync(join(folder, 'enrolled.json'))],
      [[], undefined, true],
    );
  });

  test('what a transfer waits for is shown while it waits: the reason, and the next attempt at the broker', async (t) => {
    const marks = new DepartureMarks(identity(t));
    const asked = Promise.withResolvers<never>();
    const url = 'mqtts://next.example';
    let way: EnrolmentWay = { connected: false, url, reason: 'connect ECONNREFUSED', retryInSeconds: 12 };
    let tell: Events['emit'] = () => {};
    const ownership = new Ownership({
      gatewayId: 'gw-1',
      server: 'dm.example',
      enrol: async (_order, events, stop, asks) => {
        tell = (...event) => events.emit(...event);
        stop.addEventListener('abort', () => asked.reject(stop.reason));
        asks(() => way);
        return await asked.promise;
      },
      marks,
      failed: () => {},
      startAgain: () => {},
      clock: new HandClock(),
      events: new EventRecorder(),
    });
    const shown = () => ownership.transfer;
    assert.equal(shown(), undefined);
    mkdirSync(marks.next);
    writeFileSync(
      join(marks.next, 'order.json'),
      JSON.stringify({ server: 'dm.next', code: 'c', keep: true }),
    );
    ownership.start();
    await turn();
    const unreached = `NOT CONNECTED to ${url}: connect ECONNREFUSED`;
    assert.deepEqual(shown(), {
      server: 'dm.next',
      waiting: `${unreached}; next attempt in 12 s`,
    });
    assert.equal(ownership.problem, unreached, 'no figure that changes by itself');
    way = { connected: true, url };
    assert.deepEqual([shown()?.waiting, ownership.problem], ['it is asked', '']);
    tell('enrolment.waiting', { gateway: 'gw-1', reason: 'a person has to approve it' });
    assert.equal(shown()?.waiting, 'a person has to approve it');
    way = { connected: false, url };
    assert.equal(ownership.problem, `a person has to approve it; NOT CONNECTED to ${url}`);
    ownership.order('Withdraw', '').begin();
    assert.deepEqual([shown(), ownership.problem], [undefined, '']);
    await turn();
    assert.equal(shown(), undefined);
  });

  test('a full disk takes the order to end, and the end itself; a transfer is refused there', (t) => {
    const disk = smallDisk(t, 1);
    if (disk === undefined) return;
    const folder = identity(t, disk);
    const { branch, marks } = branchOf(folder);
    try {
      for (let at = 0; ; at++) writeFileSync(join(disk, `fill-${at}`), Buffer.alloc(4096));
    } catch {}
    const value = JSON.stringify({ server: 'dm.next', code: 'c', ca: 'x'.repeat(8192), url: 'mqtts://next' });
    assert.throws(() => branch.exec(['Transfer'], { format: 'chr', value }, undefined, 'dm.example'), {
      code: 'storage',
    });
    branch.exec(['Decommission'], none, undefined, 'dm.example');
    assert.equal(marks.state, 'leaving');
    marks.tell();
    assert.throws(() => marks.end('code'), { code: 'storage' });
    assert.equal(marks.state, 'told');
    for (const name of readdirSync(disk)) if (name.startsWith('fill-')) rmSync(join(disk, name));
    marks.end('code');
    assert.deepEqual(readdirSync(folder), ['left']);
  });

  test('a power cut at any file of the next identity leads to that identity', (t) => {
    const names = ['owner.json', 'ca.pem', 'gateway.pub', 'gateway.key', 'gateway.crt', 'enrolled.json'];
    for (let moved = 0; moved <= names.length; moved++) {
      const folder = identity(t);
      mkdirSync(join(folder, 'next'));
      for (const name of [...names, 'claim.key', 'order.json'])
        writeFileSync(join(folder, 'next', name), `new ${name}`);
      const marks = new DepartureMarks(folder);
      marks.leave(true);
      marks.tell();
      for (const name of names.slice(0, moved)) renameSync(join(folder, 'next', name), join(folder, name));
      const copy = `${folder}-copy`;
      cpSync(folder, copy, { recursive: true });
      t.after(() => rmSync(copy, { recursive: true, force: true }));
      const again = new DepartureMarks(copy);
      again.takeNext();
      assert.equal(again.state, 'told');
      assert.ok(again.isTransfer);
      again.arrive();
      assert.deepEqual(readdirSync(copy).toSorted(), names.toSorted(), `after ${moved} files`);
      for (const name of names) assert.equal(readFileSync(join(copy, name), 'utf8'), `new ${name}`);
    }
  });

  test('a power cut at any point of the write of a transfer order leaves the board as it was, and nothing of the order', async (t) => {
    const order = { server: 'dm.next', code: 'c', ca: 'CA', cert: 'CERT', key: 'KEY', keep: true };
    const [whole, before] = [identity(t), identity(t)];
    stageTransfer(order, join(whole, 'next'), new IdentityFiles());
    const written = ['ca.pem', 'claim.pem', 'claim.key', 'owner.json', 'order.json'];
    assert.deepEqual(readdirSync(join(whole, 'next.new')).toSorted(), written.toSorted());
    // Each file appears as `.new`, empty, half and whole, before it gets its name. With the last point all files are there.
    for (let point = 0; point <= written.length * 3; point++) {
      const folder = identity(t);
      const part = join(folder, 'next.new');
      mkdirSync(part);
      const done = Math.floor(point / 3);
      for (const name of written.slice(0, done)) cpSync(join(whole, 'next.new', name), join(part, name));
      const current = written[done];
      if (current !== undefined) {
        const content = readFileSync(join(whole, 'next.new', current));
        const bytes = Math.floor((content.length * (point % 3)) / 2);
        writeFileSync(join(part, `${current}.new`), content.subarray(0, bytes));
      }
      const told: string[] = [];
      new BoardIdentity(folder).mend((file) => told.push(file));
      assert.ok(!existsSync(part), `point ${point}`);
      const { ownership, marks, events } = branchOf(folder);
      ownership.start();
      await turn();
      assert.deepEqual([marks.state, existsSync(marks.next), events.all], [undefined, false, []]);
      // The owner repeats an order whose answer did not come.
      ownership.order('Transfer', JSON.stringify(order)).begin();
      assert.deepEqual(readdirSync(marks.next).toSorted(), written.toSorted());
      ownership.stop();
    }
    // When the folder has its name, the order is there to stay.
    renameSync(join(whole, 'next.new'), join(whole, 'next'));
    new BoardIdentity(whole).mend(() => {});
    assert.deepEqual(readdirSync(join(whole, 'next')).toSorted(), written.toSorted());
    // The same holds for each other file of the identity.
    for (const name of ['gateway.key.new', 'enrolled.json.new', 'left.new', 'gateway.crt.next.new'])
      writeFileSync(join(before, name), 'half a sec');
    const names = readdirSync(before).filter((name) => !name.endsWith('.new'));
    new BoardIdentity(before).mend(() => {});
    assert.ok(!readdirSync(before).some((name) => name.endsWith('.new')));
    assert.equal(readdirSync(before).length, names.length);
  });

  test('what cannot be deleted on a read-only disk does not keep the board from its start', (t) => {
    const disk = smallDisk(t, 1);
    if (disk === undefined) return;
    mkdirSync(join(disk, 'next.new'));
    writeFileSync(join(disk, 'next.new', 'order.json'), '{}');
    const remount = (how: string) => execFileSync('mount', ['-o', `remount,${how}`, disk]);
    remount('ro');
    try {
      new BoardIdentity(disk).mend(() => {});
      assert.ok(existsSync(join(disk, 'next.new')));
    } finally {
      remount('rw');
    }
    new BoardIdentity(disk).mend(() => {});
    assert.ok(!existsSync(join(disk, 'next.new')));
  });

  test('of two transfer orders in one package the later one is stored', (t) => {
    const { ownership, marks } = branchOf(identity(t));
    const begins = ['dm.one', 'dm.two'].map((server) =>
      ownership.order('Transfer', JSON.stringify({ server, code: 'c', keep: true })),
    );
    for (const { begin } of begins) begin();
    assert.equal(storedTransfer(marks.next, marks.files)?.server, 'dm.two');
    ownership.stop();
  });

  test('a board that belongs to nobody begins anew by another code than the one it has', (t) => {
    const marks = new DepartureMarks(identity(t));
    marks.leave();
    marks.tell();
    marks.end('old');
    assert.equal(marks.state, 'left');
    assert.deepEqual([marks.beginAnew(undefined), marks.beginAnew('old')], [false, false]);
    assert.equal(marks.beginAnew('new'), true);
    assert.equal(marks.state, undefined);
  });
});

test('an order to pass a gateway on, with half of a claim, is malformed and begins nothing', () => {
  const order = { server: 'dm.next', code: 'c' };
  for (const half of [{ cert: 'PEM' }, { key: 'PEM' }, { username: 'claim' }, { password: 'secret' }])
    assert.throws(() => readTransferOrder(JSON.stringify({ ...order, ...half })), { code: 'malformed' });
  const whole = { ...order, username: 'claim', password: 'secret' };
  assert.deepEqual(readTransferOrder(JSON.stringify(whole)), { ...whole, keep: true });
});
