import { SystemClock } from '../base/clock.ts';
import { systemEntropy } from '../base/entropy.ts';
import { LogEvents } from '../base/log.ts';
import { launch as launchSlots } from '../gateway/update/launcher.ts';
import type { Command } from './runner.ts';

export const launch: Command = {
  summary: 'Runs a DM Gateway that can update itself, without the firmware image',
  help: `Usage: postern launch [--slots DIR] [--config FILE]

Does for a machine or a container what the boot loader does for a board. It starts the gateway from one of two slots. After
an update it tries the new slot, and returns to the old one if the new one is not healthy. It starts no program that was
changed or is below the floor, and ends one that does not answer any more. At first it copies this program into slot A. The
configuration needs

  [update]
  slots = "directory"
  directory = "/var/lib/postern/slots"
  authority = "/etc/postern/update-ca.pem"

SIGINT, SIGTERM and SIGHUP are passed on to the gateway.

  --slots DIR    folder of the slots, the same as update.directory; by default /var/lib/postern/slots
  --config FILE  configuration of the gateway; by default /etc/postern/gateway.toml`,
  options: { slots: { type: 'string' }, config: { type: 'string' } },
  reloads: true,
  async run(
    { slots = '/var/lib/postern/slots', config = '/etc/postern/gateway.toml' },
    stop,
    _words,
    hangUps,
  ) {
    await launchSlots(
      {
        directory: String(slots),
        ownProgram: process.argv[1]!,
        args: ['gateway', '--config', String(config)],
        clock: new SystemClock(),
        entropy: systemEntropy,
        events: new LogEvents('info', 'launcher'),
        onReload: (reload) => hangUps.on(reload),
      },
      stop,
    );
  },
};
