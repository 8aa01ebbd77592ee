import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { noEvents } from '../../../src/base/events.ts';
import { failureReply } from '../../../src/wire/coap/failure-reply.ts';
import { Option } from '../../../src/wire/coap/options.ts';

const maxAge = (thrown: unknown): number | undefined => {
  const found = failureReply(thrown, noEvents).options.find(
    ({ number }) => number === Option.MaxAge.number,
  )?.value;
  return found && Buffer.from(found).readUIntBE(0, found.length);
};

test('a refusal that has a time to come again says it by Max-Age', () => {
  assert.equal(maxAge(new PosternError('storage', 'the disk is full')), 30);
  assert.equal(maxAge(new PosternError('unavailable', 'the uplink is down', { retryAfter: 7 })), 7);
  assert.equal(maxAge(new PosternError('notFound', 'there is no such image')), undefined);
});
