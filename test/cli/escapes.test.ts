import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { forTerminal, indented, inOneLine, safeJson } from '../../src/base/safe-text.ts';
import { Narrator } from '../../src/demo/narrator.ts';

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const limit = { timeout: 30_000 };
/** Clears the screen, sets the title of the window, writes backwards, and begins a line of its own. */
const nasty = 'x\u001b[2J\u001b]0;owned\u0007\u009b31m\u202etxt\u2028\r\nurn:dev:forged attached\ufeff';
const shown =
  'x\\u001b[2J\\u001b]0;owned\\u0007\\u009b31m\\u202etxt\\u2028\\u000d\\u000aurn:dev:forged attached\\ufeff';
const plain = /^[\x20-\x7e\n]*$/;

/** A gateway that says nasty things, without escaping them itself: it may be of another version. */
async function gatewayFor(t: TestContext, answers: Record<string, unknown>): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-escapes-'));
  const socket = join(folder, 'admin.sock');
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? ''];
    response.writeHead(answer === undefined ? 500 : 200);
    response.end(JSON.stringify(answer ?? { error: 'internal', message: nasty }));
  });
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return socket;
}

const postern = async (...args: string[]) =>
  await promisify(execFile)(process.execPath, [program, ...args]).catch((failed) => failed);

test('postern devices shows the texts of devices escaped, in one line each', limit, async (t) => {
  const device = {
    deviceId: nasty,
    state: 'attached',
    mode: 0,
    origin: 'local',
    manufacturer: nasty,
    model: nasty,
    address: nasty,
    lastSeen: 0,
    reason: nasty,
  };
  const socket = await gatewayFor(t, { '/devices': [device] });
  const { stdout } = await postern('devices', '--socket', socket);
  assert.match(stdout, plain);
  assert.equal(stdout.split('\n').length, 3, 'a heading, a device');
  assert.ok(stdout.startsWith('DEVICE') && stdout.includes(`\n${shown} `), stdout);
  const { stdout: json } = await postern('devices', '--json', '--socket', socket);
  assert.match(json, plain);
  assert.deepEqual(JSON.parse(json), [device], 'the escapes are those of JSON, so its value is the same');
});

test(
  'postern devices --json names the objects of an LwM2M client that the registry has',
  limit,
  async (t) => {
    const device = { deviceId: 'c', objects: '/3/0 /3303/0 /3303/1 /26241/0 /0 /99999999999/x' };
    const socket = await gatewayFor(t, { '/devices': [device] });
    const { stdout } = await postern('devices', '--json', '--socket', socket);
    const objectNames = { 0: 'LwM2M Security', 3: 'Device', 3303: 'Temperature' };
    assert.deepEqual(JSON.parse(stdout), [{ ...device, objectNames }]);
  },
);

test('postern devices shows what protects each device, and why one is locked out', limit, async (t) => {
  const device = (deviceId: string, address: string, more: object) => ({
    ...{ deviceId, address, state: 'attached', mode: 0, origin: 'local', lastSeen: 0, ...more },
  });
  const devices = [
    device('a', 'coaps://192.0.2.1:1', { security: 'DTLS' }),
    device('b', 'coap://192.0.2.1:2', { security: 'OSCORE', state: 'unreachable', reason: 'locked out: x' }),
    device('c', 'coap://192.0.2.1:3', { via: 'gw-2' }),
  ];
  const { stdout } = await postern('devices', '--socket', await gatewayFor(t, { '/devices': devices }));
  const [heading = '', ...rows] = stdout.trimEnd().split('\n');
  const cell = (row: string) => row.slice(heading.indexOf('ADDRESS'), heading.indexOf('LAST')).trim();
  assert.deepEqual(
    rows.map((row: string) => cell(row).split(/ +/)),
    [['coaps://192.0.2.1:1', 'DTLS'], ['coap://192.0.2.1:2', 'OSCORE'], ['coap://192.0.2.1:3']],
  );
  assert.match(rows[1] ?? '', / {2}locked out: x$/);
});

test('an error of the gateway, and a wrong option, reach the terminal escaped', limit, async (t) => {
  const socket = await gatewayFor(t, {});
  for (const args of [
    ['status', '--socket', socket],
    ['devices', '--socket', socket],
    ['update', '--socket', socket],
    ['devices', `--${nasty}`],
    ['gateway', '--config', nasty],
  ]) {
    const { stdout, stderr } = await postern(...args);
    assert.match(stdout + stderr, plain);
    assert.ok(stderr.length > 0);
  }
});

test('the narrator of demo and device tells the texts of devices escaped', () => {
  const lines: string[] = [];
  new Narrator('gateway', (line) => void lines.push(line)).emit('device.detached', {
    device: nasty,
    reason: nasty,
  });
  assert.match(lines[0] ?? '', plain);
  assert.match(lines[0] ?? '', /\\u001b\[2J/);
});

test('a text of several lines is shown below each other, and no line of it looks like one of the program', () => {
  assert.equal(indented('one\ntwo\r\nthree\n', '   '), 'one\n   two\n   three');
  const forged = indented(`x\nuplink  connected\u001b[2J`, '         ');
  assert.equal(forged, 'x\n         uplink  connected\\u001b[2J');
});

test('postern status shows a refused configuration of several lines below each other', limit, async (t) => {
  const numbers = {
    attached: 0,
    unreachable: 0,
    limit: 1,
    waiting: 0,
    dropped: 0,
    refused: 0,
    undeliverable: 0,
  };
  const socket = await gatewayFor(t, {
    '/status': {
      ...{ gateway: 'gw-1', software: '0', sessions: 0, setAside: 0, failures: [], counts: {} },
      uplink: { connected: true, url: 'mqtt://b', protocol: 'MQTT 5', waiting: 0 },
      coap: { port: 1, addresses: [], security: 'none' },
      ...{ devices: numbers, outbox: numbers, memory: { rss: 1, heap: 1 } },
      telemetry: { observations: 0, devices: 0, buffered: 0, dropped: 0 },
      images: { stored: 0, coming: 0, failed: 0, used: 0, quota: 1 },
      configuration: { restartNeeded: [], refused: `F: a: unknown key\nF: b: ${nasty}` },
    },
  });
  const { stdout } = await postern('status', '--socket', socket);
  assert.match(stdout, plain);
  assert.match(stdout, /^configuration {2}refused when it was read again: F: a: unknown key\n {15}F: b: x/m);
  assert.ok(
    !stdout.split('\n').some((line: string) => line.startsWith('urn:dev:forged')),
    'no row is forged',
  );
});

test('what is no command stays as it is', () => {
  const text = 'Größe 漢字 😀 "quoted" \\ a\tb\nc';
  assert.equal(forTerminal(text), text);
  assert.equal(inOneLine('a\tb\nc'), 'a\\u0009b\\u000ac');
  assert.deepEqual(JSON.parse(safeJson({ [nasty]: [nasty, '\ud800', text] })), {
    [nasty]: [nasty, '\ud800', text],
  });
});
