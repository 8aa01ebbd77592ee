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
      [true, true, false, false],
    );
    assert.equal(sequences.isNews('gw-1', 'b'), true);
    assert.equal(sequences.isNews('gw-1', 'b'), false, 'told once');
    assert.equal(sequences.isNews('gw-2', 'b'), false, 'the first epoch of a gateway is no news');
    assert.equal(sequences.record('gw-1', 'b', 1), true);
    assert.equal(sequences.record('gw-2', 'b', 1), true, 'each gateway counts by itself');
  }
  await using database = openDatabase(file, headendSchema);
  const sequences = new AlertSequences(database);
  assert.equal(sequences.record('gw-1', 'b', 1), false);
  assert.equal(sequences.record('gw-1', 'a', 2), false, 'delivered a second time');
  assert.equal(sequences.record('gw-1', 'a', 3), true, 'waited while the gateway began a new epoch');
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
  assert.equal(sequences.record('gw-1', 'a', 1), true);
});

test('the oldest epoch is forgotten at the bound', async (t) => {
  await using database = openDatabase(freshState(t), headendSchema);
  const sequences = new AlertSequences(database);
  for (let epoch = 0; epoch <= epochLimit; epoch++) sequences.record('gw-1', `e${epoch}`, 1);
  assert.equal(sequences.record('gw-1', 'e1', 1), false);
  assert.equal(sequences.record('gw-1', 'e0', 1), true, 'forgotten');
  const rows = database.prepare('SELECT count(*) AS n FROM alert_epoch').get();
  assert.equal(rows?.n, epochLimit);
});
