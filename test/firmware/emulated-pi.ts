import type { Board } from '../../firmware-image/boards/board.ts';
import { raspberryPi4 } from '../../firmware-image/boards/raspberry-pi-4.ts';

/**
 * The Raspberry Pi 4 as far as it can be emulated: as a Raspberry Pi 3, which has the same boot loader and serial line, its SD
 * card at another controller, its network on USB, and no watchdog that could be armed.
 */
export const emulatedPi: Board = {
  ...raspberryPi4,
  name: 'emulated-pi',
  modules: {
    initramfs: [
      'bcm2835',
      ...raspberryPi4.modules.initramfs.filter((module) => !module.startsWith('bcm2835_wdt')),
    ],
    root: ['dwc2', 'cdc_ether', ...raspberryPi4.modules.root],
  },
  firmware: (files) => ({
    ...raspberryPi4.firmware?.(files),
    'bcm2837-rpi-3-b.dtb': files.trustedTree('broadcom/bcm2837-rpi-3-b.dtb'),
  }),
};
