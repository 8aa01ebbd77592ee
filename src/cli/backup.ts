import { resolve } from 'node:path';
import { PosternError } from '../base/errors.ts';
import { backUp } from '../base/state-copies.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { Command } from './runner.ts';

export const backup: Command = {
  summary: 'Writes a copy of the state of a gateway, head-end or device',
  help: `Usage: postern backup FILE [--socket PATH]
       postern backup FILE --state STATE

Writes a consistent copy of the state to a new file. The party may run meanwhile. The file holds secrets; only its owner can
read it. 'postern restore' takes it back.

  --socket PATH  admin socket of the running gateway, if it is not the default one
  --state STATE  state file to be copied, of any party; no socket is needed`,
  options: { socket: { type: 'string' }, state: { type: 'string' } },
  words: 1,
  async run({ socket = defaultSocket(), state }, _stop, [file]) {
    if (file === undefined)
      throw new PosternError('malformed', "expected a file; see 'postern backup --help'");
    const target = resolve(file);
    if (state === undefined) await askGateway(String(socket), '/backup', { target });
    else await backUp(String(state), target);
    console.log(`the state is copied to ${target}`);
  },
};
