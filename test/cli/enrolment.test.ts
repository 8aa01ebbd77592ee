import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import { stringify } from 'smol-toml';
import { feedVariable } from '../../src/gateway/update/directory-slots.ts';
import { EnrolmentSite } from '../journeys/enrolment-site.ts';

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname;

/** A gateway as a process, and the events of its log. */
function start(file: string, environment: Record<string, string> = {}) {
  const child: ChildProcess = spawn(process.execPath, [main, 'gateway', '--config', file], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  const lines: { event: string }[] = [];
  const reader = createInterface(child.stdout!);
  reader.on('line', (line) => lines.push(JSON.parse(line)));
  const until = async (event: string) => {
    while (!lines.some((line) => line.event === event)) await once(reader, 'line');
  };
  const end = async (signal: NodeJS.Signals) => {
    const ended = once(child, 'exit');
    child.kill(signal);
    return (await ended)[0] as number | null;
  };
  return {
    lines,
    until,
    end,
    ended: once(child, 'exit').then(([code]) => code as number | null),
    fed: child.stdio[3] as Readable,
    [Symbol.asyncDispose]: async () => void child.kill('SIGKILL'),
  };
}

test('postern gateway enrols at its first start, killed in between, and starts at once at the next', {
  timeout: 90_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend();
  const board = site.board('gw-1');
  const tables = board.tables as { gateway: object };
  const file = join(board.folder, 'gateway.toml');
  const socket = join(board.folder, 'admin.sock');
  writeFileSync(file, stringify({ ...tables, gateway: { ...tables.gateway, 'admin-socket': socket } }));
  {
    await using killed = start(file);
    await killed.until('enrolment.waiting');
    await killed.end('SIGKILL');
  }
  const key = readFileSync(join(board.folder, 'identity/gateway.key'), 'utf8');
  {
    await using stopped = start(file);
    await stopped.until('enrolment.begun');
    assert.equal(await stopped.end('SIGTERM'), 0, 'it stops in order while it waits');
  }
  await headend.enrolment!.approve(headend.enrolment!.list(1)[0]!.key, 'gw-1');
  {
    await using first = start(file);
    await first.until('enrolment.done');
    await first.until('gateway.started');
    await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    assert.equal(await first.end('SIGTERM'), 0);
  }
  await using second = start(file);
  await second.until('gateway.started');
  assert.ok(!second.lines.some(({ event }) => event.startsWith('enrolment')));
  assert.equal(await second.end('SIGTERM'), 0);
  assert.equal(readFileSync(join(board.folder, 'identity/gateway.key'), 'utf8'), key);
});

test('a gateway that waits for its approval feeds the watchdog of its machine, and the launcher', {
  timeout: 60_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  await using _ = await site.headend();
  const board = site.board('gw-1');
  const file = join(board.folder, 'gateway.toml');
  const [watchdog, socket] = [join(board.folder, 'watchdog'), join(board.folder, 'admin.sock')];
  writeFileSync(watchdog, '');
  const tables = board.tables as { gateway: object };
  const update = { slots: 'rauc', watchdog };
  writeFileSync(
    file,
    stringify({ ...tables, update, gateway: { ...tables.gateway, 'admin-socket': socket } }),
  );
  await using waiting = start(file, { [feedVariable]: '3' });
  const [octets] = await once(waiting.fed, 'data');
  assert.equal(String(octets), '\0');
  await waiting.until('enrolment.waiting');
  assert.match(readFileSync(watchdog, 'latin1'), /^\0+$/);
  assert.equal(await waiting.end('SIGTERM'), 0);
});

test('an admin socket that another gateway serves: no enrolment is begun, and a board that has left says so too', {
  timeout: 60_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const board = site.board('gw-1');
  const tables = board.tables as { gateway: object };
  const file = join(board.folder, 'gateway.toml');
  const socket = join(board.folder, 'admin.sock');
  writeFileSync(file, stringify({ ...tables, gateway: { ...tables.gateway, 'admin-socket': socket } }));
  const taken = createServer().listen(socket);
  await once(taken, 'listening');
  const identity = join(board.folder, 'identity');
  for (const mark of [undefined, 'left']) {
    if (mark) {
      mkdirSync(identity, { recursive: true });
      writeFileSync(join(identity, mark), '');
    }
    await using second = start(file);
    await second.until('process.start-failed');
    assert.equal(await second.ended, 1);
    assert.deepEqual(
      second.lines.map(({ event }) => event),
      ['process.start-failed'],
    );
    assert.equal(existsSync(identity), mark !== undefined);
  }
  taken.close();
});
