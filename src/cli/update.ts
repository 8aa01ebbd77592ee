import { resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { PosternError } from '../base/errors.ts';
import { askGateway, defaultSocket } from '../gateway/console/admin-api.ts';
import type { UpdateStatus } from '../gateway/update/updater.ts';
import { FumoResult, FumoState } from '../mo/fumo.ts';
import type { Command } from './runner.ts';

/** Milliseconds between looks at how far it is. */
const interval = 500;

export const update: Command = {
  summary: 'Updates a running gateway from a file, or shows its slots',
  help: `Usage: postern update [status] [--socket PATH]
       postern update install FILE|URL [--socket PATH]

'status' shows which slots there are, and how the last update ended. With 'install' the gateway takes a signed bundle, from a
file of this machine or an http or https URL, writes it to the slot that does not run, and starts into it; it goes back by
itself when that does not prove healthy.

  --socket PATH  admin socket of the gateway, where it is not the usual one`,
  options: { socket: { type: 'string' } },
  words: 2,
  async run({ socket = defaultSocket() }, stop, [verb = 'status', bundle]) {
    const path = String(socket);
    if (verb === 'status' && bundle === undefined)
      return console.log(describe((await askGateway(path, '/update')) as UpdateStatus));
    if (verb !== 'install' || bundle === undefined)
      throw new PosternError('malformed', "'postern update --help' tells what there is");
    const url = /^https?:/.test(bundle) ? bundle : `file:${resolve(bundle)}`;
    await askGateway(path, '/update', { url });
    await follow(path, stop);
  },
};

/** Says how far an update is, until the gateway starts again, the update is refused, or the new slot is healthy already. */
async function follow(socket: string, stop: AbortSignal): Promise<void> {
  let said = '';
  while (!stop.aborted) {
    const now = (await askGateway(socket, '/update').catch(() => undefined)) as UpdateStatus | undefined;
    if (!now || now.trying !== undefined)
      return console.log('installed; the gateway starts again, and goes back if the new slot is not healthy');
    // The restart and the health check can both fall between two looks.
    if (now.result === FumoResult.Ok) return console.log('installed; the new slot is healthy');
    if (now.result !== undefined)
      throw new PosternError('unavailable', `refused with ${now.result}: ${now.reason}`);
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

const describe = ({ slot, version, good, trying, state, result, reason }: UpdateStatus): string =>
  [
    `slot     ${slot} runs, version ${version}; ${good} is good${trying ? `, ${trying} is being tried` : ''}`,
    `state    ${stateNames[state] ?? state}${result === undefined ? '' : `, result ${result}`}`,
    ...(reason === undefined ? [] : [`because  ${reason}`]),
  ].join('\n');
