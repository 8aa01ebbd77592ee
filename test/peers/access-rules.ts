import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Access rules of mosquitto in a file. `settings` are lines for `startMosquitto`. */
export interface AccessRules extends AsyncDisposable {
  readonly settings: readonly string[];
  /** Replaces the rules. The broker reads them at its next `reload`. */
  change(...rules: readonly string[]): void;
}

/** @param rules lines of an `acl_file` */
export function withAccessRules(...rules: readonly string[]): AccessRules {
  const folder = mkdtempSync(join(tmpdir(), 'postern-acl-'));
  const file = join(folder, 'acl');
  const change = (...lines: readonly string[]) =>
    writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o644 });
  chmodSync(folder, 0o755);
  change(...rules);
  return {
    settings: ['allow_anonymous true', `acl_file ${file}`],
    change,
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true }),
  };
}
