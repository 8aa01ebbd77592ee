import { chmodSync, copyFileSync, existsSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { syncFile, syncFolder } from './durable.ts';
import { PosternError } from './errors.ts';
import { makeFolder } from './make-folder.ts';
import { foldLog, partial, setAside, whyUnsound } from './recover-state.ts';
import { keyFileOf, stageKey } from './sealing.ts';
import { actualFile, StateLock } from './state-lock.ts';
import { checkParty, forgetEpoch, isDamage, pragma, type Schema } from './state-schema.ts';

/**
 * Puts a backup in the place of a state file, with its key where it has one. What was there is kept beside. Returns the name of the party, and
 * where the earlier file is.
 * @param schemas schemas of all parties whose backups may be restored
 * @throws {PosternError} `configuration` when the party runs, or the backup is damaged, of a later version, or of another
 * party than the state
 */
export function restoreState(
  backup: string,
  name: string,
  schemas: readonly Schema[],
): { party: string; aside?: string } {
  const file = actualFile(name);
  const part = file + partial;
  let lock: StateLock | undefined;
  try {
    makeFolder(dirname(file));
    lock = new StateLock(file);
    const schema = schemaOf(backup, schemas, lock.party);
    const why = whyUnsound(backup, schema);
    if (why !== undefined) throw new Error(why);
    if (lock.party !== 0 && lock.party !== schema.applicationId)
      throw new Error(`it is the state of a ${schema.party}, and ${file} is that of another party`);
    rmSync(part, { force: true });
    copyFileSync(backup, part);
    chmodSync(part, 0o600);
    {
      using copy = new DatabaseSync(part);
      forgetEpoch(copy);
    }
    syncFile(part);
    const putKey = stageKey(backup, file);
    const aside = existsSync(file) || existsSync(`${file}-wal`) ? replace(file, schema) : undefined;
    putKey();
    renameSync(part, file);
    syncFolder(dirname(file));
    lock.party = schema.applicationId;
    return { party: schema.party, ...(aside !== undefined && { aside }) };
  } catch (cause) {
    if (lock) for (const each of [part, keyFileOf(file) + partial]) rmSync(each, { force: true });
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `${backup} cannot be restored to ${file}: ${reason}`, { cause });
  } finally {
    lock?.close();
  }
}

function schemaOf(backup: string, schemas: readonly Schema[], party: number): Schema {
  if (!existsSync(backup)) throw new Error('there is no such file');
  using database = new DatabaseSync(backup, { readOnly: true });
  // Files of version 0.1.0 do not say whose they are.
  const id = pragma(database, 'application_id') || party;
  const schema = schemas.find(({ applicationId }) => applicationId === id);
  if (!schema) throw new Error('it is not the state of a gateway, a head-end or a device');
  return schema;
}

/** Sets the present state aside, in one file where it is sound. */
function replace(file: string, schema: Schema): string {
  try {
    {
      using present = new DatabaseSync(file);
      checkParty(present, schema);
    }
    foldLog(file);
  } catch (thrown) {
    if (!isDamage(thrown)) throw thrown;
  }
  return setAside(file, 'replaced');
}
