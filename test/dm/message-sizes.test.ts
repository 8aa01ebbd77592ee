import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Operation } from '../../src/dm/server-session.ts';
import { elementOf } from '../../src/wire/syncml/message.ts';
import { encodeXml } from '../../src/wire/syncml/xml.ts';
import { manage } from './parties.ts';

const value = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.string({ unit: 'grapheme', minLength: 500, maxLength: 4000 }),
);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.constantFrom<Operation>(
    { name: 'Get', uri: './Site/Name' },
    { name: 'Get', uri: './Site?list=StructData' },
    { name: 'Get', uri: './Site?list=TNDS' },
    { name: 'Get', uri: './DevInfo' },
    { name: 'Exec', uri: './Do' },
    { name: 'Delete', uri: './Nothing' },
  ),
  value.map((data): Operation => ({ name: 'Replace', uri: './Site/Name', data })),
  fc
    .uint8Array({ maxLength: 3000 })
    .map((data): Operation => ({ name: 'Replace', uri: './Site/Blob', format: 'bin', data })),
);

/** Messages that a session takes at most: a chunk, a status or a result in each. */
const most = 1024;

// conforms: PRO-8
test('at any MaxMsgSize, each order gets its status, or the session ends with 413; no message is larger', async () => {
  let served = 0;
  let refused = 0;
  const smallest = { served: Number.POSITIVE_INFINITY };
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 400, max: 5000 }),
      fc.array(operation, { minLength: 1, maxLength: 8 }),
      async (maxMsgSize, operations) => {
        let messages = 0;
        let isLimited = false;
        const { outcomes, clientSide, serverSide } = await manage(operations, ({ header, ...rest }, from) => {
          assert.ok(++messages <= 2 * most, 'the session does not end');
          const message = { header: { ...header, meta: { ...header.meta, maxMsgSize } }, ...rest };
          const { length } = encodeXml(elementOf(message));
          const [status] = message.commands;
          // Package 1 begins before the client knows the limit. What says 413 is as short as it can be.
          const isRefusal = status?.name === 'Status' && status.data === 413 && status.cmd === 'SyncHdr';
          assert.ok(
            length <= maxMsgSize || !isLimited || isRefusal,
            `${from}: ${length} bytes of ${maxMsgSize}`,
          );
          isLimited = true;
          return message;
        });
        if (clientSide.outcome?.status === 200) {
          served++;
          smallest.served = Math.min(smallest.served, maxMsgSize);
          assert.equal(serverSide.outcome?.status, 200);
          assert.equal(outcomes.length, operations.length);
          assert.ok(!outcomes.some(({ status }) => status === 215));
        } else {
          refused++;
          assert.ok(
            [clientSide, serverSide].some(({ outcome }) => outcome?.status === 413),
            JSON.stringify([clientSide.outcome, serverSide.outcome]),
          );
        }
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(served > 100 && refused > 5, `${served} served, ${refused} refused`);
  assert.ok(smallest.served < 1000, `the smallest MaxMsgSize that was served is ${smallest.served}`);
});
