import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { Command } from './runner.ts';

export const reset: Command = {
  summary: 'Deletes the state of a running gateway',
  help: `Usage: postern reset GATEWAY [--socket PATH]

GATEWAY is its ID. Configuration and identity stay.

  --socket PATH  admin socket of the gateway, if it is not the default one`,
  options: { socket: { type: 'string' } },
  words: 1,
  async run({ socket = defaultSocket() }, _stop, [gateway = '']) {
    await askGateway(String(socket), '/reset', { gateway });
  },
};
