import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolChoice } from '../../../src/wire/tunnel/protocol-choice.ts';
import { HandClock } from '../../hand-clock.ts';

const refused = { refusesVersion: true, isUnanswered: false };
const unanswered = { refusesVersion: false, isUnanswered: true };
const other = { refusesVersion: false, isUnanswered: false };

test('only a refusal of the version changes it', () => {
  const choice = new ProtocolChoice(new HandClock(), 'auto');
  for (let i = 0; i < 20; i++) assert.equal(choice.failed(other), false);
  assert.equal(choice.next(), 5);
  assert.equal(choice.failed(refused), true);
  assert.equal(choice.next(), 4);
  for (let i = 0; i < 20; i++) choice.failed(other);
  assert.equal(choice.next(), 4);
  choice.failed(refused);
  assert.equal(choice.next(), 5, 'MQTT 3.1.1 was refused as well');
});

test('three connections in a row without a CONNACK are a refusal; another failure between them begins anew', () => {
  const choice = new ProtocolChoice(new HandClock(), 'auto');
  for (const evidence of [unanswered, unanswered, other, unanswered, unanswered]) choice.failed(evidence);
  choice.accepted();
  for (const evidence of [unanswered, unanswered]) choice.failed(evidence);
  assert.equal(choice.next(), 5);
  choice.failed(unanswered);
  assert.equal(choice.next(), 4);
});

test('closed connections alone are checked by the next connection after one that was accepted', () => {
  const clock = new HandClock();
  const choice = new ProtocolChoice(clock, 'auto');
  for (const evidence of [unanswered, unanswered, unanswered]) choice.failed(evidence);
  assert.deepEqual([choice.next(), choice.isDoubtful], [4, false]);
  choice.failed(other);
  assert.equal(choice.next(), 4, 'nobody has accepted 3.1.1');
  choice.accepted();
  assert.deepEqual([choice.isDoubtful, choice.next()], [true, 5]);
  assert.equal(choice.failed(other), false);
  assert.equal(choice.failed(unanswered), true, 'one is enough now');
  assert.equal(choice.next(), 4);
  choice.accepted();
  assert.deepEqual([choice.isDoubtful, choice.next()], [false, 4]);
  clock.advance(3_600_000);
  assert.equal(choice.next(), 5);
});

test('after an hour MQTT 5 is tried again, by the next connection', () => {
  const clock = new HandClock();
  const choice = new ProtocolChoice(clock, 'auto');
  choice.failed(refused);
  choice.accepted();
  clock.advance(3_599_999);
  assert.equal(choice.next(), 4);
  clock.advance(1);
  assert.equal(choice.current, 4);
  assert.equal(choice.next(), 5);
  clock.advance(3_600_000);
  assert.equal(choice.next(), 5);
});

test('a version that the configuration names is kept', () => {
  for (const version of [4, 5] as const) {
    const choice = new ProtocolChoice(new HandClock(), version);
    assert.equal(choice.failed(refused), false);
    assert.equal(choice.next(), version);
  }
});
