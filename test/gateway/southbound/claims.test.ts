import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noEvents } from '../../../src/base/events.ts';
import { Claims } from '../../../src/gateway/southbound/claims.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

/** Claims of attached devices, of which none answers until `settle` is called. */
function rig() {
  const asked: string[] = [];
  const waiting: ((isThere: boolean) => void)[] = [];
  const claims = new Claims({
    inventory: { get: (deviceId) => ({ deviceId, state: 'attached' }) as DeviceRecord },
    isThere: ({ deviceId }) => {
      asked.push(deviceId);
      return new Promise((resolve) => waiting.push(resolve));
    },
    clock: new HandClock(),
    events: noEvents,
  });
  const judge = (child: string, deviceId: string) => {
    try {
      claims.judge(child, deviceId);
      return 'may have it';
    } catch (thrown) {
      return (thrown as { code: string }).code;
    }
  };
  const settle = async (isThere: boolean) => {
    for (const resolve of waiting.splice(0)) resolve(isThere);
    await turn();
  };
  return { asked, judge, settle };
}

test('a hostile child that claims many devices keeps no other child from its own', async () => {
  const { asked, judge, settle } = rig();
  for (let at = 0; at < 100; at++) assert.equal(judge('hostile', `d-${at}`), 'unavailable');
  assert.equal(judge('honest', 'moved'), 'unavailable');
  assert.deepEqual(asked, ['d-0', 'd-1', 'd-2', 'd-3', 'moved']);
  await settle(false);
  assert.equal(judge('honest', 'moved'), 'may have it');
  assert.equal(judge('hostile', 'd-4'), 'unavailable');
  assert.equal(asked.at(-1), 'd-4', 'its places are free again');
});

test('all children together ask 16 devices at a time', () => {
  const { asked, judge } = rig();
  for (let at = 0; at < 100; at++) judge(`child-${at % 10}`, `d-${at}`);
  assert.equal(asked.length, 16);
});
