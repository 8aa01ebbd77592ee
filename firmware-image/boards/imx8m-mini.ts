import { type Board, commonModules, withoutMeltdown } from './board.ts';

/**
 * NXP i.MX8M Mini, from SD card or eMMC. Its boot loader contains NXP's firmware for the memory controller, which Debian
 * does not have. Therefore the option --boot-loader must give the board's flash.bin. Its U-Boot must be built with the
 * settings of recipe/boot-loader.ts, and with trust.dts in its device tree (CONFIG_DEVICE_TREE_INCLUDES). The image was
 * built but never booted.
 */
export const imx8mMini: Board = {
  name: 'imx8m-mini',
  description: 'NXP i.MX8M Mini (EVK)',
  packages: [],
  console: 'ttymxc1,115200',
  kernelArguments: [withoutMeltdown],
  modules: {
    initramfs: [
      'fixed',
      'sdhci-esdhc-imx',
      'mmc_block',
      'imx2_wdt timeout=60 nowayout=1',
      ...commonModules.initramfs,
    ],
    // The clock of the chip, where a battery keeps it.
    root: ['fec', 'at803x', 'rtc-snvs', ...commonModules.root],
  },
  deviceTrees: ['freescale/imx8mm-evk.dtb'],
  disk: { interface: 'mmc', number: 1 },
  bootLoaderAt: 33 * 1024,
  addresses: { fit: '0x50000000', kernel: '0x40400000', state: '0x4f000000' },
};
