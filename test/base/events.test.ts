import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EventName, eventTable, severityOf } from '../../src/base/event-table.ts';
import { EventCounter, type Events, noEvents } from '../../src/base/events.ts';
import { LogEvents, type LogLevel } from '../../src/base/log.ts';
import { EventRecorder } from '../event-recorder.ts';

/** Number of a severity in a log line. */
const levels = { debug: 20, info: 30, warn: 40, error: 50 } as const;

function logged(level: LogLevel, say: (events: Events) => void): Record<string, unknown>[] {
  const lines: string[] = [];
  say(new LogEvents(level, 'gateway', { write: (line) => void lines.push(line) }));
  return lines.map((line) => JSON.parse(line));
}

test('events are counted by name and passed on', () => {
  const next = new EventRecorder();
  const counter = new EventCounter(next);
  for (const port of [5683, 5684]) counter.emit('coap.listening', { address: '127.0.0.1', port });
  counter.emit('tunnel.unknown-server', { server: 'dm.example', peer: '192.0.2.1' });
  assert.deepEqual(
    [...counter.counts],
    [
      ['coap.listening', 2],
      ['tunnel.unknown-server', 1],
    ],
  );
  assert.deepEqual(
    next.all.map(({ severity, name, fields }) => [severity, name, Object.values(fields)]),
    [
      ['info', 'coap.listening', ['127.0.0.1', 5683]],
      ['info', 'coap.listening', ['127.0.0.1', 5684]],
      ['warn', 'tunnel.unknown-server', ['dm.example', '192.0.2.1']],
    ],
  );
});

test('a log line has the name, the party and the fields, at the level of the table', () => {
  const [line] = logged('info', (events) =>
    events.emit('notification.no-address', { device: 'urn:dev:1', server: 'dm.example', reason: 'r' }),
  );
  const { time: _, ...rest } = line ?? {};
  assert.deepEqual(rest, {
    level: 40,
    party: 'gateway',
    event: 'notification.no-address',
    device: 'urn:dev:1',
    server: 'dm.example',
    reason: 'r',
  });
  const names = Object.keys(eventTable) as EventName[];
  const all = logged('debug', (events) => {
    // Which fields an event has is the compiler's business.
    for (const name of names) events.emit(name, {} as never);
  });
  assert.deepEqual(
    all.map(({ event, level }) => [event, level]),
    names.map((name) => [name, levels[severityOf(name)]]),
  );
});

test('events below the level of the log are not logged', () => {
  const names = logged('warn', (events) => {
    events.emit('mqtt.unexpected-answer', { device: 'urn:dev:1' });
    events.emit('mqtt.connected', { url: 'mqtt://broker.example', protocol: 5 });
    events.emit('mqtt.disconnected', {
      url: 'mqtt://broker.example',
      reason: 'ECONNRESET',
      retryInSeconds: 1,
    });
    events.emit('watchdog.hungry', { reason: 'CoAP does not answer' });
  }).map(({ event }) => event);
  assert.deepEqual(names, ['mqtt.disconnected', 'watchdog.hungry']);
});

test('a wrong name, and a field that is missing, unknown or of another type, do not compile', () => {
  const seen = new EventRecorder();
  const all: readonly Events[] = [noEvents];
  for (const events of all) {
    // @ts-expect-error: there is no such event
    events.emit('notification.no-adress', { device: 'urn:dev:1', server: 'dm.example' });
    // @ts-expect-error: the server is missing
    events.emit('notification.no-address', { device: 'urn:dev:1' });
    // @ts-expect-error: the event has no status
    events.emit('notification.no-address', { device: 'urn:dev:1', server: 'dm.example', status: 404 });
    // @ts-expect-error: the protocol is a number here
    events.emit('mqtt.connected', { url: 'mqtt://broker.example', protocol: '5' });
    // @ts-expect-error: an event without needed fields has no others either
    events.emit('mqtt.unexpected-answer', { peer: '192.0.2.1' });
  }
  // @ts-expect-error: nothing to count
  assert.equal(seen.count('notification.no-adress'), 0);
  // @ts-expect-error: the event has no status to wait for
  void seen.until('notification.no-address', { status: 404 });
  // @ts-expect-error: nothing to wait for
  void seen.next('notification.no-adress');
});
