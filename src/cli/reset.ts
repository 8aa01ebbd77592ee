import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { Command } from './runner.ts';

export const reset: Command = {
  summary: 'Deletes the state of a running gateway',
  help: `Usage: postern reset GATEWAY [--socket PATH]

GATEWAY is its ID. Devices, accounts, rights, images and alerts that wait are deleted at once; this cannot be taken back. The
configuration and the identity stay. The gateway starts anew, and its devices have to be bootstrapped again. A gateway that is to
leave is decommissioned by its DM server instead (docs/operations.md).

  --socket PATH  admin socket of the gateway, if it is not the default one`,
  options: { socket: { type: 'string' } },
  words: 1,
  async run({ socket = defaultSocket() }, _stop, [gateway = '']) {
    await askGateway(String(socket), '/reset', { gateway });
    console.log(`${gateway} deletes its state and starts anew; its devices have to be bootstrapped again`);
  },
};
