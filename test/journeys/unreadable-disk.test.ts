import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync, StatementSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-unreadable-'));
after(() => rmSync(folder, { recursive: true }));
const state = join(folder, 'state.db');
const [first, second] = ['urn:dev:ops:1', 'urn:dev:ops:2'];

/** Whether SQLite reads nothing of the state, as with flash whose cells are worn out (SQLITE_IOERR_READ). */
let isWornOut = false;
const databases = new WeakMap<StatementSync, DatabaseSync>();
const { prepare } = DatabaseSync.prototype;
DatabaseSync.prototype.prepare = function prepared(this: DatabaseSync, ...args: Parameters<typeof prepare>) {
  const statement = prepare.apply(this, args);
  databases.set(statement, this);
  return statement;
} as typeof prepare;
for (const name of ['get', 'all', 'iterate'] as const) {
  const real = StatementSync.prototype[name] as (...values: unknown[]) => unknown;
  Object.assign(StatementSync.prototype, {
    [name](this: StatementSync, ...values: unknown[]) {
      if (isWornOut && this.sourceSQL.startsWith('SELECT') && databases.get(this)?.location() === state)
        throw Object.assign(new Error('disk I/O error'), { code: 'ERR_SQLITE_ERROR', errcode: 266 });
      return real.apply(this, values);
    },
  });
}

test('a gateway whose state cannot be read runs on, says so in its status, and goes on by itself', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend([first, second]);
  const gateway = await site.gateway([first, second], { gateway: { id: 'gw-1', state } });
  await site.device(first, gateway, { factory: true, server: true }).start();
  await site.gatewayEvents.until('alert.delivered');

  isWornOut = true;
  await site.device(second, gateway, { factory: true }).start();
  await site.gatewayEvents.until('background.failed', { work: 'alerts' });
  assert.equal(gateway.status().fault, 'the state cannot be read: disk I/O error');
  const [read] = await headend.manage(first, [{ name: 'Get', uri: './DevInfo/DevId' }]);
  assert.equal(read?.results[0]?.data, first, 'the tunnel needs no disk');

  isWornOut = false;
  await site.headendEvents.until('alert.device-attach', { device: second });
  assert.equal(gateway.status().fault, undefined);
});
