// The agent of the board: its own scripts in the shell of the board, asked by a gateway that is not trusted.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { seededEntropy } from '../../src/base/entropy.ts';
import {
  type BootState,
  BootStateCopies,
  copyBytes,
  keptState,
  stateFields,
  versionNumber,
} from '../../src/gateway/update/boot-state.ts';
import { FumoResult } from '../../src/mo/fumo.ts';
import { Agent, type AgentParts, applets, Bundles, skipAgent } from './agent-rig.ts';

const limit = { timeout: 60_000 };
const seed = Number(process.env.POSTERN_SEED ?? Date.now() % 100_000);
const scripts = fileURLToPath(new URL('../../firmware-image/rootfs/usr/lib/postern', import.meta.url));

describe('the agent of the board', { skip: skipAgent, timeout: 300_000 }, () => {
  let bundles: Bundles;
  const made: Record<string, string> = {};
  before(() => {
    console.log(`POSTERN_SEED=${seed}`);
    bundles = new Bundles();
    for (const version of ['1.0.0', '1.1.0', '1.2.0', 'new']) made[version] = bundles.make(version);
    made.foreign = bundles.make('1.2.0', { authority: 'theirs' });
    made.mail = bundles.make('1.2.0', { authority: bundles.signer('mail', { purpose: 'emailProtection' }) });
    made.other = bundles.make('1.2.0', { name: 'other-board' });
  });
  after(() => bundles?.[Symbol.dispose]());

  const agent = (parts: AgentParts = {}) =>
    new Agent(join(bundles.keys('ours').folder, 'ca.crt'), parts).start();

  test(
    'an update by the gateway: written, tried, and kept after the restart, with the floor of the new image',
    limit,
    async () => {
      await using old = await agent({ state: { spare: 'B', starts: 3 } });
      old.put(made['1.2.0']!);
      assert.deepEqual(await old.slots.inspect(), { compatible: 'postern-qemu-arm64', version: '1.2.0' });
      const told: number[] = [];
      const goOn = old.holdInstallation();
      await old.slots.install((percent) => {
        told.push(percent);
        goOn();
      });
      assert.deepEqual(told, [50]);
      const { spare, trying } = old.slots.state();
      assert.deepEqual(
        [spare, trying],
        [undefined, undefined],
        'no slot that is being written is in the state',
      );
      await old.slots.try(3);
      const tried: BootState = { ...old.slots.state(), trying: 'B', left: 3 };
      assert.deepEqual(old.slots.state(), tried);
      // The boot loader counts the start, and the new version runs.
      await using next = await agent({
        slot: 'B',
        version: '1.2.0',
        floor: '1.1.0',
        state: { ...tried, good: 'A', left: 2 },
      });
      await next.slots.keep();
      assert.deepEqual(next.slots.state(), { ...keptState({ ...tried, left: 2 }, 'B'), floor: 0x010100 });
    },
  );

  for (const [what, bundle, result, parts] of [
    ['of another authority', 'foreign', FumoResult.NotValidated, {}],
    ['by a certificate for mail', 'mail', FumoResult.NotValidated, {}],
    ['for another board', 'other', FumoResult.Mismatch, {}],
    ['older than the running one', '1.0.0', FumoResult.NotAcceptable, {}],
    ['of no version', 'new', FumoResult.NotAcceptable, {}],
    ['below the floor', '1.1.0', FumoResult.NotAcceptable, { state: { floor: 0x010101 } }],
  ] as const)
    test(
      `a bundle ${what} is not installed, whatever the gateway checked, and its slot is not tried`,
      limit,
      async () => {
        await using board = await agent(parts);
        const before = board.slots.state();
        board.put(made[bundle]!);
        await assert.rejects(board.slots.install(), { result });
        await assert.rejects(board.slots.try(3), /no slot was written/);
        assert.deepEqual(board.slots.state(), before);
        // A good one is installed afterwards.
        board.put(made['1.2.0']!);
        await board.slots.install();
        await board.slots.try(1);
        assert.equal(board.slots.state().trying, 'B');
      },
    );

  for (const [bundle, result] of [
    ['foreign', FumoResult.NotValidated],
    ['other', FumoResult.Mismatch],
    ['1.0.0', FumoResult.NotAcceptable],
  ] as const)
    test(`a bundle that is exchanged after the check is noticed: ${bundle}`, limit, async () => {
      await using board = await agent();
      board.put(made['1.2.0']!);
      board.swap(made[bundle]!);
      await assert.rejects(board.slots.install(), { result });
      await assert.rejects(board.slots.try(3), /no slot was written/);
      assert.equal(board.slots.state().trying, undefined);
    });

  test(
    'an older bundle is installed where the operator allowed it when the board was provisioned, but not below the floor',
    limit,
    async () => {
      await using board = await agent({ state: { floor: 0x010000 } });
      writeFileSync(join(board.folder, 'data/root/allow-older'), '');
      board.put(made['1.0.0']!);
      await board.slots.install();
      await board.slots.try(1);
      await using strict = await agent({ state: { floor: 0x010001 } });
      writeFileSync(join(strict.folder, 'data/root/allow-older'), '');
      strict.put(made['1.0.0']!);
      await assert.rejects(strict.slots.install(), { result: FumoResult.NotAcceptable });
    },
  );

  test(
    'a slot that is on trial overwrites nothing: the good slot stays until it is kept',
    limit,
    async () => {
      await using board = await agent({ slot: 'B', state: { good: 'A', trying: 'B', left: 1 } });
      board.put(made['1.2.0']!);
      await assert.rejects(board.slots.install(), /on trial/);
      await board.slots.keep();
      await board.slots.install();
      assert.equal(board.slots.state().good, 'B');
    },
  );

  test(
    'keep says that the running slot is good, and nothing of the other one; the floor is never above the running version',
    limit,
    async () => {
      await using other = await agent({
        slot: 'A',
        floor: '9.0.0',
        state: { trying: 'B', left: 2, starts: 5 },
      });
      await other.slots.keep();
      const { good, trying, left, starts, floor } = other.slots.state();
      assert.deepEqual([good, trying, left, starts, floor], ['A', 'B', 2, 0, 0x010100]);
    },
  );

  test('keep does what the gateway does with slots that are folders, for any state', limit, async () => {
    const { uniform } = seededEntropy(seed);
    const draw = <T>(...from: readonly T[]): T => from[Math.floor(uniform() * from.length)]!;
    for (const slot of ['A', 'B'] as const) {
      await using board = await agent({ slot });
      for (let round = 0; round < 15; round++) {
        const state: BootState = {
          good: draw('A', 'B'),
          trying: draw(undefined, 'A', 'B'),
          left: draw(0, 1, 9),
          floor: draw(0, 0x010000, 0x7f_ffff),
          failed: draw(undefined, 'A', 'B'),
          starts: draw(0, 1, 9),
          spare: draw(undefined, 'A', 'B'),
          recovered: draw(false, true),
        };
        board.state.change(state);
        await board.slots.keep();
        assert.deepEqual(
          board.slots.state(),
          keptState(state, slot),
          `seed ${seed}: ${JSON.stringify(state)}`,
        );
      }
    }
  });

  /** Gives the board a counter that is a file. */
  const counter = (board: Agent, value: string) => {
    const file = join(board.folder, 'counter');
    const program = `#!/bin/sh
case "$1" in
  get) cat ${file} ;;
  raise) [ "$2" -gt "$(cat ${file})" ] || exit 0; [ ! -e ${file}.stuck ] || exit 1; echo "$2" > ${file} ;;
esac
`;
    writeFileSync(join(board.folder, 'scripts/floor-counter'), program, { mode: 0o755 });
    writeFileSync(file, value);
    return {
      read: () => Number(readFileSync(file, 'utf8')),
      stick: () => writeFileSync(`${file}.stuck`, ''),
    };
  };

  test(
    'a counter of the board: the higher one of counter and boot state is the floor, and a version that is kept raises it',
    limit,
    async () => {
      await using board = await agent({ version: '1.1.0', floor: '1.1.0' });
      const counted = counter(board, String(0x010201));
      board.put(made['1.2.0']!);
      await assert.rejects(board.slots.install(), { result: FumoResult.NotAcceptable });
      counter(board, String(0x010000));
      board.put(made['1.2.0']!);
      await board.slots.install();
      // An old boot state was put back.
      board.state.change({ floor: 0, trying: undefined });
      await board.slots.keep();
      // The counter is raised after the answer; the next request waits for that.
      await board.ask('try', '0');
      assert.equal(counted.read(), 0x010100);
      assert.equal(board.slots.state().floor, 0x010100);
      counter(board, String(0x010200));
      await board.slots.keep();
      assert.equal(board.slots.state().floor, 0x010200, 'the boot state shows what counts');
    },
  );

  test(
    'a counter that tells nothing, no number or too high a one does not count, and one that cannot be raised stops nobody',
    limit,
    async () => {
      for (const value of ['', 'x', '-1', '99999999', '8388608', '1 2', '$(reboot)']) {
        await using board = await agent();
        counter(board, value);
        board.put(made['1.2.0']!);
        await board.slots.install();
      }
      await using board = await agent({ floor: '1.1.0' });
      const counted = counter(board, '0');
      counted.stick();
      await board.slots.keep();
      assert.deepEqual([board.slots.state().floor, counted.read()], [0x010100, 0]);
    },
  );

  test('attempts that are no number from 1 to 9 are refused', limit, async () => {
    await using board = await agent();
    board.put(made['1.2.0']!);
    await board.slots.install();
    const before = board.slots.state();
    for (const attempts of ['', '0', '10', '-1', '1x', '$(id)', '*', '08'])
      assert.equal(await board.ask('try', attempts), 'failed a slot is tried 1 to 9 times', attempts);
    assert.deepEqual(board.slots.state(), before);
  });

  test(
    'lines that are long, cut, binary or of other verbs change nothing, and the agent answers the next one',
    limit,
    async () => {
      await using board = await agent({ state: { starts: 5 } });
      const before = board.slots.state();
      const { bytes, uniform } = seededEntropy(seed);
      const lines: (string | Uint8Array)[] = [
        `try ${'1'.repeat(1000)} 3\n`,
        `${' '.repeat(64)}try 1-9 3\n`,
        `keep ../../data/root/firewall.nft\n`,
        'keep ../x\nkeep /tmp/x\nkeep .new\nkeep\n\n\n',
        '* * *\nkeep * *\n$(touch x) `touch x` ;touch x\n',
        '-n 1-7\n--\n[ 1 2\n',
        `${'x'.repeat(65)}keep 1-8\n${'x'.repeat(130)}keep 1-8\n`,
        `${'x'.repeat(65)}\n${'x'.repeat(64)}\n${'x'.repeat(66)}\n`,
        Buffer.concat([Buffer.from('try\0 1-7\0\0'), Buffer.from([10])]),
        ...Array.from({ length: 100 }, () =>
          Buffer.concat([
            Buffer.from(bytes(Math.floor(uniform() * 200))).map((one) => one || 1),
            Buffer.from('\n'),
          ]),
        ),
      ];
      for (const line of lines) {
        board.send(line);
        // A request in between, since a pipe holds only so much.
        assert.equal(await board.ask('try', '0'), 'failed a slot is tried 1 to 9 times', `seed ${seed}`);
      }
      assert.deepEqual(board.slots.state(), before);
      assert.equal(
        readdirSync(join(board.folder, 'run/agent/answers')).length,
        1,
        'there is one answer at a time',
      );
      assert.deepEqual(readdirSync(join(board.folder, 'run/agent')).toSorted(), ['answers', 'ask']);
      assert.deepEqual(readdirSync(join(board.folder, 'data/root')), []);
    },
  );

  test('a state that cannot be written is an answer, and not a trial', limit, async () => {
    await using board = await agent();
    board.put(made['1.2.0']!);
    await board.slots.install();
    for (const name of ['state-1', 'state-2']) {
      rmSync(join(board.folder, 'dev', name), { force: true });
      mkdirSync(join(board.folder, 'dev', name));
    }
    await assert.rejects(board.slots.try(2), /the boot state cannot be written/);
  });

  test(
    'its shell reads and writes copies of the state as the gateway does, whatever is in them',
    limit,
    (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'postern-shell-'));
      t.after(() => rmSync(folder, { recursive: true }));
      const { bytes, uniform } = seededEntropy(seed);
      const draw = (count: number) => Math.floor(uniform() * count);
      const random = (): Buffer => {
        const copy = Buffer.alloc(copyBytes);
        if (draw(6) === 0) copy.set(bytes(copyBytes));
        else
          for (const [index, [least, most]] of Object.values(stateFields).entries())
            copy.writeUInt32LE(
              draw(30) === 0 ? (draw(2) ? most + 1 : 0xffff_ffff) : least + draw(most - least + 1),
              4 * index + 4,
            );
        copy.writeUInt32BE(crc32(copy.subarray(4)));
        if (draw(8) === 0) copy[draw(copyBytes)]! ^= 1 << draw(8);
        return draw(20) === 0 ? copy.subarray(0, draw(copyBytes)) : copy;
      };
      const rounds = Array.from({ length: 60 }, (_, round) => {
        const files = ['a', 'b'].map((name) => join(folder, `${round}${name}`)) as [string, string];
        for (const file of files) if (draw(15) > 0) writeFileSync(file, random());
        return { files, before: new BootStateCopies(files).read() };
      });
      const script = `export PATH=${applets(join(folder, 'bin'))}
. ${folder}/boot-state
for round in $(seq 0 ${rounds.length - 1}); do
  state_copies="${folder}/\${round}a ${folder}/\${round}b"
  read_state
  echo "$good $try $left $floor $failed $starts $spare $recovered"
  left=$(((left + 1) % 10)) spare=0
  write_state || echo failed
done`;
      const library = readFileSync(join(scripts, 'boot-state'), 'utf8').replaceAll('/run/', `${folder}/`);
      writeFileSync(join(folder, 'boot-state'), library);
      const told = execFileSync('busybox', ['sh', '-c', script], { encoding: 'utf8' }).trim().split('\n');
      const number = (slot: 'A' | 'B' | undefined) => (slot ? (slot === 'A' ? 1 : 2) : 0);
      for (const [round, { files, before: was }] of rounds.entries()) {
        const facts = [
          number(was.good),
          number(was.trying),
          was.left,
          was.floor,
          number(was.failed),
          was.starts,
          number(was.spare),
          Number(was.recovered),
        ];
        assert.equal(told[round], facts.join(' '), `seed ${seed}, round ${round}`);
        const after1 = new BootStateCopies(files).read();
        assert.deepEqual(
          after1,
          { ...was, left: (was.left + 1) % 10, spare: undefined },
          `seed ${seed}, round ${round}`,
        );
      }
      assert.equal(told.length, rounds.length);
    },
  );

  test('its shell compares versions as the gateway does', limit, () => {
    const texts = [
      '1.2.3',
      '0.0.0',
      '127.255.255',
      '128.0.0',
      '1.256.0',
      '1.2',
      '1.2.3.4',
      '1.2.3-rc1',
      '1.2.3+x',
      '1.08.09',
      '',
      'v1.2.3',
      '1..3',
      '1.2.',
      '.1.2',
      '1.2.3.',
      '-1.2.3',
      '1.2.-3',
      '1.2.3 ',
      '$(id).1.1',
      '1.2.9999',
      '*',
      '1.2.3-',
      "1.2.3'",
      '00.00.01',
    ];
    const script = `. ${join(scripts, 'bundle-checks')}; for text; do version_number "$text" || echo none; done`;
    const told = execFileSync('busybox', ['sh', '-c', script, 'sh', ...texts], { encoding: 'utf8' })
      .trim()
      .split('\n');
    assert.deepEqual(
      told,
      texts.map((text) => String(versionNumber(text) ?? 'none')),
    );
  });
});
