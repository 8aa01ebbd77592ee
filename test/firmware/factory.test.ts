import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import encodeQr from 'qr';
import decodeQr from 'qr/decode.js';
import { parse } from 'smol-toml';
import { mostBoards } from '../../firmware-image/factory/batch.ts';
import { codeHash, newIdentities } from '../../firmware-image/factory/identities.ts';
import { label, labelText } from '../../firmware-image/factory/label.ts';
import { issuedBy, newAuthority } from '../peers/certificates.ts';
import { SmallDisk } from '../peers/small-disk.ts';

const command = fileURLToPath(new URL('../../firmware-image/factory.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-factory-test-'));
after(() => rmSync(folder, { recursive: true }));

/** The configuration of a batch, with its claim certificate; beside it the key of the authority, which no board may get. */
const site = join(folder, 'site');
mkdirSync(site);
newAuthority(site);
issuedBy(site, 'claim');
const config = join(site, 'gateway.toml');
const authority = readdirSync(site).find((name) => /ca.*\.pem$/.test(name))!;
const template = `[coap]
insecure-plain-coap = true
[mqtt]
url = "mqtts://broker.example:8883"
ca = "${authority}"
[enrolment]
cert = "claim.pem"
key = "claim.key"
`;
writeFileSync(config, template);

const args = (count: number, to: string, ...more: string[]) => [
  command,
  ...['--count', String(count), '--config', config, '--to', to, '--site', 'plant-7', ...more],
];
const make = (...all: Parameters<typeof args>) =>
  spawnSync(process.execPath, args(...all), { encoding: 'utf8' });

interface Manifest {
  readonly boards: readonly { gateway: string; serial: string; hash: string }[];
}
const manifestOf = (batch: string): Manifest =>
  JSON.parse(readFileSync(join(batch, 'manifest.json'), 'utf8'));

/** All that must differ from board to board. */
const identitiesIn = (batch: string): string[] =>
  manifestOf(batch).boards.flatMap(({ gateway, serial, hash }) => [gateway, serial, hash]);

describe('a batch of boards', { timeout: 300_000 }, () => {
  test('of 1,000: each has its name, serial number, code, files and label; the manifest has hashes and no secret', () => {
    const batch = join(folder, 'thousand');
    const { status, stderr } = make(1000, batch);
    assert.equal(status, 0, stderr);
    const { boards } = manifestOf(batch);
    assert.equal(boards.length, 1000);
    assert.equal(new Set(identitiesIn(batch)).size, 3000);
    const shown = ['manifest.json', 'labels.html', 'boards.csv'].map((name) =>
      readFileSync(join(batch, name), 'utf8'),
    );
    for (const { gateway, serial, hash } of boards) {
      const own = join(batch, 'config', serial);
      assert.deepEqual(readdirSync(own).sort(), ['claim.key', 'claim.pem', 'gateway.toml', authority].sort());
      const { gateway: table, enrolment } = parse(readFileSync(join(own, 'gateway.toml'), 'utf8')) as Record<
        string,
        Record<string, string>
      >;
      assert.deepEqual([table?.id, enrolment?.serial], [gateway, serial]);
      const code = enrolment?.code ?? '';
      assert.equal(codeHash(code), hash);
      for (const text of shown) assert.ok(!text.includes(code), 'no code leaves the folder config');
      assert.equal(statSync(join(own, 'gateway.toml')).mode & 0o777, 0o600);
    }
    assert.equal(statSync(join(batch, 'config')).mode & 0o777, 0o700);
    assert.equal(readdirSync(join(batch, 'labels')).length, 1000);
    assert.equal(shown[1]?.split('<svg ').length, 1001);
  });

  test('the QR code on a label says name and serial number, however long the name is', () => {
    for (const length of [2, 51]) {
      const [board] = newIdentities('x'.repeat(length), 1);
      const dots = [...label(board!).matchAll(/M(\d+) (\d+)h1/g)];
      const side = encodeQr(labelText(board!), 'raw', { ecc: 'medium', border: 4 }).length;
      const scale = 4;
      const data = new Uint8Array(4 * (side * scale) ** 2).fill(255);
      const dark = [0, 0, 0, 255];
      for (const [, x, y] of dots)
        for (let row = 0; row < scale; row++)
          for (let column = 0; column < scale; column++)
            data.set(dark, 4 * ((Number(y) * scale + row) * side * scale + Number(x) * scale + column));
      const read = decodeQr({ width: side * scale, height: side * scale, data });
      assert.equal(read, labelText(board!));
    }
  });

  test('a second run makes other identities; into the same folder it makes nothing, and leaves what is there', () => {
    const [one, other] = [join(folder, 'one'), join(folder, 'other')];
    for (const batch of [one, other]) assert.equal(make(50, batch).status, 0);
    assert.equal(new Set([...identitiesIn(one), ...identitiesIn(other)]).size, 300);
    const before = readFileSync(join(one, 'manifest.json'));
    const { status, stderr } = make(50, one);
    assert.equal(status, 1);
    assert.match(stderr, /one exists: a batch is made once/);
    assert.deepEqual(readFileSync(join(one, 'manifest.json')), before);
    assert.ok(!existsSync(`${one}.part`));
  });

  test('two runs at once into one folder: one makes the batch, the other says so', async () => {
    const batch = join(folder, 'twice');
    const runs = [1, 2].map(() => spawn(process.execPath, args(400, batch), { stdio: 'ignore' }));
    const codes = await Promise.all(runs.map(async (run) => (await once(run, 'exit'))[0] as number));
    assert.deepEqual(codes.sort(), [0, 1]);
    assert.equal(manifestOf(batch).boards.length, 400);
    assert.equal(readdirSync(join(batch, 'config')).length, 400);
  });

  test('a run that is killed leaves no batch; the next one says what is there, and makes it once that is deleted', async () => {
    const batch = join(folder, 'killed');
    const run = spawn(process.execPath, args(mostBoards, batch), { stdio: 'ignore' });
    await begun(run, `${batch}.part`);
    run.kill('SIGKILL');
    await once(run, 'exit');
    assert.ok(!existsSync(batch));
    const { status, stderr } = make(5, batch);
    assert.equal(status, 1);
    assert.match(stderr, /killed\.part exists: another run makes this batch, or was ended by force/);
    rmSync(`${batch}.part`, { recursive: true });
    assert.equal(make(5, batch).status, 0);
  });

  const probe = SmallDisk.mount(1);
  probe?.[Symbol.dispose]();
  test('a full disk: nothing is left, and with more room it is made', {
    skip: probe ? false : 'file systems cannot be mounted here',
  }, () => {
    using disk = SmallDisk.mount(4)!;
    const batch = join(disk.folder, 'batch');
    const { status, stderr } = make(1000, batch);
    assert.equal(status, 1);
    assert.match(stderr, /the disk is full: nothing was made of the batch/);
    assert.deepEqual(
      readdirSync(disk.folder).filter((name) => name !== 'lost+found'),
      [],
    );
    assert.equal(make(20, batch).status, 0);
    assert.equal(manifestOf(batch).boards.length, 20);
  });

  for (const [what, text, said] of [
    ['without [enrolment]', '[gateway]\n', /needs the table \[enrolment\]/],
    ['with a name', `${template}[gateway]\nid = "gw-1"\n`, /leave out gateway\.id/],
    ['with a code', `${template}code = "the-same-for-all"\n`, /leave out enrolment\.code/],
    ['that boards refuse', template.replace('insecure-plain-coap', 'insecure'), /coap/],
    ['that is no TOML', '[', /Invalid TOML/],
  ] as const)
    test(`a configuration ${what} is refused before anything is made`, () => {
      const file = join(site, 'other.toml');
      writeFileSync(file, text);
      const to = join(folder, 'refused');
      const { status, stderr } = make(3, to, '--config', file);
      assert.equal(status, 1);
      assert.match(stderr, said);
      assert.doesNotMatch(stderr, /^ +at /m);
      assert.ok(!existsSync(to) && !existsSync(`${to}.part`));
    });

  for (const [options, said] of [
    [['--count', '0'], /--count 0: a whole number from 1 to 5000/],
    [['--count', '5001'], /--count 5001/],
    [['--days', '2000'], /--days 2000/],
    [['--site', 'a/b'], /--site a\/b/],
    [['--site', 'x'.repeat(52)], /at most 51 of the characters/],
  ] as const)
    test(`${options.join(' ')} is refused as wrong usage`, () => {
      const { status, stderr } = make(1, join(folder, 'usage'), ...options);
      assert.equal(status, 2);
      assert.match(stderr, said);
    });
});

/** Resolves when a run has begun. */
async function begun(run: ChildProcess, part: string): Promise<void> {
  const ended = once(run, 'exit').then(() => assert.fail('it ended before it could be killed'));
  const watcher = watch(folder);
  try {
    while (!existsSync(part))
      await Promise.race([once(watcher, 'change', { signal: AbortSignal.timeout(60_000) }), ended]);
  } finally {
    watcher.close();
    ended.catch(() => {});
  }
}
