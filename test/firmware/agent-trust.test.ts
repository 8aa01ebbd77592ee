// Whom the agent of the board believes: its own scripts, RAUC's own check and openssl, with real certificates and revocation lists.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { trustFiles } from '../../firmware-image/recipe/keys.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { versionNumber } from '../../src/gateway/update/boot-state.ts';
import { FumoResult } from '../../src/mo/fumo.ts';
import {
  Agent,
  type AgentParts,
  Bundles,
  certify,
  revocationList,
  skipAgent,
  skipClocks,
} from './agent-rig.ts';

const limit = { timeout: 60_000 };
const withClocks = { ...limit, skip: skipClocks };
const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 100_000);
const day = 24 * 3600;
const now = Math.floor(Date.now() / 1000);
const refused = (message: RegExp) => ({ result: FumoResult.NotValidated, message });

describe('whom the agent of the board believes', { skip: skipAgent, timeout: 300_000 }, () => {
  let bundles: Bundles;
  const made: Record<string, string> = {};
  const ours = () => join(bundles.keys('ours').folder, 'ca.crt');
  const pem = (authority: string) => readFileSync(join(bundles.keys(authority).folder, 'ca.crt'), 'utf8');
  const agent = (parts: AgentParts = {}) => new Agent(ours(), parts).start();
  const install = async (board: Agent, bundle: string) => {
    board.put(made[bundle]!);
    await board.slots.install();
    assert.equal(await board.ask('try', '1'), 'done');
  };

  before(() => {
    console.log(`POSTERN_SEED=${seed}`);
    bundles = new Bundles();
    for (const name of ['ours', 'next']) made[name] = bundles.make('1.2.0', { authority: name });
    for (const name of ['thief', 'thief of next'])
      made[name] = bundles.make('1.2.0', {
        authority: bundles.signer(name, { by: name === 'thief' ? 'ours' : 'next' }),
      });
    if (skipClocks) return;
    const expired = bundles.signer('expired', { from: -90, until: -30 });
    made.backdated = bundles.make('1.2.0', { authority: expired, time: now - 60 * day });
    made.recent = bundles.make('1.2.0', { authority: bundles.signer('recent', { from: -1 }) });
  });
  after(() => bundles?.[Symbol.dispose]());

  test('a signer that has expired is refused, whatever time it says that it signed', withClocks, async () => {
    await using board = await agent();
    board.put(made.backdated!);
    const settings = join(board.folder, 'etc/rauc/system.conf');
    const ownSettings = readFileSync(settings, 'utf8');
    await assert.rejects(board.slots.inspect(), refused(/certificate has expired \(it is 20/));
    await assert.rejects(board.slots.install(), refused(/certificate has expired/));
    await assert.rejects(board.slots.try(1), /no slot was written/);
    // By the time of signing it would be taken.
    writeFileSync(settings, ownSettings.replace('signing-time=false', 'signing-time=true'));
    await install(board, 'backdated');
  });

  test(
    'a clock that is behind is set forward by the date of a signer, and not if a time server has set it',
    withClocks,
    async () => {
      const behind = now - 400 * day;
      await using board = await agent({ time: behind, isSet: false });
      await install(board, 'recent');
      assert.ok(board.clock >= now - day - 60 && board.clock <= now, `the clock is at ${board.clock}`);
      await using set = await agent({ time: behind, isSet: true });
      set.put(made.recent!);
      await assert.rejects(set.slots.install(), refused(/not yet valid/));
      assert.equal(set.clock, behind);
    },
  );

  test('nobody but the authority sets the clock', withClocks, async () => {
    await using board = await agent({ time: now - 20 * 365 * day, isSet: false });
    board.put(made.next!);
    await assert.rejects(board.slots.install(), refused(/certificate/));
    assert.equal(board.clock, now - 20 * 365 * day);
  });

  test(
    'a clock that is ahead refuses all signers, and once it is right again the board is updated',
    withClocks,
    async () => {
      await using board = await agent({ time: now + 30 * 365 * day });
      board.put(made.ours!);
      await assert.rejects(board.slots.install(), refused(/expired \(it is 205/));
      board.setClock(now);
      await install(board, 'ours');
    },
  );

  test(
    'a revoked signer is refused, also after a restart; a list that was signed again is no fault',
    limit,
    async () => {
      await using board = await agent();
      await install(board, 'thief');
      const list = bundles.list(5, ['thief']);
      await board.slots.revoke(list);
      await board.slots.revoke(list);
      assert.equal(board.slots.lists().trim(), list.trim());
      for (let start = 0; start < 2; start++) {
        board.put(made.thief!);
        await assert.rejects(board.slots.inspect(), refused(/certificate revoked/));
        await assert.rejects(board.slots.install(), refused(/certificate revoked/));
        await assert.rejects(board.slots.try(1), /no slot was written/);
        await install(board, 'ours');
        await board.restart();
      }
      // It is exchanged after the check.
      board.put(made.ours!);
      board.swap(made.thief!);
      await assert.rejects(board.slots.install(), refused(/verification failed/));
    },
  );

  test(
    'a list that is older, by another authority, about a part of the certificates, changed, cut or none is refused',
    limit,
    async () => {
      await using board = await agent();
      const [old, list] = [bundles.list(1), bundles.list(2, ['thief'])];
      await board.slots.revoke(list);
      const { bytes, uniform } = seededEntropy(seed);
      const base64 = list.split('-----')[2]!;
      const changed = Array.from({ length: 12 }, () => {
        const der = Buffer.from(base64, 'base64');
        // Within what is signed.
        der[4 + Math.floor(uniform() * 100)]! ^= 1 << Math.floor(uniform() * 8);
        return list.replace(base64, `\n${der.toString('base64')}\n`);
      });
      const same = bundles.list(2);
      const narrow = revocationList(bundles.keys('ours').folder, 3, [], { isNarrow: true });
      const wrong = [
        old,
        same,
        narrow,
        bundles.list(9, [], 'next'),
        '',
        'x'.repeat(100_000),
        list.slice(0, 400),
      ];
      for (const [at, text] of [...wrong, Buffer.from(bytes(2000)).toString('latin1'), ...changed].entries())
        await assert.rejects(
          board.slots.revoke(text),
          { code: 'conflict' },
          `POSTERN_SEED=${seed}, list ${at}`,
        );
      assert.equal(board.slots.lists().trim(), list.trim());
      // What the gateway puts in its place is no file.
      const given = join(board.folder, 'data/update/revoked.pem');
      rmSync(given);
      mkdirSync(given);
      assert.match(await board.ask('revoke'), /^failed no authority/);
      rmSync(given, { recursive: true });
      symlinkSync('/dev/zero', given);
      assert.match(await board.ask('revoke'), /^failed no authority/);
      assert.equal(board.slots.lists().trim(), list.trim());
    },
  );

  test('a list that cannot be written is an error, and the one before stays', limit, async () => {
    await using board = await agent();
    const place = join(board.folder, 'data/root/revoked');
    writeFileSync(place, '');
    const list = bundles.list(11, ['thief']);
    await assert.rejects(board.slots.revoke(list), /cannot be written/);
    assert.equal(board.slots.lists(), '');
    rmSync(place);
    await board.slots.revoke(list);
    board.put(made.thief!);
    await assert.rejects(board.slots.install(), refused(/revoked/));
  });

  test('a power cut while a list is written leaves the one before, or none', limit, async () => {
    await using board = await agent();
    await board.slots.revoke(bundles.list(12, ['thief']));
    const before = board.slots.lists();
    const [file] = execFileSync('find', [join(board.folder, 'data/root/revoked'), '-type', 'f'], {
      encoding: 'utf8',
    }).split('\n');
    writeFileSync(`${file}.new`, before.slice(0, 100));
    await board.restart();
    assert.equal(await board.ask('try', '0'), 'failed a slot is tried 1 to 9 times');
    assert.equal(board.slots.lists(), before);
    board.put(made.thief!);
    await assert.rejects(board.slots.install(), refused(/revoked/));
    await board.slots.revoke(bundles.list(13, ['thief']));
  });

  test('two requests at once are answered one after the other', limit, async () => {
    await using board = await agent();
    board.put(made.ours!);
    const [list, facts] = await Promise.all([board.slots.revoke(bundles.list(20)), board.slots.inspect()]);
    assert.deepEqual([list, facts.version], [undefined, '1.2.0']);
  });

  test(
    'a list sets a clock that is behind; one from a time to come is refused where the clock is right',
    withClocks,
    async () => {
      const list = bundles.list(30, ['thief']);
      await using board = await agent({ time: now - 60 * day, isSet: false });
      // The thief of an old key is believed while the board does not know how late it is.
      await install(board, 'backdated');
      await board.slots.revoke(list);
      assert.ok(board.clock >= now);
      board.put(made.backdated!);
      await assert.rejects(board.slots.install(), refused(/expired/));
      await using right = await agent({ time: now - 60 * day });
      await assert.rejects(right.slots.revoke(list), /from a time to come/);
      assert.equal(right.slots.lists(), '');
    },
  );

  test('a list that has ended refuses all signers until there is a newer one', withClocks, async () => {
    await using board = await agent();
    await board.slots.revoke(revocationList(bundles.keys('ours').folder, 40, [], { until: 1 }));
    board.setClock(now + 2 * day);
    board.put(made.ours!);
    await assert.rejects(board.slots.install(), refused(/CRL has expired/));
    await board.slots.revoke(bundles.list(41));
    await install(board, 'ours');
  });

  test('the list of the image is in force from its first start, unless a newer one is', limit, async () => {
    await using board = await agent();
    board.trust('revoked', bundles.list(50, ['thief']));
    await board.restart();
    board.put(made.thief!);
    await assert.rejects(board.slots.install(), refused(/revoked/));
    const newer = bundles.list(51, ['thief']);
    await board.slots.revoke(newer);
    await board.restart();
    assert.equal(await board.ask('try', '0'), 'failed a slot is tried 1 to 9 times');
    assert.equal(board.slots.lists().trim(), newer.trim());
  });

  // Both authorities have the same name.
  test(
    'while an authority is replaced both certify signers, each with its own list, until the day on which the old one ends',
    withClocks,
    async () => {
      const release = `old-until=${now + 30 * day}\n`;
      await using board = await agent({ release });
      await assert.rejects(install(board, 'next'), refused(/certificate/));
      board.trust('keyring', pem('next'));
      board.trust('old-keyring', pem('ours'));
      await board.restart();
      for (const name of ['ours', 'next', 'thief of next']) await install(board, name);
      await board.slots.revoke(bundles.list(60, ['thief of next'], 'next'));
      for (const name of ['ours', 'next', 'thief']) await install(board, name);
      await assert.rejects(install(board, 'thief of next'), refused(/revoked/));
      await board.slots.revoke(bundles.list(61, ['thief']));
      for (const name of ['ours', 'next']) await install(board, name);
      for (const name of ['thief', 'thief of next'])
        await assert.rejects(install(board, name), refused(/revoked/));
      board.setClock(now + 31 * day);
      await install(board, 'next');
      await assert.rejects(install(board, 'ours'), refused(/certificate/));
      await assert.rejects(board.slots.revoke(bundles.list(62)), /no authority/);
    },
  );

  test('an old authority without a day on which it ends is not believed', limit, async () => {
    await using board = await agent();
    board.trust('keyring', pem('next'));
    board.trust('old-keyring', pem('ours'));
    await assert.rejects(install(board, 'ours'), refused(/certificate/));
  });

  test(
    'whom a healthy version believes is kept for the recovery system, until another one believes others',
    limit,
    async () => {
      await using board = await agent({ release: 'old-until=2000000000\n' });
      const kept = (name: string) => join(board.folder, 'data/root/trust', name);
      const keep = async () => {
        assert.equal(await board.ask('keep'), 'done');
        // The agent answers the next request when it has done all of this one.
        await board.ask('try', '0');
      };
      for (const name of ['old-keyring', 'second-keyring'] as const) board.trust(name, pem('next'));
      // What a power cut has left.
      mkdirSync(kept('../trust.new'), { recursive: true });
      await keep();
      for (const [name, authority] of [
        ['keyring', 'ours'],
        ['old-keyring', 'next'],
        ['second-keyring', 'next'],
      ] as const)
        assert.equal(readFileSync(kept(`${name}.pem`), 'utf8'), pem(authority));
      assert.match(readFileSync(kept('postern-release'), 'utf8'), /^old-until=2000000000$/m);
      const { ino } = statSync(kept('.'));
      await keep();
      assert.equal(statSync(kept('.')).ino, ino, 'nothing is written when nothing has changed');
      board.trust('keyring', pem('next'));
      for (const name of ['old-keyring', 'second-keyring'])
        rmSync(join(board.folder, 'etc/rauc', `${name}.pem`));
      await keep();
      assert.equal(readFileSync(kept('keyring.pem'), 'utf8'), pem('next'));
      assert.deepEqual(
        [existsSync(kept('second-keyring.pem')), existsSync(kept('old-keyring.pem'))],
        [false, false],
      );
    },
  );

  describe('two signers', () => {
    const purpose = 'emailProtection,codeSigning';
    /** Keys with a second signer. */
    const pair = (name: string, second: { purpose?: string; from?: number; until?: number } = {}) => {
      const { folder } = bundles.keys(bundles.signer(name));
      const theirs = bundles.keys('second').folder;
      for (const end of ['crt', 'key'])
        copyFileSync(join(theirs, `ca.${end}`), join(folder, `second-ca.${end}`));
      certify(
        folder,
        'second',
        { name: `${name} too`, purpose, from: -365, until: 3650, ...second },
        'second-ca',
      );
      return name;
    };
    const twoKeys = async (parts: AgentParts = {}) => {
      const board = await agent(parts);
      board.trust('second-keyring', pem('second'));
      return board;
    };
    before(() => {
      made.both = bundles.make('1.2.0', { authority: pair('both') });
      made.forClients = bundles.make('1.2.0', { authority: pair('for clients', { purpose: 'clientAuth' }) });
      made.ended = bundles.make('1.2.0', { authority: pair('ended', { from: -90, until: -30 }) });
      // The second signer is certified by the authority of the first.
      const { folder } = bundles.keys(pair('alone'));
      for (const end of ['crt', 'key'])
        copyFileSync(join(folder, `update.${end}`), join(folder, `second.${end}`));
      made.alone = bundles.make('1.2.0', { authority: 'alone' });
    });

    test('both signatures are needed; without the second one the slot is not touched', limit, async () => {
      await using board = await twoKeys();
      for (const name of ['ours', 'alone', 'forClients', 'ended'])
        await assert.rejects(install(board, name), refused(/second signature/), name);
      assert.equal(existsSync(join(board.folder, 'dev/root-b')), false);
      await install(board, 'both');
    });

    test('the second signature of another version or of other images is none', limit, async () => {
      await using board = await twoKeys();
      const taken = execFileSync('rauc', ['--keyring', ours(), 'info', '--output-format=shell', made.both!], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const build = /RAUC_MF_BUILD='(.*)'/.exec(taken)![1]!;
      const copied = bundles.make('1.3.0', { build });
      board.put(copied);
      await assert.rejects(board.slots.install(), refused(/second signature/));
    });

    test('what is in the slot counts, and not what the first signer or RAUC says of it', limit, async () => {
      for (const partition of ['root', 'boot']) {
        await using board = await twoKeys();
        board.change(
          `printf x >> /dev/${partition}-b.new; dd if=/dev/${partition}-b.new of=/dev/${partition}-b conv=notrunc`,
        );
        board.put(made.both!);
        await assert.rejects(board.slots.install(), refused(/second signature/), partition);
        await assert.rejects(board.slots.try(1), /no slot was written/);
      }
      // A bundle of the first signer alone, put in place of the one that was checked.
      await using board = await twoKeys();
      board.put(made.both!);
      board.swap(made.ours!);
      await assert.rejects(board.slots.install(), refused(/second signature/));
    });

    test(
      'the recovery system believes whom the last healthy version believed, and without it whom the image did',
      limit,
      async () => {
        await using board = await agent();
        const starts = /starts slot B/;
        const says = (name: string, said: RegExp) => {
          copyFileSync(made[name]!, board.bundle);
          assert.match(board.recover(), said, name);
          const isTaken = said === starts;
          assert.deepEqual(
            [board.state.read().trying, board.state.read().recovered],
            isTaken ? ['B', true] : [undefined, false],
            name,
          );
          assert.equal(existsSync(join(board.folder, 'dev/root-b')), isTaken, name);
          board.state.change({ trying: undefined, left: 0, recovered: false });
          rmSync(join(board.folder, 'dev/root-b'), { force: true });
        };
        says('ours', starts);
        says('next', /refused: .*(issuer|self.signed)/);
        says('thief', starts);
        board.trust('second-keyring', pem('second'));
        await board.ask('keep');
        await board.ask('try', '0');
        rmSync(join(board.folder, 'etc/rauc/second-keyring.pem'));
        for (const name of ['ours', 'alone', 'forClients', 'ended'])
          says(name, /refused: the second signature/);
        says('both', starts);
        // The second signer signed other images.
        const build = execFileSync(
          'rauc',
          ['--keyring', ours(), 'info', '--output-format=shell', made.both!],
          {
            encoding: 'utf8',
            stdio: ['ignore', 'pipe', 'ignore'],
          },
        );
        made.other = bundles.make('1.3.0', { build: /RAUC_MF_BUILD='(.*)'/.exec(build)![1]! });
        says('other', /refused: the second signature/);
        board.trust('second-keyring', pem('second'));
        const { folder } = bundles.keys('both');
        await board.slots.revoke(
          revocationList(folder, 1, [join(folder, 'second.crt')], { ca: 'second-ca' }),
        );
        await board.slots.revoke(bundles.list(1, ['thief']));
        rmSync(join(board.folder, 'etc/rauc/second-keyring.pem'));
        says('both', /refused: the second signature .*revoked/);
        says('thief', /refused: .*revoked/);
        board.state.change({ floor: versionNumber('1.2.1')! });
        says('ours', /refused: 1\.2\.0 is older than the floor/);
        // A copy that is damaged.
        board.state.change({ floor: 0 });
        writeFileSync(join(board.folder, 'data/root/trust/keyring.pem'), 'x');
        says('ours', starts);
      },
    );

    test('a second signer can be revoked', limit, async () => {
      await using board = await twoKeys();
      const { folder } = bundles.keys('both');
      await board.slots.revoke(revocationList(folder, 1, [join(folder, 'second.crt')], { ca: 'second-ca' }));
      await assert.rejects(install(board, 'both'), refused(/second signature .*revoked/));
    });

    test('the recipe refuses one authority for both signatures', limit, () => {
      const { folder } = bundles.keys(pair('same'));
      copyFileSync(join(folder, 'ca.crt'), join(folder, 'second-ca.crt'));
      assert.throws(() => trustFiles(folder), /same authority/);
    });
  });
});
