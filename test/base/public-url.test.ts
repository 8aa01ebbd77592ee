import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { LogEvents } from '../../src/base/log.ts';
import { publicUrl, withoutCredentials } from '../../src/base/public-url.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';

test('secrets in a URL are not shown', () => {
  for (const [url, shown] of [
    ['mqtt://user:swordfish@broker.example:1883', 'mqtt://broker.example:1883'],
    ['wss://user:swordfish@broker.example/mqtt', 'wss://broker.example/mqtt'],
    ['https://files.example/fw.bundle?X-Signature=swordfish', 'https://files.example/fw.bundle'],
    ['mqtt://127.0.0.1:1883', 'mqtt://127.0.0.1:1883'],
    ['file:/data/update.bundle', 'file:///data/update.bundle'],
    ['gw-image:fw-2', 'gw-image:fw-2'],
    ['swordfish', 'no URL'],
  ])
    assert.equal(publicUrl(url ?? ''), shown);
});

test('passwords of URLs inside other texts are not shown', () => {
  for (const [text, shown] of [
    ['connect to mqtt://user:sword@fish@broker:1883 failed', 'connect to mqtt://…@broker:1883 failed'],
    ['"HTTPS://u:p@a/x" and http://b/c@d', '"HTTPS://…@a/x" and http://b/c@d'],
    ['mail me@example', 'mail me@example'],
  ])
    assert.equal(withoutCredentials(text ?? ''), shown);
});

test('neither a complaint about a configuration nor a line of the log shows the password of a URL', () => {
  const check = (url: string) => () =>
    checkConfig(headendConfigSchema, { headend: { id: 'dm.example' }, mqtt: { url } }, 'headend.toml');
  for (const url of [
    'xmpp://user:swordfish@broker',
    'mqtt://user:swordfish@broker/%zz:%zz@',
    'mqtt:// a:swordfish@b',
  ])
    try {
      check(url)();
    } catch (thrown) {
      assert.doesNotMatch(String(thrown), /swordfish/);
    }
  const lines: string[] = [];
  const log = new LogEvents('info', 'gateway', { write: (line) => void lines.push(line) });
  log.emit('mqtt.state-failed', { reason: 'Invalid URL mqtts://user:swordfish@broker' });
  assert.match(lines[0] ?? '', /mqtts:\/\/…@broker/);
});
