// Parts of mqtt that build/bundle.mjs replaces: what shows that nothing reaches them.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';

const root = new URL('../..', import.meta.url).pathname;
const require = createRequire(import.meta.url);
const textsOf = (pattern: string): [file: string, text: string][] =>
  globSync(pattern, { cwd: root }).map((file) => [file, readFileSync(`${root}/${file}`, 'utf8')]);
const sources = textsOf('src/**/*.ts');

test('of what mqtt exports, Postern uses what the bundles have', () => {
  const used = sources.flatMap(([, text]) =>
    [...text.matchAll(/^import \{([^}]+)\} from 'mqtt';/gm)].flatMap(([, names = '']) => names.split(',')),
  );
  const values = used.map((name) => name.trim()).filter((name) => name !== '' && !name.startsWith('type '));
  assert.deepEqual([...new Set(values)].sort(), ['ReasonCodes', 'connect']);
  const others = sources.filter(([, text]) =>
    /from 'mqtt\/|import \w+ from 'mqtt'|\* as \w+ from 'mqtt'/.test(text),
  );
  assert.deepEqual(others, []);
});

test('for mqtt, Node is no browser, and its timers are those of Node', (t) => {
  const { default: isBrowser, isWebWorker, isReactNativeBrowser } = require('mqtt/lib/is-browser');
  assert.deepEqual([isBrowser, isWebWorker, isReactNativeBrowser], [false, false, false]);
  const set = t.mock.method(globalThis, 'setInterval', () => 7);
  const clear = t.mock.method(globalThis, 'clearInterval', () => undefined);
  const timers = require('mqtt/lib/get-timer').default('auto');
  timers.clear(timers.set(() => undefined, 5));
  assert.equal(set.mock.calls[0]?.arguments[1], 5);
  assert.deepEqual(clear.mock.calls[0]?.arguments, [7]);
});

test('no configuration chooses timers, topic aliases, SOCKS or the WebSocket of a browser', () => {
  const chosen = /timerVariant|topicAlias|TopicAlias|socksProxy|forceNativeWebSocket|createWebsocket/;
  assert.deepEqual(
    sources.filter(([, text]) => chosen.test(text)).map(([file]) => file),
    [],
  );
});

test('no package gathers a packet of MQTT in memory', () => {
  const packages = textsOf('node_modules/{mqtt/build/lib,aedes,aedes-*}/**/*.js').filter(
    ([file]) => !/\/(test|node_modules|examples?|benchmarks?)\//.test(file.slice('node_modules/'.length)),
  );
  assert.ok(packages.length > 30, String(packages.length));
  assert.deepEqual(
    packages.filter(([, text]) => /\bgenerate\s*\(/.test(text)).map(([file]) => file),
    [],
  );
});
