import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EventFields } from '../../src/base/event-fields.ts';
import { type EventName, eventTable } from '../../src/base/event-table.ts';
import { LogEvents, type LogLevel } from '../../src/base/log.ts';
import { repetitionLimits } from '../../src/base/repeated-events.ts';
import { logTextLimits } from '../../src/base/safe-text.ts';
import { HandClock } from '../hand-clock.ts';

function logFor(level: LogLevel = 'info') {
  const clock = new HandClock();
  const lines: (Record<string, unknown> & { event: string })[] = [];
  let bytes = 0;
  const write = (line: string) => {
    bytes += Buffer.byteLength(line);
    lines.push(JSON.parse(line));
  };
  const log = new LogEvents(level, 'gateway', { write }, clock);
  const emit = (name: EventName, fields: EventFields) => log.emit(name, fields as never);
  return { clock, lines, emit, bytes: () => bytes };
}

const { window, lines: budgets } = repetitionLimits;

test('a cause of one peer is told once, and how often it came after the time', () => {
  const { clock, lines, emit } = logFor();
  const refuse = (peer: string, reason = 'no account') =>
    emit('bootstrap.refused', { device: 'urn:dev:1', peer, reason });
  for (let n = 0; n < 1000; n++) refuse(`192.0.2.1:${n}`);
  assert.deepEqual(
    lines.map(({ event, peer, repeated }) => [event, peer, repeated]),
    [['bootstrap.refused', '192.0.2.1:0', undefined]],
  );
  refuse('192.0.2.1:7', 'another cause');
  refuse('[2001:db8::1]:5683');
  refuse('[2001:db8::1]:5684');
  assert.equal(lines.length, 3);
  clock.advance(window);
  assert.deepEqual(
    lines.slice(3).map(({ event, peer, repeated }) => [event, peer, repeated]),
    [
      ['bootstrap.refused', '192.0.2.1:0', 999],
      ['bootstrap.refused', '[2001:db8::1]:5683', 1],
    ],
  );
  refuse('192.0.2.1:1');
  assert.equal(lines.length, 6, 'after the time it is told again');
  clock.advance(window);
  clock.advance(window);
  assert.equal(clock.timers, 0, 'no timer runs while nothing happens');
  assert.equal(lines.length, 6);
});

test('reasons that differ in a number alone are one cause', () => {
  const { lines, emit } = logFor();
  const refuse = (reason: string, peer = '192.0.2.1') => emit('api.refused', { peer, reason });
  for (let seconds = 60; seconds > 0; seconds--) refuse(`too many wrong tokens; try again in ${seconds} s`);
  assert.equal(lines.length, 1);
  refuse('this is not the token');
  refuse('too many wrong tokens; try again in 60 s', '192.0.2.2');
  assert.equal(lines.length, 3);
});

test('a gateway that comes back is told at once, and the count of one that comes and goes tells the latest state', () => {
  const { clock, lines, emit } = logFor();
  const state = (online: boolean) => emit('gateway.state', { gateway: 'gw-1', online });
  const told = () => lines.splice(0).map(({ online, repeated }) => [online, repeated]);
  for (const online of [true, false, true, true]) state(online);
  assert.deepEqual(told(), [
    [true, undefined],
    [false, undefined],
    [true, undefined],
  ]);
  for (let n = 0; n <= 1000; n++) state(n % 2 === 1);
  assert.equal(told().length, repetitionLimits.changes - 2);
  clock.advance(window);
  assert.deepEqual(told(), [[false, 996]]);
});

test('2,000 refused datagrams a second from any number of addresses write less than 64 KB a minute', () => {
  const { clock, emit, bytes, lines } = logFor();
  const rate = 2000;
  for (let second = 0; second < 60; second++) {
    for (let n = 0; n < rate; n++) {
      const at = second * rate + n;
      emit('tunnel.refused', {
        device: `urn:dev:${at}`,
        server: `dm-${at}.example`,
        status: 503,
        reason: `reason ${at} ${'x'.repeat(200)}`,
      });
    }
    clock.advance(1000);
  }
  clock.advance(window);
  assert.ok(bytes() < 64 * 1024, `${bytes()} bytes`);
  const counted = lines.reduce((sum, { repeated }) => sum + (Number(repeated) || 1), 0);
  assert.equal(counted, 60 * rate, 'each of them is in a line or in a count');
});

test('a flood of one event hides no other event, and no event that is not of a peer', () => {
  const { lines, emit } = logFor();
  for (let n = 0; n < 10_000; n++) emit('session.unknown-device', { device: `x${n}`, peer: `192.0.2.${n}` });
  assert.equal(lines.length, budgets.warn.burst);
  emit('registration.refused', { device: 'urn:dev:1', peer: '192.0.2.1', reason: 'unknown' });
  for (let n = 0; n < 3; n++)
    emit('mqtt.disconnected', { url: 'mqtt://x', reason: 'gone', retryInSeconds: 1 });
  assert.equal(lines.length, budgets.warn.burst + 4);
});

test('each of thousands of devices that attach is told, and a device that loops is told once', () => {
  const { lines, emit } = logFor();
  for (let n = 0; n < 2000; n++) emit('device.attached', { device: `urn:dev:${n}`, bootstrap: 'local' });
  assert.equal(lines.length, 2000);
  for (let n = 0; n < 100; n++)
    emit('session.started', { device: 'urn:dev:1', session: `${n}`, peer: `192.0.2.${n}` });
  assert.equal(lines.length, 2001);
});

test('causes that are remembered are bounded; the counts of those that are forgotten are told together', () => {
  const { clock, lines, emit } = logFor();
  emit('device.attached', { device: 'first', bootstrap: 'local' });
  emit('device.attached', { device: 'first', bootstrap: 'local' });
  for (let n = 0; n < repetitionLimits.causes; n++)
    emit('device.attached', { device: `urn:dev:${n}`, bootstrap: 'local' });
  emit('device.attached', { device: 'first', bootstrap: 'local' });
  assert.equal(lines.length, repetitionLimits.causes + 2, 'the oldest was forgotten');
  clock.advance(window);
  assert.deepEqual(
    lines.slice(repetitionLimits.causes + 2).map(({ repeated, others }) => [repeated, others]),
    [[1, true]],
  );
});

test('every event is limited that a message of a peer leads to', () => {
  const limited = Object.entries(eventTable).flatMap(([name, { byPeer }]) => (byPeer ? [name] : []));
  const families = [
    'api',
    'bootstrap',
    'hierarchy',
    'notification',
    'package',
    'registration',
    'session',
    'tunnel',
  ];
  const own = ['api.insecure', 'api.listening', 'api.token-made', 'bootstrap.assisted', 'notification.sent'];
  const missing = Object.keys(eventTable).filter(
    (name) => families.includes(name.split('.')[0]!) && !limited.includes(name) && !own.includes(name),
  );
  assert.deepEqual(missing, []);
  for (const name of [
    'coap.malformed',
    'coap.bad-option',
    'coap.handler-failed',
    'http.failed',
    'mqtt.malformed',
  ])
    assert.ok(limited.includes(name), name);
});

test('a line is bounded, stays JSON with the same value, and has no character that a terminal takes for a command', () => {
  const { lines, emit } = logFor();
  const raw: string[] = [];
  const log = new LogEvents('info', 'gateway', { write: (line) => void raw.push(line) });
  const nasty = 'a\u001b[2J\u009b31m\u007f\u202egnp.exe\u2066\u2028\r\nb\ud800"\\';
  log.emit('session.unknown-device', { device: nasty, peer: '192.0.2.1' });
  assert.match(raw[0]!, /^[\x20-\x7e]+\n$/);
  assert.equal(JSON.parse(raw[0]!).device, nasty);
  emit('session.unknown-device', { device: 'x'.repeat(100_000), peer: 'y' });
  assert.equal(String(lines[0]?.device).length, logTextLimits.text + 1);
});
