import { readFileSync, realpathSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { filesIn } from './config-files.ts';
import type { Events } from './events.ts';

/** Types of file systems that keep no rights of users, by statfs(2): FAT and exFAT. All their files have the rights of the mount. */
const withoutRights: ReadonlySet<number> = new Set([0x4d44, 0x2011bab0]);
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
    const user = process.getuid?.();
    if (user === undefined || !facts.isFile() || (facts.mode & 0o006) === 0) return undefined;
    if (withoutRights.has(statfsSync(path).type)) return undefined;
    for (let folder = dirname(path); ; folder = dirname(folder)) {
      if ((statSync(folder).mode & 0o001) === 0) return undefined;
      if (folder === dirname(folder)) break;
    }
    // After chmod alone, a party that is one of these other users could not read the file itself.
    const isOther = user !== 0 && user !== facts.uid && !process.getgroups?.().includes(facts.gid);
    const group = isOther ? `chgrp ${process.getegid?.()} ${file} and ` : '';
    return `all users can open it (mode ${(facts.mode & 0o777).toString(8)}); run ${group}chmod 640 ${file}`;
  } catch {
    return undefined;
  }
}

/**
 * Tells of each file with secrets that all users can open: the configuration, if it has secrets, and the private keys that it names.
 * @param schema of the configuration
 * @param told files that were told before; the others are added
 */
export function tellExposed(
  { events, file, schema, told }: { events: Events; file: string; schema: unknown; told: Set<string> },
  config: unknown,
): void {
  const keys = filesIn(schema, config).filter(({ kind }) => kind === 'private-key');
  for (const path of [file, ...keys.map((key) => key.path)]) {
    const reason = told.has(path) ? undefined : exposureOf(path);
    if (reason === undefined || (path === file && !secrets.test(readFileSync(path, 'utf8')))) continue;
    told.add(path);
    events.emit('config.exposed', { file: path, reason });
  }
}
