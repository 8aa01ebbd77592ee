import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ReportedValue } from '../../../src/gateway/southbound/observer.ts';
import { sendBounds, sendResource } from '../../../src/gateway/southbound/send-resource.ts';
import type { Registration } from '../../../src/gateway/store/registrations.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { failureReply } from '../../../src/wire/coap/failure-reply.ts';
import { CoapRequest } from '../../../src/wire/coap/message.ts';
import { Option, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf } from '../../wire/coap/wire.ts';

const senml = (text: string) => Buffer.from(text);
const value = '[{"n":"/3303/0/5700","v":21.5}]';

function rig() {
  const clock = new HandClock();
  const events = new EventRecorder();
  const reported: [string, string | undefined, readonly ReportedValue[]][] = [];
  const heard: string[] = [];
  const at = { isRegistered: true, isAwaited: false };
  const { methods } = sendResource({
    senderOf: ({ address }) =>
      at.isRegistered ? ({ deviceId: address, heardOn: '192.0.2.1' } as Registration) : undefined,
    isAwaited: () => at.isAwaited,
    values: (...each) => reported.push(each),
    heard: (device, { port }) => heard.push(`${device} ${port}`),
    clock,
    events,
  });
  const send = async (
    payload: Uint8Array,
    format: number | null = ContentFormat.SenmlJson,
    address = 'a',
  ) => {
    const options = format === null ? [] : [uint(Option.ContentFormat, format)];
    const message = messageOf({ code: Code.POST, options, payload });
    const request = new CoapRequest({ address, port: 5, key: address }, message, false, payload, account());
    const reply = await Promise.try(() => methods.POST!(request)).catch((thrown) =>
      failureReply(thrown, events),
    );
    return [codeText(reply!.code), uintOption(reply!.options, Option.MaxAge)].filter(
      (each) => each !== undefined,
    );
  };
  return { clock, events, reported, heard, at, send };
}

describe('Send (LwM2M core 1.1, section 6.4.6)', () => {
  test('values of a registered client are taken in each format that has names, with the times that it names', async () => {
    const { send, reported, heard, clock } = rig();
    assert.deepEqual(
      await send(senml('[{"bn":"/3303/0/","bt":-10,"n":"5700","v":1},{"n":"5601","t":-5,"v":-1}]')),
      ['2.04'],
    );
    const now = clock.wall();
    assert.deepEqual(reported.splice(0), [
      [
        'a',
        undefined,
        [
          { path: '/3303/0/5700', value: 1, at: now - 10_000 },
          { path: '/3303/0/5601', value: -1, at: now - 15_000 },
        ],
      ],
    ]);
    for (const format of [ContentFormat.SenmlCbor, ContentFormat.LwM2mCbor]) {
      const body = encodeContent(format, [{ path: [3303, 0, 5700], value: 21.5 }], []);
      assert.deepEqual(await send(body, format), ['2.04']);
      assert.deepEqual(reported.splice(0), [
        ['a', undefined, [{ path: '/3303/0/5700', value: 21.5, at: now }]],
      ]);
    }
    assert.deepEqual(heard, Array(3).fill('a 5'));
  });

  test('who is not registered gets 4.04, and registers again; who has just registered waits', async () => {
    const { send, at, reported, heard } = rig();
    at.isRegistered = false;
    assert.deepEqual(await send(senml(value)), ['4.04']);
    at.isAwaited = true;
    assert.deepEqual(await send(senml(value)), ['5.03', 2]);
    assert.deepEqual([reported, heard], [[], []]);
  });

  for (const [what, payload, format, code] of [
    ['text', senml('21.5'), ContentFormat.TextPlain, '4.15'],
    ['TLV', Buffer.of(0xc1, 9, 0x64), ContentFormat.LwM2mTlv, '4.15'],
    ['no format', senml(value), null, '4.15'],
    ['no JSON', senml('[{'), ContentFormat.SenmlJson, '4.00'],
    ['no CBOR', Buffer.of(0xff), ContentFormat.SenmlCbor, '4.00'],
    ['no values', senml('[]'), ContentFormat.SenmlJson, '4.00'],
    ['a value of no resource', senml('[{"n":"/3303/0","v":1}]'), ContentFormat.SenmlJson, '4.00'],
    ['a path that is none', senml('[{"n":"/x","v":1}]'), ContentFormat.SenmlJson, '4.00'],
    ['more than the bound', Buffer.alloc(sendBounds.bytes + 1, ' '), ContentFormat.SenmlJson, '4.13'],
  ] as const)
    test(`${what} is refused with ${code}, and nothing of it is taken`, async () => {
      const { send, reported, events } = rig();
      assert.deepEqual(await send(payload, format), [code]);
      assert.deepEqual(reported, []);
      assert.equal(events.all.at(-1)?.name, 'observation.unreadable');
    });

  test('a client that sends more than its bound is told to wait; others are not', async () => {
    const { send, reported, clock } = rig();
    for (let sent = 0; sent < sendBounds.rate.burst; sent++)
      assert.deepEqual(await send(senml(value)), ['2.04']);
    assert.deepEqual(await send(senml(value)), ['4.29', 1]);
    assert.equal(reported.length, sendBounds.rate.burst);
    assert.deepEqual(await send(senml(value), ContentFormat.SenmlJson, 'b'), ['2.04']);
    clock.advance(1000);
    assert.deepEqual(await send(senml(value)), ['2.04']);
  });
});
