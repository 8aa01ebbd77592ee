import { resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { PosternError } from '../base/errors.ts';
import { indented, inOneLine } from '../base/safe-text.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { UpdateStatus } from '../gateway/update/updater.ts';
import { FumoResult, FumoState } from '../mo/fumo.ts';
import type { Command } from './runner.ts';

/** Milliseconds between two requests for the progress. */
const interval = 500;

export const update: Command = {
  summary: 'Updates a running gateway from a file, or shows its slots',
  help: `Usage: postern update [status] [--socket PATH]
       postern update install FILE|URL [--socket PATH]
       postern update cancel [--socket PATH]

'status' shows the slots and the result of the last update. 'install' has the gateway install a signed bundle, from a file of
this machine or an http or https URL. The gateway writes the bundle to the slot that is not running and restarts into it.
If the new slot is not healthy, the old one is started again. 'cancel' ends an update, until its installation begins.

  --socket PATH  admin socket of the gateway, if it is not the default one`,
  options: { socket: { type: 'string' } },
  words: 2,
  async run({ socket = defaultSocket() }, stop, [verb = 'status', bundle]) {
    const path = String(socket);
    if (verb === 'status' && bundle === undefined)
      return console.log(describe((await askGateway(path, '/update')) as UpdateStatus));
    if (verb === 'cancel' && bundle === undefined) {
      await askGateway(path, '/update/cancel', {});
      return console.log('cancelled');
    }
    if (verb !== 'install' || bundle === undefined)
      throw new PosternError(
        'malformed',
        "expected 'status', 'install FILE|URL' or 'cancel'; see 'postern update --help'",
      );
    const url = /^https?:/.test(bundle) ? bundle : `file:${resolve(bundle)}`;
    await askGateway(path, '/update', { url });
    await follow(path, stop);
  },
};

/** Prints the progress of an update until the gateway restarts, refuses the update, or runs the new slot already. */
async function follow(socket: string, stop: AbortSignal): Promise<void> {
  let said = '';
  while (!stop.aborted) {
    const now = (await askGateway(socket, '/update').catch(() => undefined)) as UpdateStatus | undefined;
    if (!now || now.trying !== undefined)
      return console.log(
        'installed; the gateway restarts, and returns to the old slot if the new one is not healthy',
      );
    // The restart and the health check can both fall between two looks.
    if (now.result === FumoResult.Ok) return console.log('installed; the new slot is healthy');
    if (now.result !== undefined)
      throw new PosternError('unavailable', `the update was refused with ${now.result}: ${now.reason}`);
    const line = progress(now);
    if (line !== said) console.log(line);
    said = line;
    await wait(interval, undefined, { signal: stop }).catch(() => {});
  }
}

const stateNames: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(FumoState).map(([name, number]) => [
    number,
    name.replace(/(?!^)[A-Z]/g, (letter) => ` ${letter}`).toLowerCase(),
  ]),
);

const progress = ({ state, received, total }: UpdateStatus): string => {
  const name = stateNames[state] ?? String(state);
  return received === undefined
    ? name
    : `${name}, ${Math.floor(received / 1e6)}${total ? ` of ${Math.ceil(total / 1e6)}` : ''} MB`;
};

const describe = ({ slot, version, good, trying, state, window, result, reason }: UpdateStatus): string =>
  [
    `slot     ${slot} runs, version ${inOneLine(version)}; ${good} is good${trying ? `, ${trying} is on trial` : ''}`,
    `state    ${stateNames[state] ?? state}${result === undefined ? '' : `, result ${result}`}${window === undefined ? '' : `, waits for ${window} UTC`}`,
    ...(reason === undefined ? [] : [`reason   ${indented(reason, ' '.repeat(9))}`]),
  ].join('\n');
