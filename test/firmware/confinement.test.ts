import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { callFilter, confiningLauncher, deniedCalls } from '../../firmware-image/recipe/confinement.ts';

const header = '/usr/include/asm-generic/unistd.h';
const arm64 = 0xc000_00b7;
const [allowed, notPermitted, noCall, noFamily] = [0x7fff_0000, 0x5_0001, 0x5_0026, 0x5_0061] as const;

/** What the filter says of a call: an interpreter of the instructions that it uses. */
function judge(number: number, args: readonly number[] = [], architecture = arm64): number {
  const filter = callFilter();
  const words: Readonly<Record<number, number>> = {
    0: number,
    4: architecture,
    16: args[0] ?? 0,
    24: args[1] ?? 0,
  };
  let value = 0;
  for (let at = 0; at < filter.length; at++) {
    const { code, ifTrue, ifFalse, operand } = filter[at]!;
    if (code === 0x20) value = words[operand]!;
    else if (code === 0x54) value = (value & operand) >>> 0;
    else if (code === 0x15) at += value === operand ? ifTrue : ifFalse;
    else if (code === 0x25) at += value > operand ? ifTrue : ifFalse;
    else if (code === 0x06) return operand;
    else throw new Error(`there is no instruction ${code}`);
  }
  throw new Error('the filter has no end');
}

test('the numbers of the calls are those of the kernel', { skip: !existsSync(header) }, () => {
  const text = readFileSync(header, 'utf8');
  for (const [name, number] of Object.entries(deniedCalls)) {
    const [, found] = new RegExp(`#define __NR(?:3264)?_${name} (\\d+)`).exec(text) ?? [];
    // A header that is older than the call does not have it.
    assert.equal(Number(found ?? number), number, name);
  }
  for (const [name, number] of [
    ['ioctl', 29],
    ['socket', 198],
    ['clone', 220],
    ['clone3', 435],
    ['execve', 221],
  ] as const)
    assert.match(text, new RegExp(`#define __NR_${name} ${number}\\n`), name);
});

test('calls that are denied fail, others go through, and calls that nobody knows yet do not exist', () => {
  for (const [name, number] of Object.entries(deniedCalls)) assert.equal(judge(number), notPermitted, name);
  const denied = new Set([...Object.values(deniedCalls), 198, 435]);
  for (let number = 0; number <= 450; number++)
    if (!denied.has(number)) assert.equal(judge(number), allowed, String(number));
  for (const number of [451, 462, 1000, 0x7fff_ffff, 0xffff_ffff]) assert.equal(judge(number), noCall);
  assert.equal(judge(435), noCall);
  // Calls of 32-bit programs.
  assert.equal(judge(64, [], 0x4000_0028), noCall);
});

test('sockets of four families, no namespaces, and nothing is typed on a terminal', () => {
  for (let family = 0; family < 50; family++)
    assert.equal(judge(198, [family]), [1, 2, 10, 16].includes(family) ? allowed : noFamily, String(family));
  // What glibc makes a thread and a process by.
  for (const flags of [0x3d0f00, 0x0120_0011, 0x4111]) assert.equal(judge(220, [flags]), allowed);
  for (const flag of [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000])
    assert.equal(judge(220, [(flag | 0x11) >>> 0]), notPermitted, flag.toString(16));
  assert.equal(judge(29, [0, 0x5412]), notPermitted);
  assert.equal(judge(29, [0, 0x5401]), allowed);
});

test('the launcher is a program, and starts nothing where the kernel does not take the filter', {
  skip: spawnSync('which', ['qemu-aarch64-static']).status !== 0,
}, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-confine-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'confine');
  writeFileSync(file, confiningLauncher(), { mode: 0o755 });
  // QEMU's user emulation has no filters. test/firmware/long.test.ts shows the rest in a real kernel.
  const start = (...args: string[]) => {
    const { status, stdout } = spawnSync('qemu-aarch64-static', [file, ...args], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, GREETING: 'started' },
    });
    return [status, stdout];
  };
  const command = ['/bin/sh', '-c', 'echo $GREETING $1 $#', 'sh', 'a b', 'c'];
  assert.deepEqual(start(...command), [125, '']);
  // With a call in place of the filter's that the emulation takes (PR_SET_PDEATHSIG): arguments and environment are passed on.
  const other = confiningLauncher();
  const at = other.indexOf(Buffer.from([0xc0, 0x02, 0x80, 0xd2]));
  other.writeUInt32LE(0xd280_0020, at);
  writeFileSync(file, other, { mode: 0o755 });
  assert.deepEqual(start(...command), [0, 'started a b 2\n']);
  assert.deepEqual(start('/nowhere'), [126, '']);
});
