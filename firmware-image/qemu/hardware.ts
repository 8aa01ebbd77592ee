import { join } from 'node:path';
import { treeSource, trustedTreeSource } from '../recipe/device-tree.ts';
import { run } from '../recipe/tools.ts';

/** A board as QEMU emulates it. */
export interface Hardware {
  /** QEMU's name for it. */
  readonly machine: string;
  /** Arguments for all that is on it, with this disk (`format=raw,file=…`), and in the network `lan`. */
  readonly arguments: (disk: string) => string[];
  /** Source of the device tree that its boot loader runs by, with what that trusts. */
  readonly tree: (folder: string, all: readonly string[]) => string;
}

/** U-Boot for QEMU's own board, from Debian's u-boot-qemu. */
export const uBoot = '/usr/lib/u-boot/qemu_arm64/u-boot.bin';

/**
 * QEMU's own board, `virt`: one Cortex-A53, and a watchdog that resets it.
 * @param trust source of what U-Boot trusts, as the recipe made it
 * @param memory mebibytes
 */
export const virt = ({ trust, memory = 128 }: { trust: string; memory?: number | undefined }): Hardware => ({
  machine: 'virt',
  arguments: (disk) => [
    ...['-bios', uBoot, '-cpu', 'cortex-a53', '-smp', '1', '-m', String(memory)],
    ...['-drive', `if=none,id=disk,${disk}`, '-device', 'virtio-blk-pci,drive=disk'],
    ...['-device', 'virtio-net-pci,netdev=lan,romfile=', '-device', 'virtio-rng-pci'],
    ...['-device', 'i6300esb', '-serial', 'stdio'],
  ],
  tree: (folder, all) => {
    const own = join(folder, 'machine.dtb');
    // With firmware the machine has other devices than without.
    run('qemu-system-aarch64', ['-M', `virt,dumpdtb=${own}`, ...all]);
    return trustedTreeSource(own, trust);
  },
});

/**
 * A Raspberry Pi 3: of the Raspberry Pis, the latest that this QEMU knows. It has four cores, 1 GiB, an SD card and a network
 * on its USB; its watchdog resets as soon as it is armed.
 * @param bootLoader U-Boot, which lies on the disk as well; QEMU does not emulate the chip's own firmware, which loads it
 * @param tree device tree with what U-Boot trusts, as the recipe made it
 */
export const raspberryPi3 = ({ bootLoader, tree }: { bootLoader: string; tree: string }): Hardware => ({
  machine: 'raspi3b',
  arguments: (disk) => [
    ...['-kernel', bootLoader, '-drive', `if=sd,${disk}`],
    ...['-device', 'usb-net,netdev=lan'],
    // The first serial line is the one of its Bluetooth.
    ...['-serial', 'null', '-serial', 'stdio'],
  ],
  tree: () => treeSource(tree),
});
