import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { Command } from './runner.ts';

export const reset: Command = {
  summary: 'Deletes the state of a running gateway, which starts anew',
  help: `Usage: postern reset GATEWAY [--socket PATH]

GATEWAY is the ID of the gateway. Devices, accounts, rights, images and alerts are deleted. Configuration, identity and version
stay, so the gateway serves again at once; its devices have to be bootstrapped again. This cannot be taken back.

  --socket PATH  admin socket of the gateway, if it is not the default one`,
  options: { socket: { type: 'string' } },
  words: 1,
  async run({ socket = defaultSocket() }, _stop, [gateway = '']) {
    await askGateway(String(socket), '/reset', { gateway });
    console.log(`${gateway} is reset`);
  },
};
