import { chmodSync, existsSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { isDamage, pragma } from './state-schema.ts';

/**
 * The file that a name leads to through symbolic links: the lock, the log and the copies stand beside the file itself, so two
 * names of one file are one state. The name itself where there is no file yet.
 */
export function actualFile(name: string): string {
  return existsSync(name) ? realpathSync(name) : name;
}

/** SQLITE_BUSY. */
const busy = 5;
/** SQLITE_FULL. */
const full = 13;

/**
 * Keeps a state file for one process. The lock is a small database of its own beside the state, which this process keeps
 * locked: the kernel frees the lock when the process ends, however it ends. Connections of this process to the state itself
 * are not affected. The small database also remembers facts that must not go back in time together with the state.
 */
export class StateLock {
  readonly #lock: DatabaseSync;

  /**
   * @param isReadOnly the disk is read-only: nobody else has the state now, but no lock is kept and no fact is remembered. An
   *   open file would keep the operator from mounting the disk again
   * @throws {Error} when another gateway, head-end or device has the state; the message names its process
   */
  constructor(stateFile: string, isReadOnly = false) {
    const file = `${stateFile}.lock`;
    if (isReadOnly) {
      this.#lock = copyOfLock(file);
      return;
    }
    try {
      this.#lock = take(file);
    } catch (thrown) {
      if (!isDamage(thrown)) throw thrown;
      // It holds nothing that cannot be made anew.
      rmSync(file);
      this.#lock = take(file);
    }
  }

  /** `Schema.applicationId` of the party whose state was here before. 0: none was. */
  get party(): number {
    return pragma(this.#lock, 'application_id');
  }

  set party(applicationId: number) {
    this.#write('application_id', applicationId);
  }

  /** How often a program has started with this state. The state has the number too, as it was when the state was written. */
  get starts(): number {
    return pragma(this.#lock, 'user_version');
  }

  set starts(count: number) {
    this.#write('user_version', count);
  }

  close(): void {
    this.#lock.close();
  }

  /** On a disk that takes no writes the fact is not remembered. */
  #write(name: 'application_id' | 'user_version', value: number): void {
    try {
      this.#lock.exec(`PRAGMA ${name} = ${value}`);
    } catch (thrown) {
      if ((thrown as { errcode?: number }).errcode === undefined) throw thrown;
    }
  }
}

function take(file: string): DatabaseSync {
  const lock = new DatabaseSync(file);
  try {
    // In this locking mode, the lock of the transaction stays after its end. All facts are in one sector: no journal needed.
    lock.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    endTransaction(lock);
    // Another user who could open the file could lock it. Nobody may open it in this process: closing it again would end the lock.
    chmodSync(file, 0o600);
    return lock;
  } catch (thrown) {
    lock.close();
    if ((thrown as { errcode?: number }).errcode !== busy) throw thrown;
    throw inUse(file);
  }
}

/** The first transaction writes to an empty file. A full disk refuses that; the lock stays all the same. */
function endTransaction(lock: DatabaseSync): void {
  try {
    lock.exec('COMMIT');
  } catch (thrown) {
    if ((thrown as { errcode?: number }).errcode !== full) throw thrown;
    if (lock.isTransaction) lock.exec('ROLLBACK');
  }
}

/** The facts of a lock that nobody holds, in memory. */
function copyOfLock(file: string): DatabaseSync {
  const copy = new DatabaseSync(':memory:');
  if (!existsSync(file)) return copy;
  try {
    using lock = new DatabaseSync(file, { readOnly: true });
    for (const name of ['application_id', 'user_version'] as const)
      copy.exec(`PRAGMA ${name} = ${pragma(lock, name)}`);
    return copy;
  } catch (thrown) {
    if (isDamage(thrown)) return copy;
    copy.close();
    if ((thrown as { errcode?: number }).errcode !== busy) throw thrown;
    throw inUse(file);
  }
}

/** Names the process that uses a state, such as `process 7 (node postern.mjs gateway)`; undefined when it is not known. */
export function userOf(stateFile: string): string | undefined {
  const { name, pid } = holderOf(`${stateFile}.lock`);
  return pid === undefined ? undefined : name;
}

const other = { name: 'another process' };

/** Says who has the state, and what to do. */
function inUse(file: string): Error {
  const { name, pid } = holderOf(file);
  const command = pid === undefined ? '' : ` (kill ${pid}, or systemctl stop where it is a service)`;
  return new Error(`${name} uses it: stop that process first${command}, or use another state file`);
}

/** Names the process that has locked a file, as far as /proc tells it. */
function holderOf(file: string): { name: string; pid?: string } {
  try {
    const { ino } = statSync(file);
    const isHolder = (line: string) => line.includes(' POSIX ') && line.split(/\s+/)[5]?.endsWith(`:${ino}`);
    const pid = readFileSync('/proc/locks', 'utf8').split('\n').find(isHolder)?.split(/\s+/)[4];
    // Processes of other containers have no number here.
    if (pid === undefined || !Number(pid)) return other;
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    // Options may hold secrets.
    const command = words.slice(0, 3).filter((word) => word !== '' && !word.startsWith('-'));
    return { name: `process ${pid} (${command.join(' ')})`, pid };
  } catch {
    return other;
  }
}
