import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestUrl } from '../../src/base/request-url.ts';

test('a target of a request is a path, whatever it looks like', () => {
  for (const [target, pathname, search] of [
    ['/', '/', ''],
    ['/dm?id=1', '/dm', '?id=1'],
    ['//evil.example/dm', '//evil.example/dm', ''],
    ['//a<b', '//a%3Cb', ''],
    ['/@x:99999', '/@x:99999', ''],
  ])
    assert.deepEqual([requestUrl(target).pathname, requestUrl(target).search], [pathname, search]);
  for (const target of [undefined, '', '*', 'http://a/b', 'a:443'])
    assert.throws(() => requestUrl(target), { code: 'malformed' }, target);
});
