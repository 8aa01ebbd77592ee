import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { complaints, eventsPage, readProse } from '../../src/cli/event-reference.ts';
import { emitters } from '../../src/cli/event-sources.ts';

test('docs/events.md is up to date with the table, the sources and docs/events.toml (npm run docs)', () => {
  const page = readFileSync(new URL('../../docs/events.md', import.meta.url), 'utf8');
  assert.ok(page === eventsPage(), 'docs/events.md is out of date: npm run docs');
});

test('every event is explained and emitted, and every explanation has an event', () => {
  assert.deepEqual(complaints(), []);
});

test('an event without explanation or advice, and an explanation without an event, are reported', () => {
  const prose = readProse();
  const { 'mqtt.malformed': _, ...rest } = prose.events;
  const { working: _meaning, ...meanings } = prose.fields;
  const told = complaints({
    subjects: { ...prose.subjects, weather: 'Rain.' },
    fields: { ...meanings, rain: 'how much' },
    events: {
      ...rest,
      'mqtt.disconnected': { means: 'The connection broke.', fields: { mood: 'how it feels' } },
      'mqtt.sunny': { means: 'The sun shines.' },
    },
  });
  assert.deepEqual(told.toSorted(), [
    'docs/events.toml does not say what mqtt.malformed means',
    'docs/events.toml does not say what the common field working is',
    'docs/events.toml does not say what to do about mqtt.disconnected',
    'docs/events.toml does not say what to do about mqtt.malformed',
    'docs/events.toml does not say what working of coap.overload is',
    'docs/events.toml explains mood of mqtt.disconnected, which has no such field',
    'docs/events.toml explains mqtt.sunny, which is no event',
    'docs/events.toml explains rain, which is no common field',
    'no event has the subject weather',
  ]);
});

test('an event belongs to the party whose folder emits it, or to each party that uses the lower floor that emits it', () => {
  const found = emitters();
  assert.deepEqual(found.get('notification.no-address'), ['gateway']);
  assert.deepEqual(found.get('api.listening'), ['headend']);
  assert.deepEqual(found.get('device.notified'), ['device']);
  assert.deepEqual(found.get('coap.overload'), ['gateway']);
  assert.deepEqual(found.get('mqtt.connected'), ['gateway', 'headend']);
});
