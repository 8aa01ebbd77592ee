import { type Board, commonModules, withoutMeltdown } from './board.ts';

/**
 * Raspberry Pi 4 and Compute Module 4, from SD card or eMMC. The first boot stage is in ROM and EEPROM. It reads
 * start4.elf, U-Boot and the device tree from CONFIG; the device tree has the public key. Only the EEPROM's own signed
 * boot makes the chip check these files. The image was tested on an emulated Raspberry Pi 3
 * (test/firmware/emulated-pi.ts).
 */
export const raspberryPi4: Board = {
  name: 'raspberry-pi-4',
  description: 'Raspberry Pi 4, Compute Module 4',
  packages: ['raspi-firmware'],
  console: 'ttyS1,115200',
  kernelArguments: [withoutMeltdown],
  modules: {
    initramfs: [
      'fixed',
      'gpio-regulator',
      'sdhci_iproc',
      'mmc_block',
      'bcm2835_wdt heartbeat=15 nowayout=1',
      ...commonModules.initramfs,
    ],
    root: ['broadcom', 'bcm_phy_lib', 'genet', 'iproc_rng200', ...commonModules.root],
  },
  parts: {
    wifi: {
      modules: ['brcmfmac'],
      packages: ['firmware-brcm80211'],
      files: {
        'lib/firmware/cypress/cyfmac43455-sdio.bin': 'lib/firmware/brcm/brcmfmac43455-sdio.bin',
        'lib/firmware/cypress/cyfmac43455-sdio.clm_blob': 'lib/firmware/brcm/brcmfmac43455-sdio.clm_blob',
        'lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt':
          'lib/firmware/brcm/brcmfmac43455-sdio.txt',
      },
    },
    cellular: { modules: ['reset-raspberrypi', 'xhci-pci'] },
  },
  deviceTrees: [],
  disk: { interface: 'mmc', number: 0 },
  addresses: { fit: '0x10000000', kernel: '0x00200000', state: '0x0f000000' },
  firmware: ({ find, uBoot, trustedTree, text }) => ({
    'start4.elf': find('usr/lib/raspi-firmware/start4.elf'),
    'fixup4.dat': find('usr/lib/raspi-firmware/fixup4.dat'),
    'u-boot.bin': uBoot('rpi_arm64'),
    'bcm2711-rpi-4-b.dtb': trustedTree('broadcom/bcm2711-rpi-4-b.dtb'),
    'bcm2711-rpi-cm4.dtb': trustedTree('broadcom/bcm2711-rpi-cm4-io.dtb'),
    'config.txt': text('config.txt', 'arm_64bit=1\nenable_uart=1\nkernel=u-boot.bin\n'),
  }),
};
