import assert from 'node:assert/strict';
import { test } from 'node:test';
import { publicUrl } from '../../src/base/public-url.ts';

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
