import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Sealing } from '../../src/base/sealing.ts';
import { keyId } from '../../src/gateway/northbound/board-identity.ts';
import { certificateRequest } from '../../src/gateway/northbound/certificate-request.ts';
import { CertificateAuthority } from '../../src/headend/certificate-authority.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { codeLimit, EnrolmentCodes } from '../../src/headend/enrolment-codes.ts';
import { EnrolmentDesk } from '../../src/headend/enrolment-desk.ts';
import { EnrolmentRecords, enrolmentLimits } from '../../src/headend/enrolment-records.ts';
import { Parties } from '../../src/headend/parties.ts';
import { Renewals } from '../../src/headend/renewals.ts';
import { Replacements } from '../../src/headend/replacements.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import {
  decodeEnrolmentGrant,
  type EnrolmentAnswer,
  type EnrolmentRequest,
  encodeEnrolmentRequest,
  grantInfo,
} from '../../src/wire/tunnel/enrolment-message.ts';
import { openSealed } from '../../src/wire/tunnel/hpke.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { newAuthority } from '../peers/certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-desk-'));
after(() => rmSync(folder, { recursive: true }));
const files = newAuthority(folder);

/** A clock that shows the time of the machine and changes by hand only. */
class WallClock extends HandClock {
  readonly #start = Date.now();

  override wall() {
    return (this.#start + this.now()) as ReturnType<HandClock['wall']>;
  }
}

function desk(settings: object = {}, state = ':memory:', sealingKey = Buffer.alloc(32, 1)) {
  const clock = new WallClock();
  const events = new EventRecorder();
  const database = openDatabase(state, headendSchema);
  const base = { database, clock, entropy: systemEntropy, events };
  const device = { id: 'urn:dev:1', 'client-secret': 'x', 'server-secret': 'y' };
  const parties = new Parties({ gateway: [], device: [device] } as never, database);
  const records = new EnrolmentRecords({ ...base, sealing: new Sealing(sealingKey, systemEntropy) });
  const codes = new EnrolmentCodes(base);
  const replacements = new Replacements({ ...base, records });
  const replaced: string[] = [];
  const returned: string[] = [];
  const made = new EnrolmentDesk({
    ...base,
    serverId: 'dm.example',
    reserved: ['dm.example'],
    settings: { ...files, days: 20, claims: ['claim'], allow: [], policy: [], ...settings },
    authority: new CertificateAuthority(files, base),
    records,
    codes,
    replacements,
    replaced: (gateway) => replaced.push(gateway),
    returned: (gateway) => returned.push(gateway),
    parties,
  });
  return { desk: made, clock, events, codes, records, parties, database, replacements, replaced, returned };
}

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

/** Asks as a board does. */
async function ask(
  { desk: at }: ReturnType<typeof desk>,
  name: string,
  key = newKey(),
  more: Partial<EnrolmentRequest> = {},
  claim = 'claim',
) {
  const payload = encodeEnrolmentRequest({ request: certificateRequest(key, name), ...more });
  return await at.answer(claim, keyId(key), payload);
}

const reasonOf = (answer: EnrolmentAnswer | undefined) =>
  answer === undefined || answer.state === 'granted' ? undefined : answer.reason;

test('a grant opens with the key of the board alone, and is the same account each time', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const key = newKey();
  const grants = [await ask(rig, 'gw-1', key), await ask(rig, 'gw-1', key)].map((answer) => {
    assert.ok(answer?.state === 'granted');
    assert.throws(() => openSealed(newKey(), grantInfo, answer.sealed), { code: 'malformed' });
    return decodeEnrolmentGrant(openSealed(key, grantInfo, answer.sealed));
  });
  assert.deepEqual(grants[0], grants[1]);
  const [grant] = grants;
  assert.ok(grant);
  assert.ok(grant.clientSecret.length >= 32 && grant.clientSecret !== grant.serverSecret);
  assert.deepEqual(grant.topics, { state: 'dm/gw-1/state', up: 'dm/gw-1/up', down: 'dm/gw-1/down' });
  assert.equal(rig.parties.get('gw-1')?.clientSecret, grant.clientSecret);
  assert.equal(rig.records.latest(10).length, 1);
});

test('wrong codes are counted for a key and for all of a claim; a code that expired or was used is no guess', async () => {
  const rig = desk();
  const key = newKey();
  for (let wrong = 0; wrong < 5; wrong++)
    assert.equal(reasonOf(await ask(rig, 'gw-1', key, { code: `wrong-${wrong}` })), 'the code is wrong');
  const { code } = rig.codes.make(1);
  assert.match(reasonOf(await ask(rig, 'gw-1', key, { code })) ?? '', /too many wrong codes/);
  assert.equal(
    (await ask(rig, 'gw-1', newKey(), { code }))?.state,
    'granted',
    'another board is not shut out',
  );
  rig.clock.advance(700_000);
  assert.match(reasonOf(await ask(rig, 'gw-2', key, { code })) ?? '', /another board has used the code/);
  const late = rig.codes.make(1);
  rig.clock.advance(3_700_000);
  assert.equal(reasonOf(await ask(rig, 'gw-3', key, { code: late.code })), 'the code has expired');
  // All guesses of a claim together.
  let tried = 0;
  for (; tried < 1000; tried++) {
    rig.clock.advance(50);
    const reason = reasonOf(await ask(rig, 'gw-9', newKey(), { code: `guess-${tried}` }));
    if (reason !== 'the code is wrong') break;
  }
  assert.ok(tried >= 100 && tried <= 110, `${tried} guesses`);
  assert.deepEqual(
    rig.database.prepare('SELECT count(*) AS n FROM enrolment_code WHERE hash = ?').get(code)?.n,
    0,
    'only hashes are stored',
  );
});

test('codes have a bound: those that have expired give way', () => {
  const { codes, clock } = desk();
  for (let made = 0; made < codeLimit; made++) codes.make(1);
  assert.throws(() => codes.make(1), { code: 'full' });
  clock.advance(3_700_000);
  assert.equal(codes.make(1).code.length, 22);
});

test('requests beyond the rate of a key or a claim get no answer', async () => {
  const rig = desk();
  const key = newKey();
  for (let at = 0; at < 10; at++) assert.equal((await ask(rig, 'gw-1', key))?.state, 'waiting');
  assert.equal(await ask(rig, 'gw-1', key), undefined);
  rig.clock.advance(5000);
  assert.equal((await ask(rig, 'gw-1', key))?.state, 'waiting');
  let answered = 0;
  while ((await rig.desk.answer('other', `key-${answered}`, Buffer.from('x'))) !== undefined) answered++;
  assert.equal(answered, 200);
  assert.equal((await ask(rig, 'gw-2'))?.state, 'waiting', 'another claim has its own rate');
});

test('requests that wait have a bound of a claim and in all; another claim may still ask', async () => {
  const rig = desk();
  const insert = (count: number, claim: string) =>
    rig.database.transaction(() => {
      for (let at = 0; at < count; at++)
        rig.records.ask(
          { key: `${claim} ${at}`, gateway: `g-${at}`, claim, publicKey: new Uint8Array(1) },
          'waits',
        );
    });
  insert(enrolmentLimits.waitingOfClaim, 'claim');
  assert.match(reasonOf(await ask(rig, 'gw-1')) ?? '', /too many requests wait/);
  assert.equal((await ask(rig, 'gw-1', newKey(), {}, 'claim-2'))?.state, 'waiting');
  for (const claim of ['claim-3', 'claim-4']) insert(enrolmentLimits.waitingOfClaim, claim);
  insert(enrolmentLimits.waitingOfClaim - 1, 'claim-2');
  assert.match(reasonOf(await ask(rig, 'gw-1', newKey(), {}, 'claim-5')) ?? '', /too many requests wait/);
});

test('a request for another key, another name than its key has, a device, or garbage is refused; one for another server is left alone', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const [key, other] = [newKey(), newKey()];
  const stolen = encodeEnrolmentRequest({ request: certificateRequest(key, 'gw-1') });
  assert.match(reasonOf(await rig.desk.answer('claim', keyId(other), stolen)) ?? '', /another key/);
  assert.equal((await ask(rig, 'gw-1', key))?.state, 'granted');
  assert.equal(reasonOf(await ask(rig, 'gw-2', key)), 'this key is that of gw-1');
  assert.match(reasonOf(await ask(rig, 'urn:dev:1', other)) ?? '', /is a device/);
  assert.equal((await rig.desk.answer('claim', 'x', Buffer.from('garbage')))?.state, 'refused');
  assert.equal(await ask(rig, 'gw-5', newKey(), { server: 'dm.other' }), undefined);
  assert.equal(rig.events.count('enrolment.request-refused'), 4);
});

test('two boards that ask for one listed name at once: one gets it, the other waits', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const answers = await Promise.all([ask(rig, 'gw-1'), ask(rig, 'gw-1')]);
  assert.deepEqual(answers.map((one) => one?.state).toSorted(), ['granted', 'waiting']);
});

test('without the sealing key of before the account is not given, and this is said; the board is not taken for another one', async () => {
  const file = join(folder, 'sealed.db');
  const first = desk({ allow: [{ gateway: 'gw-1' }] }, file);
  const key = newKey();
  assert.equal((await ask(first, 'gw-1', key))?.state, 'granted');
  await first.database.close();
  const second = desk({}, file, Buffer.alloc(32, 2));
  await second.events.until('enrolment.failed', { gateway: 'gw-1' });
  assert.match(reasonOf(await ask(second, 'gw-1', key)) ?? '', /cannot be opened by the sealing key/);
  await second.database.close();
  const third = desk({}, file);
  assert.equal((await ask(third, 'gw-1', key))?.state, 'granted');
  await third.database.close();
});

test('a certificate with less than half of its time is issued again when the board asks', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const key = newKey();
  await ask(rig, 'gw-1', key);
  const before = rig.records.holder('gw-1')?.chain;
  await ask(rig, 'gw-1', key);
  assert.equal(rig.records.holder('gw-1')?.chain, before);
  rig.clock.advance(12 * 86_400_000);
  assert.equal((await ask(rig, 'gw-1', key))?.state, 'granted');
  assert.notEqual(rig.records.holder('gw-1')?.chain, before);
});

test('by an order to replace a board the first one that fits gets its name, once; the board before is void and reported', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const [first, second, third] = [newKey(), newKey(), newKey()];
  assert.throws(() => rig.replacements.order('gw-1', 1), { code: 'notFound' }, 'nobody has the name yet');
  await ask(rig, 'gw-1', first);
  const secret = rig.parties.get('gw-1')?.clientSecret;
  rig.replacements.order('gw-1', 1, 'SN-2');
  assert.equal((await ask(rig, 'gw-1', second, { serial: 'SN-1' }))?.state, 'waiting');
  rig.clock.advance(3_700_000);
  assert.equal((await ask(rig, 'gw-1', third, { serial: 'SN-2' }))?.state, 'waiting', 'the order has ended');
  rig.replacements.order('gw-1', 1);
  rig.replacements.cancel('gw-1');
  assert.throws(() => rig.replacements.cancel('gw-1'), { code: 'notFound' });
  assert.equal((await ask(rig, 'gw-1', second))?.state, 'waiting', 'the order was taken back');
  rig.replacements.order('gw-1', 1);
  const answers = await Promise.all([second, third].map((key) => ask(rig, 'gw-1', key)));
  assert.deepEqual(answers.map((one) => one?.state).toSorted(), ['granted', 'waiting'], 'two at once');
  assert.deepEqual([rig.records.holder('gw-1')?.by, rig.replaced], ['replacement', ['gw-1']]);
  assert.notEqual(rig.parties.get('gw-1')?.clientSecret, secret);
  assert.match(reasonOf(await ask(rig, 'gw-1', first)) ?? '', /has the name now/);
  assert.deepEqual(rig.returned, ['gw-1']);
});

test('when the disk does not take a replacement, the order and the board before stay', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-1' }] });
  const [first, second] = [newKey(), newKey()];
  await ask(rig, 'gw-1', first);
  rig.replacements.order('gw-1', 1);
  rig.database
    .prepare(
      "CREATE TRIGGER full BEFORE UPDATE OF state ON enrolment WHEN new.state = 'replaced' BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .run();
  await assert.rejects(ask(rig, 'gw-1', second), /full/);
  assert.equal(rig.records.holder('gw-1')?.key, keyId(first));
  assert.deepEqual(rig.replaced, []);
  rig.database.prepare('DROP TRIGGER full').run();
  assert.equal((await ask(rig, 'gw-1', second))?.state, 'granted');
});

test('a worker of a group enrols no gateways: the other workers would not know them', () => {
  const config = {
    headend: { id: 'dm.example', group: 'workers' },
    mqtt: { url: 'mqtt://127.0.0.1:1' },
    enrolment: files,
  };
  assert.throws(() => checkConfig(headendConfigSchema, config, 'test'), /headend\.group exclude each other/);
});

test('a board whose end comes while its certificate is made gets no certificate, and stays gone', async () => {
  const at = desk({ allow: [{ gateway: 'gw-1' }] });
  const key = newKey();
  const asked = ask(at, 'gw-1', key);
  await at.events.until('enrolment.approved');
  at.records.leave('gw-1', 'decommissioned');
  at.parties.revoke('gw-1');
  const answer = await asked;
  assert.equal(answer?.state, 'refused');
  assert.deepEqual([at.records.get(keyId(key))?.state, at.records.holders()], ['gone', []]);
  assert.equal(reasonOf(await ask(at, 'gw-1', key)), 'decommissioned');
  await at.database.close();
});

for (const end of ['replaced', 'gone'] as const)
  test(`a renewal that ends after its board is ${end} does not bring the board back`, async () => {
    const at = desk({ allow: [{ gateway: 'gw-1' }] });
    const [old, next] = [newKey(), newKey()];
    await ask(at, 'gw-1', old);
    at.clock.advance(15 * 86_400_000);
    const { code } = at.codes.make(1, 'gw-1');
    const renewals = new Renewals({
      records: at.records,
      authority: new CertificateAuthority(files, { clock: at.clock, entropy: systemEntropy }),
      desk: at.desk,
      manage: async (gateway, [operation]) => {
        if (operation?.name === 'Get') {
          const data = certificateRequest(old, gateway).toString('base64');
          return [{ status: 200, results: [{ data }] }] as never;
        }
        // The session of the old board is under way.
        if (end === 'gone') at.records.leave(gateway, 'decommissioned');
        else assert.equal((await ask(at, gateway, next, { code }))?.state, 'granted');
        return [{ status: 200, results: [] }] as never;
      },
      isOnline: () => true,
      clock: at.clock,
      events: at.events,
    });
    renewals.lookSoon();
    await at.events.until('certificate.renewal-failed');
    assert.equal(at.records.get(keyId(old))?.state, end);
    const holders = at.records.holders().map(({ key }) => key);
    assert.deepEqual(holders, end === 'gone' ? [] : [keyId(next)]);
    await at.database.close();
  });

test('a board that changes its name while a person decides gets no name that the person has not seen', async () => {
  const rig = desk({ allow: [{ gateway: 'gw-old' }] });
  await ask(rig, 'gw-old');
  const key = newKey();
  const id = keyId(key);
  assert.equal((await ask(rig, 'gw-new', key))?.state, 'waiting');
  assert.equal((await ask(rig, 'gw-old', key))?.state, 'waiting');
  await assert.rejects(rig.desk.approve(id, 'gw-new'), {
    code: 'conflict',
    message: /asks for the name gw-old now/,
  });
  assert.deepEqual([rig.records.get(id)?.state, rig.replaced], ['waiting', []]);
  await rig.desk.approve(id, 'gw-old');
  assert.deepEqual(rig.replaced, ['gw-old']);
});
