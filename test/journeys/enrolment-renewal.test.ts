import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { boardIdentity } from '../../src/gateway/enrolled-config.ts';
import { BoardIdentity } from '../../src/gateway/northbound/board-identity.ts';
import { certificateRequest } from '../../src/gateway/northbound/certificate-request.ts';
import { CertificateAuthority } from '../../src/headend/certificate-authority.ts';
import { LeapClock } from '../leap-clock.ts';
import { newAuthority } from '../peers/certificates.ts';
import { type Board, EnrolmentSite } from './enrolment-site.ts';

const limit = { timeout: 60_000 };
const days = 20;

const file = ({ folder }: Board, name: string) => join(folder, 'identity', name);
const daysLeft = (board: Board) => {
  const { validToDate } = new X509Certificate(readFileSync(file(board, 'gateway.crt')));
  return Math.round((validToDate.getTime() - Date.now()) / 86_400_000);
};

/** Does work again and again until told to stop. Returns how often. */
function busy(work: () => Promise<unknown>) {
  let isDone = false;
  const run = (async () => {
    let done = 0;
    for (; !isDone; done++) await work();
    return done;
  })();
  return async () => {
    isDone = true;
    return await run;
  };
}

describe('renewal of the certificate over DM', { timeout: 300_000 }, () => {
  test('a certificate with less than a third of its time is renewed; the connection changes to it, and nothing is lost', async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    assert.equal(daysLeft(board), 4);
    const gateway = site.use(await board.start());
    await board.events.until('certificate.expiring');
    const headend = await site.headend({ days });
    const stop = busy(async () => {
      const [outcome] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
      assert.equal(outcome?.status, 200);
    });
    await board.events.until('certificate.renewed');
    const connected = board.events.count('mqtt.connected');
    assert.ok(connected >= 2);
    assert.ok((await stop()) > 0);
    await site.headendEvents.until('certificate.renewed', { gateway: 'gw-1' });
    assert.equal(daysLeft(board), days);
    assert.equal(existsSync(file(board, 'gateway.crt.next')), false);
    assert.equal(gateway.status().certificate?.problem, undefined);
    assert.equal(gateway.status().uplink.connected, true);
    const [record] = headend.enrolment?.list(1) ?? [];
    assert.equal(record?.chain, readFileSync(file(board, 'gateway.crt'), 'utf8'));
    assert.equal(site.headendEvents.count('gateway.cloned'), 0);
  });

  test('an authority that the broker does not trust: the certificate before stays in use, and both sides say so', async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    const before = readFileSync(file(board, 'gateway.crt'), 'utf8');
    const gateway = site.use(await board.start());
    const foreign = newAuthority(mkdtempSync(join(site.folder, 'foreign-')));
    const headend = await site.headend({ days, ...foreign });
    await board.events.until('mqtt.disconnected');
    // The delays between attempts pass at once.
    while (board.events.count('certificate.refused') === 0) await board.leap(1000);
    await board.events.until('certificate.refused');
    assert.equal(readFileSync(file(board, 'gateway.crt'), 'utf8'), before);
    assert.ok(existsSync(file(board, 'gateway.crt.refused')));
    assert.match(gateway.status().certificate?.problem ?? '', /did not take the new certificate/);
    const [outcome] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwCertificate/Problem' }]);
    assert.match(String(outcome?.results[0]?.data), /did not take/);
  });

  test('the gateway restarts before it could try the new certificate, which is then tried first', async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    const authority = new CertificateAuthority(site.authority, {
      clock: new LeapClock(),
      entropy: systemEntropy,
    });
    const identity = boardIdentity(board.tables as never);
    const { publicKey } = await authority.check(certificateRequest(identity.key(), 'gw-1'));
    identity.storeNext((await authority.issue('gw-1', publicKey, days)).chain, 'gw-1');
    site.use(await board.start());
    await board.events.until('certificate.renewed');
    assert.equal(daysLeft(board), days);
  });

  for (const attempts of [3, 4])
    test(`a broker that is away for ${attempts} attempts with a new certificate has not refused it`, async () => {
      await using site = await EnrolmentSite.open();
      const board = await site.lateBoard();
      const identity = boardIdentity(board.tables as never);
      const authority = new CertificateAuthority(site.authority, {
        clock: new LeapClock(),
        entropy: systemEntropy,
      });
      const { publicKey } = await authority.check(certificateRequest(identity.key(), 'gw-1'));
      identity.storeNext((await authority.issue('gw-1', publicKey, days)).chain, 'gw-1');
      await site.broker.stop();
      let tried = 0;
      const balancer = createServer((socket) => {
        tried++;
        socket.on('error', () => {}).destroy();
      });
      await once(balancer.listen(Number(new URL(site.broker.url).port), '127.0.0.1'), 'listening');
      const running = board.start();
      while (tried < attempts) await board.leap(1000);
      balancer.close();
      await once(balancer, 'close');
      await site.broker.restart();
      while (
        (['certificate.renewed', 'certificate.refused'] as const).every(
          (name) => board.events.count(name) === 0,
        )
      )
        await board.leap(1000);
      site.use(await running);
      assert.equal(board.events.count('certificate.refused'), 0);
      assert.equal(daysLeft(board), days);
    });

  test('what is no certificate for this key and name is refused with 400, also inside an Atomic, and nothing changes', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ days, allow: [{ gateway: 'gw-1' }] });
    const board = site.board('gw-1');
    await board.enrol();
    site.use(await board.start());
    const before = readFileSync(file(board, 'gateway.crt'), 'utf8');
    const authority = new CertificateAuthority(site.authority, {
      clock: new LeapClock(),
      entropy: systemEntropy,
    });
    const identity = boardIdentity(board.tables as never);
    const stranger = new BoardIdentity(mkdtempSync(join(site.folder, 'stranger-')));
    const forKey = async (one: BoardIdentity, name: string, length: number) => {
      const { publicKey } = await authority.check(certificateRequest(one.key(), name));
      return (await authority.issue(name, publicKey, length)).chain;
    };
    const wrong = {
      'no certificate': 'x',
      nothing: '',
      'another key': await forKey(stranger, 'gw-1', days),
      'another name': await forKey(identity, 'gw-2', days),
      'an earlier end': await forKey(identity, 'gw-1', 1),
    };
    for (const [what, data] of Object.entries(wrong)) {
      const replace = { name: 'Replace', uri: './GwCertificate/Chain', format: 'chr', data } as const;
      const [outcome] = await headend.manage('gw-1', [replace]);
      assert.equal(outcome?.status, 400, what);
    }
    const right = {
      name: 'Replace',
      uri: './GwCertificate/Chain',
      data: await forKey(identity, 'gw-1', days),
    } as const;
    const fails = { name: 'Delete', uri: './GwCertificate/Chain' } as const;
    const [atomic] = await headend.manage('gw-1', [{ name: 'Atomic', operations: [right, fails] }]);
    assert.notEqual(atomic?.status, 200);
    assert.equal(readFileSync(file(board, 'gateway.crt'), 'utf8'), before);
    assert.equal(existsSync(file(board, 'gateway.crt.next')), false);
    assert.equal(board.events.count('certificate.renewed'), 0);
  });

  test('the disk of the gateway does not take the certificate: the head-end says so, and the next attempt succeeds', async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    site.use(await board.start());
    // A folder in the place of the file, so that no user can write it.
    mkdirSync(file(board, 'gateway.crt.next.new'));
    const clock = new LeapClock();
    await site.headend({ days }, {}, clock);
    await site.headendEvents.until('certificate.renewal-failed', { gateway: 'gw-1' });
    assert.equal(daysLeft(board), 4);
    rmSync(file(board, 'gateway.crt.next.new'), { recursive: true });
    await clock.leap(3_600_000);
    await board.events.until('certificate.renewed');
    assert.equal(daysLeft(board), days);
  });

  test('a gateway that is away is named each day, long before its certificate ends; it is renewed when it comes back', async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    const clock = new LeapClock();
    const headend = await site.headend({ days }, {}, clock);
    await clock.leap(3_600_000);
    const { fields } = await site.headendEvents.until('certificate.renewal-failed', {
      reason: 'the gateway is offline',
    });
    assert.ok(Date.parse(String(fields.expires)) > Date.now() + 3 * 86_400_000);
    for (let hour = 0; hour < 25; hour++) await clock.leap(3_600_000);
    assert.equal(site.headendEvents.count('certificate.renewal-failed'), 2);
    // Its clock is a day ahead of that of the broker by now.
    await headend[Symbol.asyncDispose]();
    await site.headend({ days });
    site.use(await board.start());
    await board.events.until('certificate.renewed');
  });

  test('the clock of the board shows 1970: nothing is said of the end, and the certificate is renewed all the same', async () => {
    await using site = await EnrolmentSite.open();
    const late = await site.lateBoard();
    const clock = new LeapClock();
    clock.moveWall(-Date.now());
    const board = site.board('gw-1', {}, late.folder, clock);
    const gateway = site.use(await board.start());
    const { fields } = await board.events.until('certificate.clock-behind');
    assert.match(String(fields.reason), /1970-01-01/);
    assert.equal(board.events.count('certificate.expiring') + board.events.count('certificate.expired'), 0);
    await site.headend({ days });
    await board.events.until('certificate.renewed');
    assert.ok(gateway.status().uplink.connected);
    // A time server sets the clock: an hour later nothing is behind any more.
    clock.moveWall(Date.now());
    await clock.leap(3_600_000);
    assert.equal(gateway.status().certificate?.problem, undefined);
  });
});

test('a certificate that has ended is an error in log and status', limit, async () => {
  await using site = await EnrolmentSite.open();
  const late = await site.lateBoard();
  const clock = new LeapClock();
  const board = site.board('gw-1', {}, late.folder, clock);
  const gateway = site.use(await board.start());
  clock.moveWall(5 * 86_400_000);
  await clock.leap(3_600_000);
  await board.events.until('certificate.expired');
  assert.match(gateway.status().certificate?.problem ?? '', /has ended/);
});

test(
  'a gateway that was off until its certificate ended asks by its claim at its start; without a head-end it starts all the same',
  limit,
  async () => {
    await using site = await EnrolmentSite.open();
    const late = await site.lateBoard();
    const clock = new LeapClock();
    clock.moveWall(5 * 86_400_000);
    const board = site.board('gw-1', {}, late.folder, clock);
    const alone = board.enrol();
    await board.events.until('mqtt.connected');
    await board.leap(60_000);
    assert.equal(await alone, false);
    const [claim, name] = [site.claim.cert, `${site.claim.cert}.away`];
    renameSync(claim, name);
    assert.equal(await board.enrol(), false, 'without its claim certificate it starts as well');
    await board.events.until('enrolment.failed');
    renameSync(name, claim);
    const account = board.content('enrolled.json');
    const headend = await site.headend({ days });
    assert.equal(await board.enrol(), true);
    assert.equal(daysLeft(board), days);
    assert.equal(board.content('enrolled.json'), account, 'the account stays');
    assert.equal(await board.enrol(), false);
    assert.equal(headend.enrolment?.list(10).length, 1);
  },
);
