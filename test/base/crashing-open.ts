// Opens a state file, and is killed before its n-th call that can write: node crashing-open.ts FILE VERSIONS N
// With N = 0 nothing kills it, and it prints how many such calls there are.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { DatabaseSync, StatementSync } from 'node:sqlite';
import { smallSchema } from './small-schema.ts';

const [file = '', versions, last] = process.argv.slice(2);
let calls = 0;

/** Counts the calls of a method, and ends the process as a power cut does, without a chance to tidy up. */
function watch(owner: object, method: string): void {
  const original = Reflect.get(owner, method) as (...args: unknown[]) => unknown;
  Reflect.set(owner, method, function (this: unknown, ...args: unknown[]) {
    calls++;
    if (calls === Number(last)) process.kill(process.pid, 'SIGKILL');
    return original.apply(this, args);
  });
}

for (const method of ['mkdirSync', 'chmodSync', 'writeFileSync', 'fsyncSync', 'renameSync', 'rmSync'])
  watch(fs, method);
syncBuiltinESMExports();
for (const method of ['exec', 'close', Symbol.dispose]) watch(DatabaseSync.prototype, method as string);
for (const method of ['get', 'run']) watch(StatementSync.prototype, method);

const { openDatabase } = await import('../../src/base/open-database.ts');
openDatabase(file, smallSchema(Number(versions))).close();
console.log(calls);
