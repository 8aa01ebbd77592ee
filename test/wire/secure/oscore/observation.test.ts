import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { call } from '../../../../src/wire/coap/blockwise-client.ts';
import { type CoapMessage, decode, encode, noBytes, Type } from '../../../../src/wire/coap/codec.ts';
import { Code } from '../../../../src/wire/coap/codes.ts';
import { reply } from '../../../../src/wire/coap/message.ts';
import { Observation } from '../../../../src/wire/coap/observation.ts';
import { Observable } from '../../../../src/wire/coap/observe.ts';
import { Option, uint } from '../../../../src/wire/coap/options.ts';
import { hasOscore } from '../../../../src/wire/secure/oscore/messages.ts';
import { type Datagram, ofDevice, ofGateway, Party, Wire } from './party.ts';

const token = Buffer.from('observed');
const read = (bytes: Buffer) => decode(bytes) as CoapMessage;

/** A gateway that observes a resource of a device under OSCORE. */
async function observing() {
  const wire = new Wire();
  const gateway = new Party(wire, 'gateway', { device: ofGateway });
  const device = new Party(wire, 'device', { gateway: ofDevice });
  gateway.find('device', device);
  device.find('gateway', gateway);
  let state = 0;
  const observable = new Observable(device.endpoint, wire.clock, () =>
    reply(Code.Content, { payload: `state ${state}` }),
  );
  device.handler = observable.handle;
  const heard: string[] = [];
  const observation = new Observation({
    token,
    notified: ({ payload }) => heard.push(Buffer.from(payload).toString()),
    ended: () => heard.push('ended'),
  });
  const answer = call(gateway.endpoint, wire.entropy, 'device', 5683, {
    method: Code.GET,
    path: ['3303', '0', '5700'],
    timeout: 20_000,
    observation,
  });
  await wire.settle();
  await answer;
  const change = async () => {
    state++;
    observable.changed();
    await wire.settle();
  };
  const isNotification = ({ from, bytes }: Datagram) => from === device && hasOscore(read(bytes));
  const arrive = async (bytes: Buffer, from = 'device', port = 5683) => {
    gateway.endpoint.receive(bytes, from, port);
    await wire.settle();
  };
  return { wire, gateway, device, observable, observation, heard, change, isNotification, arrive };
}

describe('an observation under OSCORE, client side (RFC 8613)', () => {
  test('opens the first response and the notifications', async () => {
    const { heard, change, wire, observation } = await observing();
    await change();
    await change();
    assert.deepEqual(heard, ['state 0', 'state 1', 'state 2']);
    for (const { bytes } of wire.sent) if (bytes.length > 4) assert.ok(hasOscore(read(bytes)));
    assert.equal(observation.isActive, true);
  });

  test('a replayed notification has no effect, whatever the number outside says and however late it comes', async () => {
    const { heard, change, wire, isNotification, arrive } = await observing();
    await change();
    const old = wire.sent.filter(isNotification).at(-1)!.bytes;
    await change();
    wire.clock.advance(200_000);
    await arrive(old);
    const { options, ...rest } = read(old);
    const renumbered = options.map((option) =>
      option.number === Option.Observe.number ? uint(Option.Observe, 9_000_000) : option,
    );
    await arrive(encode({ ...rest, messageId: 60_000, options: renumbered }));
    assert.deepEqual(heard, ['state 0', 'state 1', 'state 2']);
  });

  test('a changed one is dropped without an answer, and the true one counts', async () => {
    const { heard, change, wire, isNotification, arrive } = await observing();
    let held: Buffer = Buffer.alloc(0);
    wire.pass = (datagram) => {
      if (!isNotification(datagram)) return [datagram.bytes];
      held = datagram.bytes;
      return [];
    };
    await change();
    const changed = encode({ ...read(held), type: Type.CON });
    changed[changed.length - 1]! ^= 1;
    const before = wire.sent.length;
    await arrive(changed);
    assert.equal(wire.sent.length, before);
    await arrive(held);
    assert.deepEqual(heard, ['state 0', 'state 1']);
  });

  test('what is not protected says nothing and ends nothing, an error neither', async () => {
    const { heard, change, arrive } = await observing();
    for (const code of [Code.Content, Code.NotFound])
      await arrive(
        encode({
          type: Type.NON,
          code,
          messageId: 50_000 + code,
          token,
          options: [uint(Option.Observe, 9_000_000)],
          payload: code === Code.Content ? Buffer.from('forged') : noBytes,
        }),
      );
    await change();
    assert.deepEqual(heard, ['state 0', 'state 1']);
  });

  test('one from another address is taken: it proves itself', async () => {
    const { heard, change, wire, isNotification, arrive } = await observing();
    let held: Buffer = Buffer.alloc(0);
    wire.pass = (datagram) => {
      if (!isNotification(datagram)) return [datagram.bytes];
      held = datagram.bytes;
      return [];
    };
    await change();
    await arrive(held, 'elsewhere', 4000);
    assert.deepEqual(heard, ['state 0', 'state 1']);
  });

  test('nothing is opened after the context was taken away', async () => {
    const { heard, change, gateway } = await observing();
    gateway.contexts.remove('device');
    await change();
    assert.deepEqual(heard, ['state 0']);
  });

  test('a Reset to a notification ends it at the device, after a restart of the gateway too', async () => {
    const { change, gateway, device, observable, heard } = await observing();
    gateway.start();
    gateway.find('device', device);
    await change();
    await change();
    assert.equal(observable.size, 0);
    assert.deepEqual(heard.slice(0, 2), ['state 0', 'ended']);
  });
});
