import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { demandEnrolled } from '../../src/gateway/enrolled-config.ts';
import { EnrolmentSite } from './enrolment-site.ts';

const limit = { timeout: 300_000 };

describe('enrolment over a real broker with TLS', limit, () => {
  test('a board of the list is enrolled, starts, and has a session with its DM server', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ allow: [{ gateway: 'gw-1', serial: 'SN-1' }] });
    const board = site.board('gw-1', { serial: 'SN-1' });
    assert.equal(await board.enrol(), true);
    const identity = join(board.folder, 'identity');
    for (const file of readdirSync(identity))
      assert.equal(statSync(join(identity, file)).mode & 0o777, 0o600, file);
    const issued = new X509Certificate(readFileSync(join(identity, 'gateway.crt')));
    assert.equal(issued.subject, 'CN=gw-1');
    assert.equal(await board.enrol(), false, 'it does not ask again');
    const gateway = site.use(await board.start());
    assert.equal(gateway.status().uplink.connected, true);
    await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    const [outcome] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(outcome?.status, 200);
    const [listed] = headend.enrolment?.list(10) ?? [];
    assert.deepEqual([listed?.state, listed?.by, listed?.serial], ['issued', 'list', 'SN-1']);
  });

  test('a board beyond the list waits; an operator approves it, and it hears at once', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ allow: [{ gateway: 'gw-9', serial: 'SN-9' }] });
    const board = site.board('gw-9', { serial: 'SN-8' });
    const enrolled = board.enrol();
    await board.events.until('enrolment.waiting');
    const [waiting] = headend.enrolment?.list(10) ?? [];
    assert.deepEqual([waiting?.gateway, waiting?.state], ['gw-9', 'waiting']);
    await headend.enrolment?.approve(waiting?.key ?? '', 'gw-9');
    assert.equal(await enrolled, true);
    assert.equal(headend.enrolment?.list(10)[0]?.by, 'hand');
    await assert.rejects(headend.enrolment!.approve(waiting!.key, 'gw-9'), { code: 'conflict' });
  });

  test('a refused board is told why; it may be approved later', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend();
    const board = site.board('gw-1');
    const enrolled = board.enrol();
    await board.events.until('enrolment.waiting');
    const { key } = headend.enrolment!.list(10)[0]!;
    await headend.enrolment!.refuse(key, 'not ours');
    await board.events.until('enrolment.refused', { reason: 'not ours' });
    await headend.enrolment!.approve(key, 'gw-1');
    await enrolled;
  });

  test('a policy approves by pattern up to its rate; the board beyond it waits', async () => {
    await using site = await EnrolmentSite.open();
    await site.headend({ policy: [{ gateway: 'site-*', claim: 'claim', rate: 2 }] });
    for (const name of ['site-1', 'site-2']) await site.board(name).enrol();
    const stop = new AbortController();
    const third = site.board('site-3');
    const other = site.board('gw-1');
    const asking = [third, other].map((board) => board.enrol(stop.signal));
    await third.events.until('enrolment.waiting');
    await other.events.until('enrolment.waiting');
    stop.abort();
    for (const one of await Promise.allSettled(asking)) assert.equal(one.status, 'rejected');
  });

  test('a board with a code and a user name is enrolled; a second board with this code is not, and both sides say so', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend();
    const { code } = headend.enrolment!.makeCode(1);
    const stop = new AbortController();
    const boards = ['gw-1', 'gw-2'].map((name) => site.board(name, { code }));
    const outcomes = boards.map((board) => board.enrol(stop.signal));
    const winner = await Promise.race(outcomes.map(async (one, at) => ((await one) ? at : -1)));
    const loser = boards[1 - winner]!;
    await loser.events.until('enrolment.refused', { reason: 'another board has used the code' });
    await site.headendEvents.until('enrolment.code-used', { gateway: `gw-${2 - winner}` });
    stop.abort();
    assert.equal(
      (await Promise.allSettled(outcomes)).filter(({ status }) => status === 'fulfilled').length,
      1,
    );
    assert.equal(headend.enrolment!.list(10).filter(({ state }) => state === 'issued').length, 1);
  });

  test('a code for a name gives it to a new board; the account of the board before is void', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ policy: [{ gateway: '*', rate: 10 }] });
    await site.board('gw-1').enrol();
    const stop = new AbortController();
    const stranger = site.board('gw-1');
    const waiting = stranger.enrol(stop.signal);
    await stranger.events.until('enrolment.waiting', { reason: 'another board is enrolled as gw-1' });
    stop.abort();
    await assert.rejects(waiting);
    const open = site.board('gw-1', { code: headend.enrolment!.makeCode(1).code });
    const stopOpen = new AbortController();
    const refused = open.enrol(stopOpen.signal);
    await open.events.until('enrolment.refused');
    stopOpen.abort();
    await assert.rejects(refused);
    const { code } = headend.enrolment!.makeCode(1, 'gw-1');
    const other = site.board('gw-2', { code });
    const stopOther = new AbortController();
    const wrong = other.enrol(stopOther.signal);
    await other.events.until('enrolment.refused', { reason: 'the code is for another gateway' });
    stopOther.abort();
    await assert.rejects(wrong);
    const replacement = site.board('gw-1', { code });
    assert.equal(await replacement.enrol(), true);
    const states = headend.enrolment!.list(10).map(({ state }) => state);
    assert.deepEqual(states.toSorted(), ['issued', 'replaced', 'waiting']);
    const gateway = site.use(await replacement.start());
    assert.ok(gateway);
    const [outcome] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(outcome?.status, 200);
  });

  test('a gateway with an account in the configuration gets a certificate by hand alone, and keeps this account', async () => {
    await using site = await EnrolmentSite.open();
    const account = { 'client-secret': 'client-secret-of-gw-1', 'server-secret': 'server-secret-of-gw-1' };
    const headend = await site.headend(
      { policy: [{ gateway: '*', rate: 10 }] },
      { gateway: [{ id: 'gw-1', ...account }] },
    );
    const board = site.board('gw-1');
    const enrolled = board.enrol();
    await board.events.until('enrolment.waiting', { reason: 'gw-1 has an account in the configuration' });
    await headend.enrolment!.approve(headend.enrolment!.list(1)[0]!.key, 'gw-1');
    await enrolled;
    assert.equal(board.config['dm-server']['client-secret'], account['client-secret']);
  });

  for (const name of ['dm.example', 'claim'])
    test(`nobody gets the name ${name}, which means more at the broker`, async () => {
      await using site = await EnrolmentSite.open();
      const headend = await site.headend({ policy: [{ gateway: '*', rate: 10 }] });
      const stop = new AbortController();
      const board = site.board(name);
      const enrolled = board.enrol(stop.signal);
      await board.events.until('enrolment.refused', { reason: `the name ${name} is reserved` });
      stop.abort();
      await assert.rejects(enrolled);
      assert.deepEqual(headend.enrolment!.list(10), []);
    });
});

describe('enrolment that is interrupted', limit, () => {
  test('the power is cut after the key was written: the same key asks, and there is one record', async () => {
    await using site = await EnrolmentSite.open();
    const board = site.board('gw-1');
    const stop = new AbortController();
    const first = board.enrol(stop.signal);
    await board.events.until('mqtt.connected');
    stop.abort();
    await assert.rejects(first);
    const key = readFileSync(join(board.folder, 'identity/gateway.key'));
    const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
    const again = site.board('gw-1', {}, board.folder);
    await again.enrol();
    assert.deepEqual(readFileSync(join(board.folder, 'identity/gateway.key')), key);
    assert.equal(headend.enrolment!.list(10).length, 1);
  });

  test('the power is cut between certificate and account: it asks again, and gets the same ones', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
    const board = site.board('gw-1');
    await board.enrol();
    const files = ['gateway.crt', 'enrolled.json'].map((name) => join(board.folder, 'identity', name));
    const contents = () => ['gateway.crt', 'enrolled.json'].map((name) => board.content(name));
    const before = contents();
    for (const file of files) {
      rmSync(files[1]!);
      if (file !== files[1]) rmSync(file);
      assert.equal(await board.enrol(), true);
      assert.deepEqual(contents(), before);
    }
    assert.equal(headend.enrolment!.list(10).length, 1);
  });

  test('the head-end restarts between approval and answer: the board gets what was approved', async () => {
    await using site = await EnrolmentSite.open();
    const first = await site.headend();
    const board = site.board('gw-1');
    const stop = new AbortController();
    const enrolled = board.enrol(stop.signal);
    await board.events.until('enrolment.waiting');
    stop.abort();
    await assert.rejects(enrolled);
    // The board is away, so the answer of the approval is lost.
    const approved = await first.enrolment!.approve(first.enrolment!.list(1)[0]!.key, 'gw-1');
    await first[Symbol.asyncDispose]();
    const second = await site.headend();
    const again = site.board('gw-1', {}, board.folder);
    assert.equal(await again.enrol(), true);
    const [record] = second.enrolment!.list(10);
    assert.deepEqual([record?.key, record?.chain, record?.by], [approved.key, approved.chain, 'hand']);
    site.use(await again.start());
    await second.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
  });

  test('no head-end is there at first, and its first answers are lost: the board asks until it is enrolled', async () => {
    await using site = await EnrolmentSite.open();
    const board = site.board('gw-1');
    const enrolled = board.enrol();
    await board.events.until('mqtt.connected');
    await site.headend({ allow: [{ gateway: 'gw-1' }] });
    // mosquitto kept nothing of the request: nobody was subscribed.
    await board.leap(600_000);
    await enrolled;
  });

  test('the broker restarts while the board waits', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend();
    const board = site.board('gw-1');
    const enrolled = board.enrol();
    await board.events.until('enrolment.waiting');
    const lost = board.events.next('mqtt.disconnected');
    await site.broker.stop();
    await lost;
    await headend.enrolment!.approve(headend.enrolment!.list(1)[0]!.key, 'gw-1');
    await site.broker.restart();
    await site.reconnected();
    await board.leap(600_000);
    await enrolled;
  });

  test('the disk does not take the certificate: this is said, and the next answer is stored', async () => {
    await using site = await EnrolmentSite.open();
    await site.headend({ allow: [{ gateway: 'gw-1' }] });
    const board = site.board('gw-1');
    // A folder in the place of the file that is written first, so that no user can write it.
    mkdirSync(join(board.folder, 'identity/gateway.crt.new'), { recursive: true });
    const enrolled = board.enrol();
    await board.events.until('enrolment.failed');
    assert.equal(existsSync(join(board.folder, 'identity/enrolled.json')), false);
    rmSync(join(board.folder, 'identity/gateway.crt.new'), { recursive: true });
    await board.leap(600_000);
    await enrolled;
  });

  for (const [name, damage] of [
    ['enrolled.json', ''],
    ['enrolled.json', '{"gateway": "gw-1"'],
    ['gateway.crt', Buffer.alloc(900, 0xff)],
    ['gateway.crt', 'lost'],
    ['gateway.crt.next', 'x'],
    ['gateway.key', ''],
    ['gateway.key', 'lost'],
  ] as const)
    test(`a board whose ${name} is ${damage === 'lost' ? 'lost' : 'damaged'} (${damage.length}) is enrolled again`, async () => {
      await using site = await EnrolmentSite.open();
      const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
      const board = site.board('gw-1');
      await board.enrol();
      const file = join(board.folder, 'identity', name);
      const account = board.content('enrolled.json');
      if (damage === 'lost') rmSync(file);
      else writeFileSync(file, damage);
      const again = site.board('gw-1', {}, board.folder);
      const enrolling = again.enrol();
      if (name === 'gateway.key') {
        const { fields } = await site.headendEvents.until('enrolment.requested');
        assert.match(fields.reason as string, /another board is enrolled as gw-1/);
        await headend.enrolment!.approve(String(fields.key), 'gw-1');
      }
      assert.equal(await enrolling, name !== 'gateway.crt.next');
      const told = again.events.all.filter((event) => event.name === 'enrolment.file-damaged');
      assert.deepEqual(
        told.map(({ fields }) => fields),
        damage === 'lost' ? [] : [{ file, aside: `${file}.corrupt-1` }],
      );
      if (damage !== 'lost') assert.deepEqual(readFileSync(`${file}.corrupt-1`), Buffer.from(damage));
      const after = again.content('enrolled.json');
      if (name !== 'gateway.key') assert.equal(after, account, 'the account stays');
      site.use(await again.start());
    });

  test('a file that cannot be read at all stays, and says so; a gateway that runs takes no configuration without its account', async () => {
    await using site = await EnrolmentSite.open();
    await site.headend({ allow: [{ gateway: 'gw-1' }] });
    const board = site.board('gw-1');
    await board.enrol();
    const file = join(board.folder, 'identity/enrolled.json');
    demandEnrolled(board.config);
    rmSync(file);
    assert.throws(() => demandEnrolled(board.config), {
      code: 'configuration',
      message: /a restart enrols/,
    });
    mkdirSync(file);
    assert.throws(() => board.config, { code: 'configuration', message: /enrolled.json is a folder/ });
  });

  test('a gateway that lost its certificate while it runs says so, and takes another one', async () => {
    await using site = await EnrolmentSite.open();
    const late = await site.lateBoard();
    const gateway = site.use(await late.start());
    rmSync(join(late.folder, 'identity/gateway.crt'));
    assert.match(gateway.status().certificate?.problem ?? '', /certificate is lost/);
    await site.headend({ days: 20 });
    await late.events.until('certificate.renewed');
    assert.equal(gateway.status().certificate?.problem, undefined);
  });
});
