import type { Board } from '../../firmware-image/boards/board.ts';
import { raspberryPi4 } from '../../firmware-image/boards/raspberry-pi-4.ts';

/**
 * The image of the Raspberry Pi 4 for an emulated Raspberry Pi 3. Boot loader and serial line are the same. The SD card is at
 * another controller, the network adapter is on USB, and the watchdog is not used, since the emulated one resets at once.
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
