import { readFileSync, realpathSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { filesIn } from './config-files.ts';
import type { Events } from './events.ts';

/** Type of the file system FAT, by statfs(2). It keeps no rights: all its files have those of the mount. */
const fat = 0x4d44;
/** Secrets in a configuration: keys with these names, and a password in a URL. */
const secrets = /(secret|password|pin|code|key)"?\s*=|:\/\/[^\s/"]*:[^\s/"]*@/;

/**
 * Why users other than the owner and the group of a file can read or change it, and what helps, in words. Undefined when they cannot,
 * and where the rights of the file say nothing: on FAT, below a folder that is closed to these users, for a pipe, and on Windows.
 */
export function exposureOf(file: string): string | undefined {
  try {
    const path = realpathSync(file);
    const facts = statSync(path);
    const isOpen = process.getuid && facts.isFile() && (facts.mode & 0o006) !== 0;
    if (!isOpen || statfsSync(path).type === fat) return undefined;
    for (let at = path; at !== dirname(at); at = dirname(at))
      if ((statSync(dirname(at)).mode & 0o001) === 0) return undefined;
    return `all users can open it (mode ${(facts.mode & 0o777).toString(8)}); run chmod 640 ${file} (this user must own it or be in its group)`;
  } catch {
    return undefined;
  }
}

/**
 * Tells of each file with secrets that all users can open: the configuration, if it has secrets, the private keys that it names, and
 * keys of the party itself.
 * @param schema of the configuration
 * @param own keys that the party has made: their rights may have been lost in a copy
 * @param told files that were told before; the others are added
 */
export function tellExposed(
  { events, file, schema, told }: { events: Events; file: string; schema: unknown; told: Set<string> },
  config: unknown,
  own: readonly string[] = [],
): void {
  const keys = filesIn(schema, config).filter(({ kind }) => kind === 'private-key');
  for (const path of [file, ...keys.map((key) => key.path), ...own]) {
    const reason = told.has(path) ? undefined : exposureOf(path);
    if (reason === undefined || (path === file && !secrets.test(readFileSync(path, 'utf8')))) continue;
    told.add(path);
    events.emit('config.exposed', { file: path, reason });
  }
}
