// One party of the tunnel benchmark: `node tunnel-peers.ts KIND [BROKER]`. Prints a line when it is ready, and serves until it is
// killed. The answer of both servers has the same size as the package.
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { connectAsync, type MqttClient } from 'mqtt';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { statusOf } from '../../src/dm/replies.ts';
import { CoapNetwork } from '../../src/gateway/southbound/coap-network.ts';
import { Downlink } from '../../src/headend/downlink.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { Router } from '../../src/wire/coap/router.ts';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import {
  afterPause,
  envelopeBytes,
  loopbackOnly,
  packageBytes,
  percentiles,
  type Work,
} from './tunnel-load.ts';

const [kind, broker = ''] = process.argv.slice(2);
const body = Buffer.alloc(packageBytes, 'a');

/** Answers packages over CoAP, with nothing between. Prints its port. */
async function stub(): Promise<void> {
  const clock = new SystemClock();
  const network = new CoapNetwork({
    port: 0,
    interfaces: ['lo'],
    multicast: false,
    clock,
    entropy: systemEntropy,
    events: noEvents,
    listInterfaces: loopbackOnly,
  });
  await network.start(() => {
    const methods = { POST: () => reply(Code.Changed, { payload: body, contentFormat: 65001 }) };
    return new Blockwise(new Router([{ path: '/dm/t', subtree: true, methods }]).handle, clock).handle;
  });
  console.log(network.port);
}

/** The head-end's side of the MQTT binding, without a DM server behind it. */
function headend(): void {
  const downlink = new Downlink({
    gatewayRate: 1e6,
    serverId: 'dm.example',
    route: 'worker-1',
    settings: { url: broker, protocol: 'auto' },
    clock: new SystemClock(),
    entropy: systemEntropy,
    events: { emit: (name) => name === 'mqtt.connected' && console.log('ready') },
  });
  const contentType = MediaType.Wbxml;
  // The DM server accepts each device, so the gateway lets its packages through as they come.
  const acceptance = (device: string) =>
    encodeMessage(
      {
        header: {
          ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1 },
          ...{ target: { locUri: device }, source: { locUri: 'dm.example' } },
        },
        commands: [{ ...statusOf(1, '0', 'SyncHdr', 212), cmdId: '1' }],
        final: true,
      },
      contentType,
    );
  const length = 128;
  const answer = acceptance('d'.repeat(length + packageBytes - acceptance('d'.repeat(length)).length));
  downlink.start({
    isProven: () => true,
    answerPackage: async () => ({ contentType, body: answer }),
    gatewayStateChanged: () => {},
  });
}

/** A client of mqtt.js with the options of Postern's own. */
async function client(): Promise<MqttClient> {
  const peer = await connectAsync(broker, { protocolVersion: 5, writeCache: false, reconnectPeriod: 0 });
  (peer.stream as Socket).setNoDelay(true);
  return peer;
}

/** Sends each message of `bench/up` back to `bench/down`. */
async function echo(): Promise<void> {
  const peer = await client();
  peer.on('message', (_topic, payload) => peer.publish('bench/down', payload, { qos: 1 }));
  await peer.subscribeAsync('bench/up', { qos: 1 });
  console.log('ready');
}

/** Reads work as lines of JSON. Makes so many round trips through the broker and prints their times. */
async function bare(): Promise<void> {
  const peer = await client();
  await peer.subscribeAsync('bench/down', { qos: 1 });
  const began = new Map<number, number>();
  let took: number[] = [];
  let work: Work = { count: 0, outstanding: 0 };
  let left = 0;
  let next = 0;
  let done = () => {};
  const send = () => {
    const payload = Buffer.alloc(envelopeBytes);
    payload.writeUInt32BE(next);
    began.set(next++, performance.now());
    peer.publish('bench/up', payload, { qos: 1 });
  };
  peer.on('message', (_topic, payload) => {
    const id = payload.readUInt32BE();
    took.push(performance.now() - began.get(id)!);
    began.delete(id);
    if (left > 0) {
      left--;
      afterPause(work, send);
    } else if (took.length === work.count) done();
  });
  console.log('ready');
  for await (const line of createInterface(process.stdin)) {
    work = JSON.parse(line) as Work;
    took = [];
    left = work.count - work.outstanding;
    const { promise, resolve } = Promise.withResolvers<void>();
    done = resolve;
    for (let at = 0; at < work.outstanding; at++) send();
    await promise;
    console.log(JSON.stringify(percentiles(took)));
  }
}

const kinds = { stub, headend, echo, bare };
await kinds[kind as keyof typeof kinds]();
