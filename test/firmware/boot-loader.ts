import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Board } from '../../firmware-image/boards/board.ts';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import { makeFit, recoveryName } from '../../firmware-image/recipe/boot-image.ts';
import { trustSource } from '../../firmware-image/recipe/disk.ts';
import { type SigningKeys, signingKeys } from '../../firmware-image/recipe/keys.ts';
import { mebibyte, type PartitionName, startOf } from '../../firmware-image/recipe/layout.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import {
  type BootState,
  BootStateCopies,
  copyBytes,
  type SlotName,
} from '../../src/gateway/update/boot-state.ts';

/**
 * Machine code in the kernel's place. It writes the device tree that it got, with the kernel's arguments in it, to the serial
 * line of QEMU's machine `virt`, and resets the machine.
 */
function witness(): Buffer {
  const image = Buffer.alloc(128);
  const code = [
    0xb9400401, // ldr w1, [x0, #4]: the size of the device tree
    0x5ac00821, // rev w1, w1
    0xd2a12002, // mov x2, #0x09000000: the serial line
    0x38401403, // ldrb w3, [x0], #1
    0x39000043, // strb w3, [x2]
    0x71000421, // subs w1, w1, #1
    0x54ffffa1, // b.ne -3
    0x52800120, // mov w0, #9
    0x72b08000, // movk w0, #0x8400, lsl #16: PSCI's SYSTEM_RESET
    0xd4000002, // hvc #0
    0x14000000, // b .
  ];
  // The head of an arm64 kernel: a jump behind the head, the size, and its mark.
  image.writeUInt32LE(0x14000010, 0);
  image.writeBigUInt64LE(BigInt(image.length), 16);
  image.write('ARM\x64', 56, 'latin1');
  for (const [index, word] of code.entries()) image.writeUInt32LE(word, 64 + 4 * index);
  return image;
}

/** What a start of the boot loader led to. */
export interface Outcome {
  /** Arguments of the kernel that was started; undefined when none was. */
  readonly kernelArguments: string | undefined;
  readonly slot: SlotName | undefined;
  /** Whether the recovery system was started. */
  readonly isRecovery: boolean;
  /** Whether the slot is on trial. */
  readonly trying: boolean;
  /** Everything on the serial line. */
  readonly said: string;
}

/**
 * U-Boot of the machine `virt` in QEMU, with the boot script of the image, and a disk of which both slots have a signed image
 * that only tells how it was started.
 */
export class BootLoader implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'postern-boot-'));
  readonly #disk = join(this.#folder, 'disk');
  #command: readonly string[];
  readonly #images: Partial<Record<SlotName, Buffer>> = {};
  #made = 0;

  /** The signed image of the recovery system. */
  recovery: Buffer = Buffer.alloc(0);
  readonly #board: Board;
  readonly #devices: readonly string[];

  /**
   * @param versions versions of the images in the slots
   * @param keys by which all images are signed, and which the boot loader trusts
   * @param devices further arguments of QEMU
   */
  constructor(
    versions: Readonly<Record<SlotName, string>>,
    keys = signingKeys(undefined),
    { board = qemu, devices = [] }: { board?: Board; devices?: readonly string[] } = {},
  ) {
    this.#board = board;
    this.#devices = devices;
    run('truncate', ['-s', `${startOf('root-b')}M`, this.#disk]);
    for (const slot of ['A', 'B'] as const) this.sign(slot, versions[slot], keys);
    this.put('recovery', this.recovery);
    this.#command = this.#commandWith(join(this.#folder, 'trust-2.dtb'));
  }

  /** Puts a signed image into a slot. Returns the device tree with the keys that this image brings for the boot loader. */
  sign(slot: SlotName, version: string, keys: SigningKeys): string {
    const folder = join(this.#folder, `image-${++this.#made}`);
    mkdirSync(folder);
    const kernelImage = join(folder, `witness-${slot}`);
    writeFileSync(kernelImage, witness());
    const initramfs = join(folder, 'initramfs');
    writeFileSync(initramfs, 'no initramfs');
    const parts = {
      board: this.#board,
      kernelImage,
      deviceTrees: '',
      version,
      date: 1_700_000_000,
      keys,
    };
    this.recovery = readFileSync(makeFit(folder, initramfs, parts, recoveryName));
    this.#images[slot] = readFileSync(makeFit(folder, initramfs, parts));
    this.put(`boot-${slot.toLowerCase() as 'a' | 'b'}`, this.image(slot));
    const trust = join(this.#folder, `trust-${this.#made}.dtb`);
    copyFileSync(join(folder, 'trust.dtb'), trust);
    return trust;
  }

  /** Has the machine start by a boot loader with these keys. */
  load(trust: string): void {
    this.#command = this.#commandWith(trust);
  }

  #commandWith(trust: string): readonly string[] {
    const source = join(this.#folder, 'trust.dts');
    writeFileSync(source, trustSource(this.#board, trust));
    const hardware = virt({ trust: source });
    const all = [
      ...['-nographic', '-no-user-config', '-nodefaults', '-netdev', 'user,id=lan'],
      ...hardware.arguments(`format=raw,cache=writeback,file=${this.#disk}`),
      ...this.#devices,
    ];
    const tree = join(this.#folder, 'trusted.dtb');
    const text = hardware.tree(this.#folder, all);
    run('dtc', ['-q', '-I', 'dts', '-O', 'dtb', '-p', '4096', '-o', tree, '-'], { input: text });
    return ['-M', hardware.machine, '-no-reboot', '-dtb', tree, ...all];
  }

  /** The signed image of a slot. */
  image(slot: SlotName): Buffer {
    return this.#images[slot]!;
  }

  /** Writes to a partition. */
  put(name: PartitionName, bytes: Uint8Array): void {
    const disk = openSync(this.#disk, 'r+');
    writeSync(disk, bytes, 0, bytes.length, startOf(name) * mebibyte);
    closeSync(disk);
  }

  /** Reads a copy of the boot state. */
  get(name: 'state-1' | 'state-2'): Buffer {
    const disk = openSync(this.#disk, 'r');
    const bytes = Buffer.alloc(copyBytes);
    readSync(disk, bytes, 0, bytes.length, startOf(name) * mebibyte);
    closeSync(disk);
    return bytes;
  }

  /** The boot state on the disk. `changes` are written first, when there are any. */
  state(changes?: Partial<BootState>): BootState {
    const files = (['state-1', 'state-2'] as const).map((name) => {
      const file = join(this.#folder, name);
      writeFileSync(file, this.get(name));
      return file;
    });
    const copies = new BootStateCopies([files[0]!, files[1]!]);
    if (changes === undefined) return copies.read();
    copies.change(changes);
    for (const [index, name] of (['state-1', 'state-2'] as const).entries())
      this.put(name, readFileSync(files[index]!));
    return copies.read();
  }

  /** Switches the machine on, and waits until it resets itself. `isReadOnly`: its disk takes no writes. */
  async start({ isReadOnly = false } = {}): Promise<Outcome> {
    const command = this.#command.map((one) =>
      isReadOnly ? one.replace('if=none,', 'if=none,readonly=on,') : one,
    );
    const child = spawn('qemu-system-aarch64', command, { stdio: ['ignore', 'pipe', 'inherit'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const [code] = (await once(child, 'close')) as [number | null];
    clearTimeout(timer);
    const said = Buffer.concat(chunks).toString('latin1');
    if (code !== 0) throw new Error(`the machine did not reset itself:\n${said.slice(-2000)}`);
    const [, rest] = said.split('Starting kernel ...');
    // The boot script is in the tree as well. There the arguments have names of variables in them.
    const found = /console=[^\0$]*(?=\0)/.exec(rest ?? '')?.[0];
    const slot = /postern\.slot=([AB]) /.exec(found ?? '')?.[1] as SlotName | undefined;
    const isRecovery = /postern\.recovery=1 /.test(found ?? '');
    return { kernelArguments: found, slot, isRecovery, trying: /postern\.trying=1/.test(found ?? ''), said };
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}
