import * as v from 'valibot';
import { type Database, keepLatest } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../../base/rows.ts';
import type { AlertRun } from '../../mo/alert-number.ts';
import type { Epoch } from './epoch.ts';

/** Kinds of alerts. */
export const outboxKinds = [
  'device-attach',
  'device-detach',
  'device-presence',
  'command-fanout',
  'device-trigger',
  'image-operation',
  'firmware-update',
  'gateway-fault',
] as const;
export type OutboxKind = (typeof outboxKinds)[number];

/** Kinds of alerts that say where a device is. */
export const deviceKinds: readonly OutboxKind[] = ['device-attach', 'device-detach', 'device-presence'];

const sqlList = (kinds: readonly OutboxKind[]): string => `(${kinds.map((kind) => `'${kind}'`).join()})`;

/** Entries that are kept after they were set aside. */
export const undeliverableLimit = 100;

/**
 * What the alerts of one child gateway, and those of all of them, may take of the outbox: parts of its limit, and bytes of
 * bodies for each entry of that. The rest is for what this gateway itself has to say.
 */
export const childShare = { one: 0.25, all: 0.75, bytes: 512 } as const;

/** The child gateway that an alert came from. */
export interface FromChild {
  readonly child: string;
  /** The alert is refused when there is no room for another one of this child. Else it is added in any case. */
  readonly mayRefuse: boolean;
}

/** An alert that waits for delivery to a DM server. */
export interface OutboxEntry {
  /** Rises with each entry. A number is never used twice. */
  readonly sequence: number;
  /** Epoch in which the number was given; absent for entries of version 0.1.0. */
  readonly epoch?: string;
  /** Absent when the number was given before this start. */
  readonly run?: AlertRun;
  readonly kind: OutboxKind;
  /** Subject of the alert: a device ID, or the name of the operation that ended. */
  readonly deviceId: string;
  /** Body as JSON; its shape depends on `kind`. */
  readonly body: string;
  /** ServerID of the recipient; absent for the gateway's own DM server. */
  readonly server?: string;
}

/**
 * Durable queue of alerts that no DM server has acknowledged yet. Only the latest alert of each kind and device is kept,
 * because it supersedes the earlier ones. At the limit, the oldest alert is deleted and counted in `dropped`.
 */
export class Outbox {
  /** Maximum number of entries. */
  readonly limit: number;
  readonly #database: Database;
  readonly #epoch: Epoch | undefined;
  /** Alerts deleted at the limit since the start. */
  dropped = 0;
  /** Alerts of child gateways that found no room, since the start. */
  refused = 0;
  /** Kinds of which there was no entry, and none was added since. */
  readonly #absent = new Set<OutboxKind>();
  /** There may be entries for other servers than the gateway's own. */
  mayHaveOthers = true;

  /** @param epoch epoch of the numbers that are given from now on */
  constructor(database: Database, limit: number, epoch?: Epoch) {
    this.#database = database;
    this.#epoch = epoch;
    this.limit = limit;
    keepNumbersLow(database, 'outbox', 'sequence');
    // Rows that cannot be read are set aside now. Otherwise sessions would begin for alerts that do not exist.
    readRows(database, outboxTable);
  }

  get size(): number {
    return Number(this.#database.prepare('SELECT count(*) AS n FROM outbox').get()?.n);
  }

  /**
   * Adds an alert and deletes an earlier one of the same kind and device. Joins the caller's transaction, if any.
   * @throws {PosternError} `full` when there is no room for another alert of this child
   */
  add(kind: OutboxKind, deviceId: string, body: string, server?: string, from?: FromChild): void {
    this.#epoch?.store();
    this.#absent.delete(kind);
    this.mayHaveOthers ||= server !== undefined;
    this.#database.prepare('DELETE FROM outbox WHERE kind = ? AND device_id = ?').run(kind, deviceId);
    const bytes = Buffer.byteLength(body);
    if (from?.mayRefuse) this.#demandRoom(from.child, bytes);
    const { lastInsertRowid } = this.#database
      .prepare('INSERT INTO outbox (kind, device_id, body, server) VALUES (?, ?, ?, ?)')
      .run(kind, deviceId, body, server ?? null);
    if (from)
      this.#database
        .prepare('INSERT INTO outbox_child VALUES (?, ?, ?)')
        .run(lastInsertRowid, from.child, bytes);
    const dropped = keepLatest(this.#database, 'outbox', this.limit);
    this.#database.afterCommit(() => {
      this.dropped += dropped;
    });
  }

  #demandRoom(child: string, bytes: number): void {
    const taken = (where: string, ...values: string[]) => {
      const found = this.#database
        .prepare(`SELECT count(*) AS entries, total(bytes) AS bytes FROM outbox_child WHERE ${where}`)
        .get(...values);
      return { entries: Number(found?.entries) + 1, bytes: Number(found?.bytes) + bytes };
    };
    const isBeyond = ({ entries, bytes: sum }: { entries: number; bytes: number }, share: number) => {
      const limit = Math.max(1, Math.floor(this.limit * share));
      return entries > limit || sum > limit * childShare.bytes;
    };
    const isFull =
      isBeyond(taken('child = ?', child), childShare.one) || isBeyond(taken('true'), childShare.all);
    if (!isFull) return;
    this.refused++;
    throw new PosternError('full', 'too many alerts of child gateways wait for the DM server');
  }

  /** ServerIDs of the recipients of all entries. `undefined` stands for the gateway's own DM server. */
  servers(): (string | undefined)[] {
    const found = this.#database
      .prepare('SELECT DISTINCT server FROM outbox')
      .all()
      .map(({ server }) => (server === null ? undefined : String(server)));
    this.mayHaveOthers = found.some((server) => server !== undefined);
    return found;
  }

  /** Whether an entry of any kind other than `kinds` waits for the gateway's own DM server. */
  hasOtherThan(kinds: readonly OutboxKind[]): boolean {
    const others = outboxKinds.filter((kind) => !kinds.includes(kind) && !this.#absent.has(kind));
    if (others.length === 0) return false;
    const isThere =
      this.#database
        .prepare(`SELECT 1 FROM outbox WHERE server IS NULL AND kind IN ${sqlList(others)} LIMIT 1`)
        .get() !== undefined;
    if (!isThere) for (const kind of others) this.#absent.add(kind);
    return isThere;
  }

  /** The oldest `count` entries for one DM server, oldest first. Without `server`: for the gateway's own. */
  peek(count: number, server?: string): OutboxEntry[] {
    const found = readRows(
      this.#database,
      outboxTable,
      'WHERE server IS ? ORDER BY sequence LIMIT ?',
      server ?? null,
      count,
    );
    const run = this.#epoch?.run;
    return run ? found.map((each) => (each.sequence > run.start ? { ...each, run } : each)) : found;
  }

  /**
   * The DM server knows the number of an entry from a run that this state has forgotten. All numbers of this run get a new
   * epoch. Returns it, or undefined when they have one already.
   * @throws {PosternError} `storage`
   */
  renewEpoch(): string | undefined {
    return this.#epoch?.renew() ? this.#epoch.value : undefined;
  }

  /** Whether an entry has another epoch by now. */
  isOutdated({ run, epoch }: OutboxEntry): boolean {
    return run !== undefined && epoch !== this.#epoch?.value;
  }

  /** Deletes an entry that its DM server has acknowledged. */
  remove(sequence: number): void {
    this.#database.prepare('DELETE FROM outbox WHERE sequence = ?').run(sequence);
  }

  /** Deletes the entries for a server that has no account any more. */
  forget(server: string): void {
    this.#database.prepare('DELETE FROM outbox WHERE server = ?').run(server);
  }

  /** Deletes such entries in one transaction. */
  removeAll(sequences: Iterable<number>): void {
    this.#database.transaction(() => {
      for (const sequence of sequences) this.remove(sequence);
    });
  }

  /**
   * Puts an entry that its DM server did not accept behind all others, and behind it the later ones about the same device: a
   * device that left must not seem to attach after that. Returns the new numbers by the old ones; none when the entry is not
   * there any more.
   */
  requeue(sequence: number): ReadonlyMap<number, number> {
    return this.#database.transaction(() => {
      this.#epoch?.store();
      const moved = this.#database
        .prepare(
          `SELECT sequence FROM outbox WHERE sequence = ?1 UNION SELECT later.sequence FROM outbox AS first JOIN outbox AS later
           ON later.device_id = first.device_id AND later.server IS first.server AND later.sequence > first.sequence
           WHERE first.sequence = ?1 AND first.kind IN ${sqlList(deviceKinds)} AND later.kind IN ${sqlList(deviceKinds)}
           ORDER BY 1`,
        )
        .all(sequence)
        .map((row) => Number(row.sequence));
      return new Map(moved.map((each) => [each, this.#requeueOne(each)]));
    });
  }

  #requeueOne(sequence: number): number {
    const { lastInsertRowid } = this.#database
      .prepare(
        'INSERT INTO outbox (kind, device_id, body, server) SELECT kind, device_id, body, server FROM outbox WHERE sequence = ?',
      )
      .run(sequence);
    this.#database
      .prepare('INSERT INTO outbox_child SELECT ?, child, bytes FROM outbox_child WHERE sequence = ?')
      .run(lastInsertRowid, sequence);
    this.remove(sequence);
    return Number(lastInsertRowid);
  }

  /** Takes an entry out of the queue that cannot be delivered, and keeps it with the reason. The oldest of these go first. */
  setAside(sequence: number, reason: string): void {
    this.#database.transaction(() => {
      this.#database
        .prepare(
          'INSERT INTO undeliverable (kind, device_id, body, server, reason) SELECT kind, device_id, body, server, ? FROM outbox WHERE sequence = ?',
        )
        .run(reason, sequence);
      keepLatest(this.#database, 'undeliverable', undeliverableLimit);
      this.remove(sequence);
    });
  }

  /** How many entries were set aside and are kept. */
  get undeliverable(): number {
    return Number(this.#database.prepare('SELECT count(*) AS n FROM undeliverable').get()?.n);
  }
}

const outboxTable: ReadableTable<OutboxEntry> = {
  table: 'outbox',
  key: ['sequence'],
  columns: '*, (SELECT value FROM epoch WHERE first <= sequence ORDER BY first DESC LIMIT 1) AS epoch',
  read: (row) => {
    row.json('body', v.looseObject({}));
    return {
      sequence: row.integer('sequence', 1),
      kind: row.oneOf('kind', outboxKinds),
      deviceId: row.text('device_id'),
      body: row.text('body'),
      ...row.optionalText('epoch'),
      ...row.optionalText('server'),
    };
  },
};
