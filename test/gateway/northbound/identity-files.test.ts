import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { boardIdentity, checkGatewayConfig, identityFiles } from '../../../src/gateway/enrolled-config.ts';
import { DepartureMarks } from '../../../src/gateway/northbound/departure-marks.ts';
import { stageTransfer, storedTransfer } from '../../../src/gateway/northbound/transfer-order.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { selfSigned } from '../../peers/certificates.ts';
import { smallDisk } from '../../small-disk.ts';

const secret = 'a secret of the board';
const account = { gateway: 'gw-1', server: 'dm.example', clientSecret: secret, serverSecret: secret };

/** A board that an earlier version has enrolled: all its files are in clear. */
function board(t: TestContext, more: object = {}, parent = tmpdir()) {
  const folder = mkdtempSync(join(parent, 'postern-sealed-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const identity = join(folder, 'identity');
  mkdirSync(join(identity, 'next'), { recursive: true });
  const file = (name: string) => join(identity, name);
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  selfSigned('gw-1', { key: file('gateway.key'), cert: file('gateway.crt') });
  writeFileSync(file('enrolled.json'), JSON.stringify(account));
  writeFileSync(file('next/order.json'), JSON.stringify({ server: 'dm.next', code: secret, keep: true }));
  writeFileSync(file('next/claim.key'), pem);
  const tables = {
    gateway: { id: 'gw-1', state: join(folder, 'state/state.db'), ...more },
    mqtt: { url: 'mqtts://broker.example' },
    enrolment: { folder: identity, username: 'claim' },
  };
  const events = new EventRecorder();
  const start = () => checkGatewayConfig(tables, 'gateway.toml', events);
  const names = ['gateway.key', 'enrolled.json', 'next/order.json', 'next/claim.key'];
  const inClear = () => names.filter((name) => existsSync(file(name)) && readFileSync(file(name))[0] !== 1);
  const key = join(folder, 'state/identity.key');
  const open = (name: string) => identityFiles(tables).read(file(name)).toString();
  return { folder, identity, file, tables, events, start, names, inClear, key, open };
}

/** All octets of all files in a folder and below. */
const octets = (folder: string): string =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => readFileSync(join(one.parentPath, one.name), 'latin1'))
    .join('\n');

test('what an earlier version has stored in clear is encrypted at the next start, once, and read as before', (t) => {
  const { identity, file, start, names, inClear, key, open, events } = board(t);
  const before = names.map((name) => readFileSync(file(name), 'utf8'));
  assert.equal(start()['dm-server']['client-secret'], secret);
  assert.deepEqual(inClear(), []);
  assert.ok(!octets(identity).includes(secret) && !octets(identity).includes('PRIVATE KEY'));
  assert.deepEqual(names.map(open), before);
  for (const path of [key, ...names.map(file)]) assert.equal(statSync(path).mode & 0o777, 0o600, path);
  const sealed = names.map((name) => readFileSync(file(name)));
  assert.equal(start()['dm-server']['client-secret'], secret);
  assert.deepEqual(
    names.map((name) => readFileSync(file(name))),
    sealed,
    'another start writes nothing',
  );
  assert.deepEqual(events.all, []);
});

for (const [what, disturb, mend] of [
  [
    'the key cannot be written',
    ({ folder }) => writeFileSync(join(folder, 'state'), ''),
    ({ folder }) => rmSync(join(folder, 'state')),
  ],
  [
    'a file cannot be replaced',
    ({ file }) => mkdirSync(file('enrolled.json.new')),
    ({ file }) => rmSync(file('enrolled.json.new'), { recursive: true }),
  ],
] as readonly [string, (one: ReturnType<typeof board>) => void, (one: ReturnType<typeof board>) => void][])
  test(`${what}: this is told, the gateway starts as before, and the next start encrypts`, (t) => {
    const one = board(t);
    disturb(one);
    assert.equal(one.start()['dm-server']['server-secret'], secret);
    assert.equal(one.events.count('state.key-unusable'), 1);
    assert.ok(one.inClear().includes('enrolled.json'));
    mend(one);
    one.start();
    assert.deepEqual(one.inClear(), []);
    assert.equal(one.events.count('state.key-unusable'), 1);
  });

test('a full disk keeps the files in clear, whole, until there is room', (t) => {
  const disk = smallDisk(t, 1);
  if (disk === undefined) return;
  const { names, file, start, inClear, events } = board(t, {}, disk);
  const before = names.map((name) => readFileSync(file(name), 'utf8'));
  let size = 65_536;
  for (let count = 0; size >= 1; )
    try {
      writeFileSync(join(disk, `fill-${count++}`), Buffer.alloc(size));
    } catch {
      size = size > 1 ? size >> 1 : 0;
    }
  start();
  assert.equal(events.count('state.key-unusable'), 1);
  assert.deepEqual(
    names.map((name) => readFileSync(file(name), 'utf8')),
    before,
  );
  for (const name of readdirSync(disk)) if (name.startsWith('fill-')) rmSync(join(disk, name));
  start();
  assert.deepEqual(inClear(), []);
});

test('the power is cut after any of the files: the rest follows at the next start', (t) => {
  const whole = board(t);
  const clear = whole.names.map((name) => readFileSync(whole.file(name)));
  whole.start();
  for (let done = 0; done <= whole.names.length; done++) {
    for (const [at, name] of whole.names.entries())
      if (at >= done) writeFileSync(whole.file(name), clear[at]!);
    // What was being written then.
    writeFileSync(`${whole.file('gateway.key')}.new`, Buffer.of(1, 2, 3));
    assert.equal(whole.start()['dm-server']['client-secret'], secret, `after ${done} files`);
    assert.deepEqual(whole.inClear(), []);
    assert.deepEqual(
      whole.names.map((name) => whole.open(name)),
      clear.map(String),
    );
  }
  assert.deepEqual(whole.events.all, []);
});

test('with another key, or without the key, nothing is set aside: the error says what to do, and the right key helps', (t) => {
  const { start, key, names, file, events } = board(t);
  start();
  const sealed = names.map((name) => readFileSync(file(name)));
  copyFileSync(key, `${key}.right`);
  for (const lose of [
    () => writeFileSync(key, Buffer.alloc(32, 7)),
    () => {},
    () => writeFileSync(key, 'short'),
    () => mkdirSync(key),
  ]) {
    rmSync(key, { recursive: true, force: true });
    lose();
    assert.throws(start, (thrown: { code: string; message: string }) => {
      assert.equal(thrown.code, 'configuration');
      assert.match(
        thrown.message,
        /enrolled\.json is encrypted, and the key of .*identity\.key does not open it/,
      );
      assert.match(
        thrown.message,
        /bring back the right key, or remove the file to enrol this gateway again/,
      );
      return true;
    });
    assert.deepEqual(
      names.map((name) => readFileSync(file(name))),
      sealed,
    );
  }
  rmSync(key, { recursive: true, force: true });
  copyFileSync(`${key}.right`, key);
  assert.equal(start()['dm-server']['client-secret'], secret);
  assert.equal(events.count('enrolment.file-damaged'), 0);
});

test('an encrypted file that is damaged is set aside, because the key opens the other one', (t) => {
  for (const name of ['gateway.key', 'enrolled.json']) {
    const { start, file, events } = board(t);
    start();
    const content = readFileSync(file(name));
    content[20]! ^= 1;
    writeFileSync(file(name), content);
    assert.equal(start()['dm-server'].id, 'not-yet-enrolled');
    assert.deepEqual(
      events.all.map(({ name: event, fields }) => [event, fields.aside]),
      [['enrolment.file-damaged', `${file(name)}.corrupt-1`]],
    );
  }
});

test('the key of a command encrypts; the command runs once, and one that fails says so', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-command-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const command = join(folder, 'key');
  const runs = join(folder, 'runs');
  const script = (end: string) => {
    writeFileSync(command, `#!/bin/sh\necho >> ${runs}\n${end}\n`);
    chmodSync(command, 0o700);
  };
  script(`printf %064d 5`);
  const { start, inClear, key, open, tables, file } = board(t, { 'key-command': [command] });
  start();
  start();
  assert.deepEqual([inClear(), existsSync(key)], [[], false]);
  assert.match(open('gateway.key'), /PRIVATE KEY/);
  assert.equal(readFileSync(runs, 'utf8'), '\n');
  const other = { ...tables, gateway: { ...tables.gateway, 'key-command': [command, 'anew'] } };
  script('exit 3');
  assert.throws(() => identityFiles(other).read(file('gateway.key')), {
    code: 'configuration',
    message: /the key command .* gave no key: it ended with 3/,
  });
  assert.throws(() => boardIdentity(other).account(), { code: 'configuration', message: /ended with 3/ });
  script(`printf %064d 6`);
  assert.throws(() => identityFiles(other).read(file('gateway.key')), /key anew does not open it/);
  script(`printf %064d 5`);
  assert.match(open('gateway.key'), /PRIVATE KEY/);
});

test('a departure renames what is encrypted, and its end takes the key along', (t) => {
  const { start, tables, identity, key } = board(t);
  start();
  const marks = () => new DepartureMarks(identity, identityFiles(tables));
  marks().leave();
  assert.deepEqual(marks().account(), account);
  assert.ok(existsSync(key), 'the account is needed until the owner knows');
  marks().tell();
  marks().end('code');
  assert.deepEqual([readdirSync(identity), existsSync(key)], [['left'], false]);
});

test('an order to pass the gateway on is encrypted: code, claim and password', (t) => {
  const { tables, folder } = board(t);
  const files = identityFiles(tables);
  const order = { server: 'dm.next', code: secret, username: 'u', password: secret, keep: true };
  const next = join(folder, 'passed');
  stageTransfer({ ...order, cert: 'a certificate', key: secret }, next, files)();
  assert.ok(!octets(next).includes(secret));
  assert.deepEqual(storedTransfer(next, files), { ...order, cert: 'a certificate', key: secret });
  rmSync(join(folder, 'state'), { recursive: true });
  assert.throws(() => storedTransfer(next, identityFiles(tables)), { code: 'configuration' });
});
