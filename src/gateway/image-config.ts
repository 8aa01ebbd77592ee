import * as v from 'valibot';
import { described, fileOf, integerBetween, text } from '../base/config.ts';
import { windowForm } from './update/maintenance.ts';

/** The table `[images]` of the gateway's configuration: images for devices. */
export const imagesSection = v.optional(
  v.strictObject({
    directory: described(
      v.optional(text),
      'Folder for the images of the Image Inventory; by default beside the state file',
    ),
    quota: described(v.optional(integerBetween(1, 65_536), 256), 'Mebibytes for all images together'),
    count: described(v.optional(integerBetween(1, 1024), 64), 'Maximum number of images'),
    ca: described(
      v.optional(fileOf('authorities')),
      "PEM file of the authorities for download servers; by default the machine's own",
    ),
    'signing-keys': described(
      v.optional(v.array(fileOf('public-key')), []),
      'PEM files of public keys. If there are any, an image must be signed by one of them',
    ),
  }),
  {},
);

/** The table `[update]`: updates of the gateway itself. */
export const updateSection = described(
  v.optional(
    v.strictObject({
      slots: described(
        v.picklist(['rauc', 'directory'], '"rauc" or "directory"'),
        '`rauc` in the firmware image; `directory` with `postern launch`',
      ),
      directory: described(
        v.optional(text, '/var/lib/postern/slots'),
        'Folder of the slots, for `slots = "directory"`',
      ),
      authority: described(
        v.optional(fileOf('authorities')),
        'PEM file of the authorities that certify the signers of bundles. The firmware image has its own',
      ),
      'second-authority': described(
        v.optional(fileOf('authorities')),
        'PEM file of the authorities for second signers: with it, a bundle needs a second signature. The firmware image has its own',
      ),
      ca: described(
        v.optional(fileOf('authorities')),
        "PEM file of the authorities for download servers; by default the machine's own",
      ),
      'allow-older': described(v.optional(v.boolean(), false), 'Accept a version older than the running one'),
      'retry-for': described(
        v.optional(integerBetween(60, 604_800), 21_600),
        'Seconds for which a download that does not go on is tried again. What was received is kept',
      ),
      window: described(
        v.optional(v.pipe(v.string(), v.regex(windowForm, 'a time such as 02:00-04:00'))),
        'Time of the day, in UTC, in which an update that a DM server ordered is installed and started: `"02:00-04:00"`. It may pass midnight. By default at any time',
      ),
      attempts: described(
        v.optional(integerBetween(1, 9), 3),
        'Starts of a new version before the old one is restored',
      ),
      'health-deadline': described(
        v.optional(integerBetween(10, 3600), 120),
        'Seconds after a start in which a new version must become healthy',
      ),
      watchdog: described(
        v.optional(text),
        'Watchdog device of the kernel, such as `/dev/watchdog`. The gateway feeds it while it answers CoAP, and never disarms it: a machine whose gateway is stopped restarts',
      ),
    }),
  ),
  'Updates of the gateway itself, by its DM server (FUMO) or by `postern update`. Off without this table',
);
