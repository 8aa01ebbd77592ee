import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PosternError } from '../../base/errors.ts';

const timeServerFile = 'ntp-servers';
/** PEM file of the authorities for time servers with NTS. */
const timeAuthorities = 'ntp-ca.pem';

/**
 * The files of the medium for the clock, checked, by name.
 * @param from folder of the medium
 * @throws {PosternError} `configuration`
 */
export function timeFiles(from: string): Record<string, string> {
  const files: Record<string, string> = {};
  const [servers, authorities] = [join(from, timeServerFile), join(from, timeAuthorities)];
  if (existsSync(servers)) files[timeServerFile] = timeServers(readFileSync(servers, 'utf8'), servers);
  if (!existsSync(authorities)) return files;
  const pem = readFileSync(authorities, 'utf8');
  try {
    // Without a look at their dates: the clock of the board is not set yet.
    new X509Certificate(pem);
  } catch (cause) {
    throw new PosternError('configuration', `${authorities}: there is no certificate in it`, { cause });
  }
  return { ...files, [timeAuthorities]: pem };
}

/** Words of chrony's directive `server` that a board takes, and whether a number follows. */
const serverWords: ReadonlyMap<string, boolean> = new Map([
  ...(['nts', 'iburst', 'prefer', 'trust'] as const).map((word) => [word, false] as const),
  ...(['port', 'ntsport', 'minpoll', 'maxpoll'] as const).map((word) => [word, true] as const),
]);
/** Most time servers. */
const mostServers = 8;

/**
 * Checks the file `ntp-servers`. chrony would not start with a line that it does not understand, and the board would have no time.
 * Returns its lines without comments, empty lines and the line ends of other systems.
 * @throws {PosternError} `configuration`
 */
function timeServers(text: string, file: string): string {
  const lines = text
    .split(/\r?\n|\r/)
    .map((line, at) => ({ line: line.replace(/^\ufeff|#.*/g, '').trim(), at: at + 1 }))
    .filter(({ line }) => line !== '');
  const wrong = (at: number, why: string) =>
    new PosternError('configuration', `${file}: line ${at}: ${why}; expected such as: ntp.example.net nts`);
  for (const { line, at } of lines) {
    const [host = '', ...words] = line.split(/\s+/);
    if (!/^[A-Za-z0-9][A-Za-z0-9.:-]{0,252}$/.test(host)) throw wrong(at, 'it begins with no host');
    for (let word = words.shift(); word !== undefined; word = words.shift()) {
      const hasNumber = serverWords.get(word);
      if (hasNumber === undefined) throw wrong(at, `unknown word ${JSON.stringify(word.slice(0, 40))}`);
      if (hasNumber && !/^\d{1,5}$/.test(words.shift() ?? '')) throw wrong(at, `${word} needs a number`);
    }
  }
  if (lines.length > mostServers) throw wrong(lines[mostServers]!.at, `more than ${mostServers} servers`);
  return lines.map(({ line }) => `${line.split(/\s+/).join(' ')}\n`).join('');
}
