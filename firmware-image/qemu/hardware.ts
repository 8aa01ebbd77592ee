import { join } from 'node:path';
import { treeSource, trustedTreeSource } from '../recipe/device-tree.ts';
import { run } from '../recipe/tools.ts';

/** A board that QEMU emulates. */
export interface Hardware {
  /** QEMU's name of the machine. */
  readonly machine: string;
  /** QEMU's arguments for the devices of the board. `disk` is such as `format=raw,file=…`; the network is named `lan`. */
  readonly arguments: (disk: string) => string[];
  /**
   * Source of the boot loader's device tree, with the public key and the boot script.
   * @param folder folder for temporary files
   * @param all all arguments with which QEMU will run
   */
  readonly tree: (folder: string, all: readonly string[]) => string;
}

/** U-Boot for the machine `virt`, from Debian's package u-boot-qemu. */
export const uBoot = '/usr/lib/u-boot/qemu_arm64/u-boot.bin';

/**
 * QEMU's own machine `virt`, with one Cortex-A53 and a watchdog that resets it.
 * @param trust file with the source of the public key and the boot script, as the recipe made it
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
    // QEMU dumps the device tree of exactly these arguments: with `-bios` the machine has other devices than without.
    run('qemu-system-aarch64', ['-M', `virt,dumpdtb=${own}`, ...all]);
    return trustedTreeSource(own, trust);
  },
});

/**
 * A Raspberry Pi 3, the latest Raspberry Pi that QEMU 7.2 emulates. It has four cores, 1 GiB of memory, an SD card and a
 * network adapter on USB. Its emulated watchdog resets the board as soon as it is started.
 * @param bootLoader file with U-Boot. It is on the disk as well, but QEMU does not emulate the chip's firmware that would
 *   load it from there
 * @param tree file with the device tree that has the public key and the boot script, as the recipe made it
 */
export const raspberryPi3 = ({ bootLoader, tree }: { bootLoader: string; tree: string }): Hardware => ({
  machine: 'raspi3b',
  arguments: (disk) => [
    ...['-kernel', bootLoader, '-drive', `if=sd,${disk}`],
    ...['-device', 'usb-net,netdev=lan'],
    // The first serial line belongs to Bluetooth.
    ...['-serial', 'null', '-serial', 'stdio'],
  ],
  tree: () => treeSource(tree),
});
