import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { bootFiles } from '../../firmware-image/recipe/boot-image.ts';
import { PackageFiles, type PickedFile, readElf } from '../../firmware-image/recipe/closure.ts';
import { debianPackages, usualStore } from '../../firmware-image/recipe/debian.ts';
import { type Inventory, takeStock } from '../../firmware-image/recipe/inventory.ts';
import { kernelOf } from '../../firmware-image/recipe/kernel.ts';
import { packLicences } from '../../firmware-image/recipe/licences.ts';
import { leaveOutNeverRun } from '../../firmware-image/recipe/never-run.ts';
import { type ArmNode, arm64Node, nodePackage } from '../../firmware-image/recipe/node.ts';
import { nodeParts } from '../../firmware-image/recipe/node-parts.ts';
import { type BuiltRauc, builtRauc } from '../../firmware-image/recipe/rauc.ts';
import { licencesIn, spdxOf } from '../../firmware-image/recipe/spdx.ts';
import { nodeVersion, run } from '../../firmware-image/recipe/tools.ts';
import { commonPackages } from '../../firmware-image/recipe/wanted.ts';
import { skipImages } from './images.ts';

/** Milliseconds for downloads and for the build of RAUC on a fresh machine. */
const preparing = { timeout: 900_000 };

interface Component {
  readonly name: string;
  readonly version: string;
  readonly type: string;
  readonly cpe?: string;
  readonly purl?: string;
  readonly licenses?: readonly { license?: { id?: string; name?: string }; expression?: string }[];
  readonly properties?: readonly { value: string }[];
  readonly components?: readonly Component[];
}

describe('what an image is made of', { skip: skipImages, timeout: 900_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-inventory-'));
  after(() => rmSync(folder, { recursive: true }));
  let files: PackageFiles;
  let node: ArmNode;
  let rauc: BuiltRauc;
  let programs: PickedFile[];
  let stock: Inventory;
  let components: readonly Component[];
  const find = (name: string, among = components) => among.find((one) => one.name === name);

  before(() => {
    const packages = debianPackages(commonPackages);
    files = new PackageFiles(packages);
    node = arm64Node(nodeVersion());
    rauc = builtRauc();
    const ofNode = { from: node.program, to: 'usr/lib/node/node', package: nodePackage };
    programs = files.programs(['bin/busybox', 'usr/sbin/chronyd'], [rauc.program, ofNode]);
    const kernel = kernelOf(packages);
    const { lock } = usualStore();
    const parts = {
      board: qemu,
      version: '1.2.3',
      date: 1_700_000_000,
      lock,
      packages,
      files,
      kernel,
      node,
      rauc,
    };
    stock = takeStock({ ...parts, root: programs, boot: bootFiles(qemu, files, kernel) });
    components = JSON.parse(stock.bill).components;
  }, preparing);

  test('the bill has kernel, initramfs, RAUC, libraries, Node with its parts, and packages of npm, each with licence and version', () => {
    for (const name of [
      'linux-image-arm64',
      'busybox-static',
      'dmsetup',
      'rauc',
      'libssl3',
      'node',
      'postern',
    ])
      assert.ok(find(name), name);
    for (const one of components.flatMap(({ components: parts = [], ...whole }) => [whole, ...parts])) {
      if (one.type === 'file') continue;
      assert.ok(one.version, `version of ${one.name}`);
      assert.ok(one.licenses?.length, `licence of ${one.name}`);
    }
    const parts = find('node')!.components!;
    assert.equal(
      find('openssl', parts)?.cpe,
      `cpe:2.3:a:openssl:openssl:${process.versions.openssl}:*:*:*:*:*:*:*`,
    );
    for (const name of ['sqlite', 'v8', 'zlib', 'uv', 'icu', 'llhttp', 'nghttp2', 'ares'])
      assert.ok(find(name, parts), name);
    assert.ok(find('mqtt', find('postern')!.components)?.purl?.startsWith('pkg:npm/mqtt@'));
    const kernel = find('linux-image-arm64')!;
    assert.match(kernel.cpe ?? '', /^cpe:2\.3:o:linux:linux_kernel:6\.1\.\d+:/);
    const names = kernel.components!.map(({ name }) => name);
    for (const wanted of [/^boot\/vmlinuz/, /^boot\/initramfs\/modules\/dm-verity\.ko$/])
      assert.ok(
        names.some((name) => wanted.test(name)),
        String(wanted),
      );
    assert.ok(
      kernel.properties?.some(({ value }) => /^linux 6\.1/.test(value)),
      'the source of the signed kernel',
    );
  });

  test('no part of Node is without a known licence', () => {
    for (const { name, licences } of nodeParts(process.versions))
      assert.doesNotMatch(JSON.stringify(licences), /see /, name);
    const [unknown] = nodeParts({ 'a-new-part': '1.0' });
    assert.deepEqual(unknown?.licences, [{ license: { name: 'see node/LICENSE in licences.tar.xz' } }]);
  });

  test('the texts of all licences are in one small archive that only root reads; it is the same each time', () => {
    const archives = ['one', 'other'].map((name) => {
      const file = join(folder, `${name}.tar.xz`);
      packLicences(stock.texts, join(folder, `${name}-texts`), file, 1_700_000_000);
      return file;
    });
    assert.deepEqual(readFileSync(archives[0]!), readFileSync(archives[1]!));
    assert.equal(statSync(archives[0]!).mode & 0o777, 0o400);
    assert.ok(statSync(archives[0]!).size < 400_000, `${statSync(archives[0]!).size} bytes`);
    const listed = run('tar', ['-tJf', archives[0]!]).split('\n');
    for (const { name } of components.filter((one) => !['node', 'postern'].includes(one.name)))
      assert.ok(listed.includes(`./debian/${name}`), name);
    for (const name of ['common-licenses/GPL-2', 'node/LICENSE', 'npm/mqtt/LICENSE.md', 'postern/LICENSE'])
      assert.ok(listed.includes(`./${name}`), name);
  });

  test('each package of Debian in the image has its source in the lock', () => {
    const { lock } = usualStore();
    assert.ok(stock.sources.length > 10);
    for (const source of stock.sources) {
      const found = lock.sources.find((one) => one.source === source);
      assert.match(found?.sha256 ?? '', /^[0-9a-f]{64}$/, source);
    }
  });

  test('RAUC needs no library for networks and none of D-Bus, and is built as programs of Debian are hardened', () => {
    const { needed, interpreter } = readElf(readFileSync(rauc.program.from));
    assert.equal(interpreter, '/lib/ld-linux-aarch64.so.1');
    assert.ok(needed.includes('libcrypto.so.3'));
    const all = programs.map(({ to }) => basename(to));
    for (const stranger of [/curl/, /krb5/, /ldap/, /dbus/, /systemd/, /ssh2/])
      assert.ok(!all.some((name) => stranger.test(name)), String(stranger));
    assert.match(run('readelf', ['-W', '-d', rauc.program.from]), /BIND_NOW[\s\S]*PIE/);
    assert.match(run('readelf', ['-W', '-l', rauc.program.from]), /GNU_RELRO/);
  });

  test('a program without the parts that are left out of Node is refused, so that another version is looked at', () => {
    const program = readFileSync(rauc.program.from);
    assert.throws(
      () => leaveOutNeverRun(program, program, []),
      /the program has no lief; see .*never-run\.ts/,
    );
  });

  test('the reduced Node does what a gateway needs, and ends in order where it fails', () => {
    const own = join(folder, 'node');
    mkdirSync(own);
    for (const { from, to } of programs) copyFileSync(from, join(own, basename(to)));
    const script = `
      const assert = require('node:assert'), crypto = require('node:crypto');
      const { DatabaseSync } = require('node:sqlite');
      const database = new DatabaseSync(':memory:');
      database.exec('CREATE TABLE t (a TEXT); INSERT INTO t VALUES (1)');
      assert.equal(database.prepare('SELECT a FROM t').get().a, '1');
      assert.throws(() => database.exec('nonsense'), /syntax/);
      const zlib = require('node:zlib');
      for (const [pack, unpack] of [['gzipSync', 'gunzipSync'], ['brotliCompressSync', 'brotliDecompressSync'], ['zstdCompressSync', 'zstdDecompressSync']])
        assert.equal(zlib[unpack](zlib[pack]('text')).toString(), 'text');
      assert.throws(() => zlib.gunzipSync('nonsense'), /incorrect header/);
      const pair = () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const [one, other] = [pair(), pair()];
      const secret = (a, b) => crypto.diffieHellman({ privateKey: a.privateKey, publicKey: b.publicKey }).toString('hex');
      assert.equal(secret(one, other), secret(other, one));
      crypto.createCipheriv('aes-128-ccm', Buffer.alloc(16), Buffer.alloc(12), { authTagLength: 8 }).update('x');
      assert.throws(() => new crypto.X509Certificate('nonsense'));
      assert.throws(() => (function deep() { return 1 + deep(); })(), RangeError);
      assert.throws(() => new ArrayBuffer(2 ** 53 - 1), RangeError);
      assert.equal('e\\u0301'.normalize('NFKC'), '\\u00e9');
      assert.deepEqual(['b', 'A', 'a'].sort((x, y) => x.localeCompare(y)), ['a', 'A', 'b']);
      assert.match('\\u00e4', /^\\p{Letter}$/u);
      assert.equal([...new Intl.Segmenter('en').segment('e\\u0301x')].length, 2);
      assert.equal(new TextDecoder('utf-16le').decode(new Uint8Array([0x41, 0])), 'A');
      assert.equal(new Intl.DateTimeFormat('en', { timeZone: 'UTC' }).format(0), '1/1/1970');
      const { Worker } = require('node:worker_threads');
      const worker = new Worker("require('node:worker_threads').parentPort.postMessage(1); throw new Error('in the worker')", { eval: true });
      worker.on('message', () => console.log('message')).on('error', ({ message }) => {
        console.log(message);
        const server = require('node:http').createServer((_, answer) => answer.end('served')).listen(0, '127.0.0.1', () =>
          require('node:http').get({ port: server.address().port, host: '127.0.0.1' }, async (answer) => {
            for await (const part of answer) console.log(String(part));
            server.close();
            setImmediate(() => { throw new Error('at the end'); });
          }));
      });`;
    writeFileSync(join(own, 'script.cjs'), script);
    const loader = [join(own, 'ld-linux-aarch64.so.1'), '--library-path', own, join(own, 'node')];
    const args = ['-cpu', 'cortex-a53', ...loader, '--no-warnings', join(own, 'script.cjs')];
    const { status, stdout, stderr } = spawnSync('qemu-aarch64-static', args, {
      encoding: 'utf8',
      timeout: 240_000,
    });
    assert.equal(stdout, 'message\nin the worker\nserved\n', stderr);
    assert.match(stderr, /Error: at the end/);
    assert.equal(status, 1);
    const help = execFileSync('qemu-aarch64-static', ['-cpu', 'cortex-a53', ...loader, '--version'], {
      encoding: 'utf8',
    });
    assert.equal(help.trim(), `v${nodeVersion()}`);
  });
});

test('names of licences in Debian become identifiers of SPDX', () => {
  for (const [name, id] of [
    ['GPL-2', 'GPL-2.0-only'],
    ['GPL-2+', 'GPL-2.0-or-later'],
    ['LGPLv2.1+', 'LGPL-2.1-or-later'],
    ['LGPL-3', 'LGPL-3.0-only'],
    ['GPL-2.0', 'GPL-2.0-only'],
    ['Expat', 'MIT'],
    ['BSD-3-clause', 'BSD-3-Clause'],
    ['Apache-2', 'Apache-2.0'],
    ['public-domain', undefined],
    ['GPL-2+ with Autoconf exception', undefined],
  ] as const)
    assert.equal(spdxOf(name), id, name);
});

test('licences are read from machine-readable copyright files alone', () => {
  const head = 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n';
  const body = 'Files: *\nLicense: GPL-2+ or Artistic, and Expat\n\nLicense: public-domain\n text\n';
  assert.deepEqual(licencesIn(`${head}${body}`), [
    { license: { name: 'Artistic' } },
    { license: { name: 'public-domain' } },
    { license: { id: 'GPL-2.0-or-later' } },
    { license: { id: 'MIT' } },
  ]);
  assert.equal(licencesIn(body), undefined);
  assert.deepEqual(licencesIn(head), []);
});
