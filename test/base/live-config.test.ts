import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changedKeys, LiveConfig, overwrite } from '../../src/base/live-config.ts';
import { EventRecorder } from '../event-recorder.ts';

test('keys that differ: a list counts as one, and so does a table that only one of them has', () => {
  const before = { a: 1, b: { c: [1, { x: 1 }], d: 'same' }, gone: { e: 1 } };
  const after = { a: 1, b: { c: [1, { x: 2 }], d: 'same', n: 1 }, come: { f: 1 } };
  assert.deepEqual(changedKeys(before, after), ['b.c', 'b.n', 'gone', 'come']);
  assert.deepEqual(changedKeys(before, structuredClone(before)), []);
});

test('an object that others hold gets the members of another one, and no others', () => {
  const held: Record<string, number> = { a: 1, b: 2 };
  overwrite(held, { b: 3, c: 4 });
  assert.deepEqual(held, { b: 3, c: 4 });
});

interface Config {
  readonly log: { readonly level: string };
  readonly port: number;
  readonly device?: readonly string[];
}

function live(config: Config) {
  const events = new EventRecorder();
  const applied: Config[] = [];
  const live = new LiveConfig(config, events, (key) => key === 'log.level' || key === 'device');
  const reload = (next: Config | Error, apply = (each: Config): void => void applied.push(each)) =>
    live.reload(() => {
      if (next instanceof Error) throw next;
      return next;
    }, apply);
  const told = () => events.all.splice(0).map(({ name, fields }) => [name, ...Object.values(fields)]);
  return { live, reload, applied, told };
}

test('what can be reloaded is in force, the rest waits for a restart and is told until it is taken back', () => {
  const { live: config, reload, applied, told } = live({ log: { level: 'info' }, port: 1 });
  reload({ log: { level: 'debug' }, port: 2, device: ['a'] });
  assert.deepEqual(applied, [{ log: { level: 'debug' }, port: 1, device: ['a'] }]);
  assert.deepEqual(config.current, applied[0]);
  assert.deepEqual(config.restartNeeded, ['port']);
  assert.deepEqual(told(), [
    ['config.reloaded', 'log.level device'],
    ['config.restart-needed', 'port'],
  ]);
  reload({ log: { level: 'debug' }, port: 1 });
  assert.deepEqual(config.current, { log: { level: 'debug' }, port: 1 });
  assert.deepEqual([config.restartNeeded, told()], [[], [['config.reloaded', 'device']]]);
});

test('a table that is gone needs a restart, but what its lists let in ends at once', () => {
  interface Listed {
    readonly port: number;
    readonly coaps?: { readonly port: number; readonly device: readonly string[]; readonly groups?: object };
  }
  const events = new EventRecorder();
  const applied: Listed[] = [];
  const isReloadable = (key: string) => ['coaps.device', 'coaps.groups.names'].includes(key);
  const coaps = { port: 5684, device: ['a'], groups: { names: ['x'], sizes: [1] } };
  const config = new LiveConfig<Listed>({ port: 1, coaps }, events, isReloadable);
  const reload = (next: Listed) =>
    config.reload(
      () => next,
      (each) => void applied.push(each),
    );
  reload({ port: 1 });
  const emptied = { port: 1, coaps: { port: 5684, device: [], groups: { names: [], sizes: [1] } } };
  assert.deepEqual(applied.splice(0), [emptied]);
  assert.deepEqual(config.restartNeeded, ['coaps']);
  assert.deepEqual(
    events.all.splice(0).map(({ name, fields }) => [name, fields.keys]),
    [
      ['config.reloaded', 'coaps.device coaps.groups.names'],
      ['config.restart-needed', 'coaps'],
    ],
  );
  // The same file again, and the table again.
  reload({ port: 1 });
  assert.deepEqual(events.all.splice(0)[0]?.fields.keys, '');
  reload({ port: 1, coaps: { ...coaps, device: ['b'] } });
  assert.deepEqual(config.current, { port: 1, coaps: { ...coaps, device: ['b'] } });
  assert.deepEqual(config.restartNeeded, []);
});

test('a configuration that cannot be read or put in force changes nothing, and the next one is taken', () => {
  const { live: config, reload, told } = live({ log: { level: 'info' }, port: 1 });
  const before = config.current;
  reload(new Error('not TOML'));
  assert.equal(config.refused, 'not TOML');
  reload({ log: { level: 'debug' }, port: 2 }, () => {
    throw new Error('no such certificate');
  });
  assert.deepEqual(
    [config.current, config.refused, config.restartNeeded],
    [before, 'no such certificate', []],
  );
  assert.deepEqual(told(), [
    ['config.refused', 'not TOML'],
    ['config.refused', 'no such certificate'],
  ]);
  reload({ log: { level: 'error' }, port: 1 });
  assert.deepEqual([config.current.log.level, config.refused], ['error', undefined]);
});
