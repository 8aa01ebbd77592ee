import { resolve } from 'node:path';
import { PosternError } from '../base/errors.ts';
import { backUpWithKey, keyFileOf } from '../base/sealing.ts';
import { backUp } from '../base/state-copies.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { Command } from './runner.ts';

export const backup: Command = {
  summary: 'Writes a copy of the state of a gateway, head-end or device',
  help: `Usage: postern backup FILE [--with-key] [--socket PATH]
       postern backup FILE [--with-key] --state STATE

Writes a consistent copy of the state to a new file. The party may run meanwhile. Only the owner can read the file. 'postern
restore' takes it back.

The secrets of a gateway in it can be read with the key of this gateway only. For a gateway that is to be restored on another
board, take the key along, and keep both files where nobody else gets them.

  --with-key     write the key too, as FILE.key
  --socket PATH  admin socket of the running gateway, if it is not the default one
  --state STATE  state file to be copied, of any party; no socket is needed`,
  options: { socket: { type: 'string' }, state: { type: 'string' }, 'with-key': { type: 'boolean' } },
  words: 1,
  async run({ socket = defaultSocket(), state, 'with-key': key = false }, _stop, [file]) {
    if (file === undefined)
      throw new PosternError('malformed', "expected a file; see 'postern backup --help'");
    const target = resolve(file);
    if (state === undefined) await askGateway(String(socket), '/backup', { target, key });
    else if (key) await backUpWithKey(String(state), target, () => backUp(String(state), target));
    else await backUp(String(state), target);
    console.log(`the state is copied to ${target}${key ? `, and its key to ${keyFileOf(target)}` : ''}`);
  },
};
