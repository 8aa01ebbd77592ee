import { type Board, commonModules, withoutMeltdown } from './board.ts';

/** The `virt` machine of QEMU. This is the board that the tests boot. */
export const qemu: Board = {
  name: 'qemu-arm64',
  description: 'QEMU virt, emulated Cortex-A53',
  packages: [],
  console: 'ttyAMA0',
  kernelArguments: [withoutMeltdown],
  modules: {
    initramfs: [
      'virtio_pci',
      'virtio_mmio',
      'virtio_blk',
      'virtio-rng',
      'i6300esb heartbeat=60 nowayout=1',
      ...commonModules.initramfs,
    ],
    root: ['virtio_net', ...commonModules.root],
  },
  // The kernel emulates the radio.
  parts: { wifi: { modules: ['mac80211_hwsim radios=1'] }, cellular: { modules: ['xhci-pci'] } },
  deviceTrees: [],
  disk: { interface: 'virtio', number: 0 },
  addresses: { fit: '0x44000000', kernel: '0x40400000', state: '0x43000000' },
};
