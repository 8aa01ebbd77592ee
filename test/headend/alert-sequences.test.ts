import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { AlertSequences, epochLimit } from '../../src/headend/alert-sequences.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { freshState } from '../state-files.ts';

test('an alert is a repetition by its epoch and number, across a restart, and an earlier epoch is not taken for new', async (t) => {
  const file = freshState(t);
  {
    await using database = openDatabase(file, headendSchema);
    const sequences = new AlertSequences(database);
    assert.deepEqual(
      [1, 2, 2, 1].map((number) => sequences.record('gw-1', 'a', number)),
      ['new', 'new', 'repeated', 'repeated'],
    );
    assert.equal(sequences.isNews('gw-1', 'b'), true);
    assert.equal(sequences.isNews('gw-1', 'b'), false, 'told once');
    assert.equal(sequences.isNews('gw-2', 'b'), false, 'the first epoch of a gateway is no news');
    assert.equal(sequences.record('gw-1', 'b', 1), 'new');
    assert.equal(sequences.record('gw-2', 'b', 1), 'new', 'each gateway counts by itself');
  }
  await using database = openDatabase(file, headendSchema);
  const sequences = new AlertSequences(database);
  assert.equal(sequences.record('gw-1', 'b', 1), 'repeated');
  assert.equal(sequences.record('gw-1', 'a', 2), 'repeated', 'delivered a second time');
  assert.equal(sequences.record('gw-1', 'a', 3), 'new', 'waited while the gateway began a new epoch');
});

test('a number that was not stored is not recorded', async (t) => {
  await using database = openDatabase(freshState(t), headendSchema);
  const sequences = new AlertSequences(database);
  const fails = () =>
    database.transaction(() => {
      sequences.record('gw-1', 'a', 1);
      throw new Error('the disk');
    });
  assert.throws(fails, /the disk/);
  assert.equal(sequences.record('gw-1', 'a', 1), 'new');
});

test('the oldest epoch is forgotten at the bound', async (t) => {
  await using database = openDatabase(freshState(t), headendSchema);
  const sequences = new AlertSequences(database);
  for (let epoch = 0; epoch <= epochLimit; epoch++) sequences.record('gw-1', `e${epoch}`, 1);
  assert.equal(sequences.record('gw-1', 'e1', 1), 'repeated');
  assert.equal(sequences.record('gw-1', 'e0', 1), 'new', 'forgotten');
  const rows = database.prepare('SELECT count(*) AS n FROM alert_epoch').get();
  assert.equal(rows?.n, epochLimit);
});

test('a gateway that forgot numbers of this epoch is told so: the disk with its state was taken back', async (t) => {
  const file = freshState(t);
  const [first, second, third] = ['run1', 'run2', 'run3'].map((id, at) => ({ id, start: at * 10 }));
  const numbers = (sequences: AlertSequences, run: typeof first, ...all: number[]) =>
    all.map((number) => sequences.record('gw-1', 'a', number, run));
  {
    await using database = openDatabase(file, headendSchema);
    const sequences = new AlertSequences(database);
    assert.deepEqual(numbers(sequences, first, 1, 2, 2), ['new', 'new', 'repeated']);
    assert.deepEqual(numbers(sequences, second, 11, 15), ['new', 'new'], 'a restart');
    assert.deepEqual(numbers(sequences, second, 12), ['repeated'], 'a repetition within the run');
  }
  await using database = openDatabase(file, headendSchema);
  const sequences = new AlertSequences(database);
  const back = { id: 'run2b', start: 10 };
  assert.deepEqual(numbers(sequences, back, 11, 16), ['forgotten', 'forgotten'], 'also above what is known');
  assert.deepEqual(numbers(sequences, back, 9), ['repeated'], 'what waited in the older state');
  assert.equal(sequences.record('gw-1', 'b', 11, back), 'new', 'in its new epoch');
  assert.deepEqual(numbers(sequences, second, 16), ['new'], 'the other run is not disturbed');
  assert.deepEqual(numbers(sequences, third, 21), ['new']);
  assert.equal(sequences.record('gw-1', 'a', 22), 'new', 'an alert without a run, of an older version');
});

test('a number whose alert was refused is no repetition, and is taken once', async (t) => {
  await using database = openDatabase(freshState(t), headendSchema);
  const sequences = new AlertSequences(database);
  sequences.refused('gw-1', 'a', 5);
  assert.equal(sequences.record('gw-1', 'a', 6), 'new');
  const fails = () =>
    database.transaction(() => {
      assert.equal(sequences.record('gw-1', 'a', 5), 'new');
      throw new Error('refused once more');
    });
  assert.throws(fails, /once more/);
  assert.deepEqual(
    [5, 5, 4].map((number) => sequences.record('gw-1', 'a', number)),
    ['new', 'repeated', 'repeated'],
  );
});

test('a number whose record was taken back by the disk and refused is new once, and a repetition then', async (t) => {
  await using database = openDatabase(freshState(t), headendSchema);
  const sequences = new AlertSequences(database);
  const fails = () =>
    database.transaction(() => {
      sequences.record('gw-1', 'a', 1);
      throw new Error('the disk');
    });
  assert.throws(fails, /the disk/);
  sequences.refused('gw-1', 'a', 1);
  assert.deepEqual(
    [1, 1, 1].map((number) => sequences.record('gw-1', 'a', number)),
    ['new', 'repeated', 'repeated'],
  );
});
