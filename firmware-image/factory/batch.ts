import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from '../recipe/tools.ts';
import { codeHash, type Identity, newIdentities } from './identities.ts';
import { label, labelSheet } from './label.ts';
import { boardConfig, readTemplate, tryBoard } from './template.ts';

/** Most boards of a batch: the API of a head-end takes a manifest of 1.5 MB, and 10,000 codes in all. */
export const mostBoards = 5000;
/** Most days until the codes of a batch end. Boards lie in a warehouse for long, and codes that lie there longer leak. */
export const mostDays = 1825;

/** What `makeBatch` is to make. */
export interface BatchOrder {
  /** Name of the batch. */
  readonly batch: string;
  /** Beginning of the names of gateways. */
  readonly site: string;
  readonly count: number;
  /** File with the gateway.toml of all boards. */
  readonly config: string;
  /** Days until the codes end. */
  readonly days: number;
  /** Folder to be made. */
  readonly to: string;
}

/**
 * Makes the identities of a batch, with all files. The folder is either complete or absent: it has another name until all of it is
 * on the disk. Two runs at once do not get into each other's way.
 * @throws {Error} when the folder exists, the configuration is not one for boards, or the disk is full; nothing is left then
 */
export function makeBatch(order: BatchOrder): Identity[] {
  const { to } = order;
  const part = `${to}.part`;
  if (existsSync(to))
    throw new Error(`${to} exists: a batch is made once, and further boards need another folder`);
  mkdirSync(dirname(to), { recursive: true });
  try {
    mkdirSync(part, { mode: 0o700 });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown;
    throw new Error(
      `${part} exists: another run makes this batch, or was ended by force. If none runs, delete it`,
    );
  }
  try {
    const made = writeBatch(order, part);
    run('sync', ['-f', part]);
    renameSync(part, to);
    return made;
  } catch (thrown) {
    rmSync(part, { recursive: true });
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown;
    throw new Error(`the disk is full: nothing was made of the batch in ${to}`);
  }
}

function writeBatch({ batch, site, count, config, days }: BatchOrder, folder: string): Identity[] {
  const template = readTemplate(config);
  const boards = newIdentities(site, count);
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text, { mode: 0o600 });
  for (const name of ['config', 'labels']) mkdirSync(join(folder, name), { mode: 0o700 });
  const labels = boards.map((board, at) => {
    const own = join(folder, 'config', board.serial);
    mkdirSync(own, { mode: 0o700 });
    for (const [name, from] of Object.entries(template.files)) copyFileSync(from, join(own, name));
    write(join('config', board.serial, 'gateway.toml'), boardConfig(template, board));
    // They differ in names and codes alone.
    if (at === 0) tryBoard(own);
    const image = label(board);
    write(join('labels', `${board.serial}.svg`), image);
    return image;
  });
  write('labels.html', labelSheet(batch, labels));
  write(
    'boards.csv',
    `serial,gateway\n${boards.map(({ serial, gateway }) => `${serial},${gateway}\n`).join('')}`,
  );
  const expires = new Date(Date.now() + days * 86_400_000).toISOString();
  const lines = boards.map(({ gateway, serial, code }) =>
    JSON.stringify({ gateway, serial, hash: codeHash(code) }),
  );
  const head = JSON.stringify({ version: 1, batch, expires }).slice(0, -1);
  write('manifest.json', `${head},"boards":[\n${lines.join(',\n')}\n]}\n`);
  return boards;
}
