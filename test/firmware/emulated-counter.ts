import type { FloorCounter } from '../../firmware-image/boards/board.ts';

/**
 * A counter of the floor for QEMU's machine `virt`: the first sector of a second disk. That it only goes up is left to the
 * program here; on a real board the part itself sees to it.
 */
export const emulatedCounter: FloorCounter = {
  uBoot: (address) => `virtio dev 1 && virtio read ${address} 0 1`,
  program: `#!/bin/sh
# The floor counter of an emulated board: 32 bits at the start of its second disk.
device=/dev/vdb
now=$(od -A n -v -t u4 -N 4 $device) || exit 1
now=$((now))
case "$1" in
  get) echo $now ;;
  raise)
    [ "$2" -gt $now ] || exit 0
    printf "\\\\$(printf %03o $(($2 & 255)))\\\\$(printf %03o $(($2 >> 8 & 255)))\\\\$(printf %03o $(($2 >> 16 & 255)))\\\\000" |
      dd of=$device bs=4 count=1 conv=notrunc,fsync 2> /dev/null
    ;;
esac
`,
  modules: [],
};

/** QEMU's arguments for the second disk. It comes after the first one, so its number is 1. */
export const counterDevice = (file: string): string[] => [
  ...['-drive', `if=none,id=counter,format=raw,file=${file}`],
  ...['-device', 'virtio-blk-pci,drive=counter'],
];
