// The CoAP layer of the benchmark alone, without a socket: `node coap-layer.ts COUNT`. Prints its CPU in µs per request, less what
// the same loop takes without the layer.
import { Admission } from '../../src/base/admission.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { timeResource, unlimited } from './coap-resource.ts';

const perTurn = 32;
const count = Number(process.argv[2]);
const clock = new SystemClock();
const endpoint: CoapEndpoint = new CoapEndpoint({
  clock,
  entropy: systemEntropy,
  events: noEvents,
  handler: timeResource(clock, () => endpoint),
  send: () => {},
  admission: new Admission({ clock, events: noEvents, limits: unlimited }),
});

/** CON GET /time in memory of its own, as Node gives it. */
function request(id: number): Buffer {
  const octets = [0x44, 0x01, id >> 8, id, 0x70, 0x73, id >> 8, id, 0xb4, 0x74, 0x69, 0x6d, 0x65];
  return Buffer.from(new Uint8Array(octets).buffer);
}

let id = 0;
async function run(take: (datagram: Buffer) => void): Promise<number> {
  const before = process.cpuUsage();
  for (let done = 0; done < count; done += perTurn) {
    for (let at = 0; at < perTurn; at++) take(request(++id & 0xffff));
    await new Promise(setImmediate);
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
}

const layer = (datagram: Buffer) => endpoint.receive(datagram, '127.0.0.1', 5683);
const nothing = () => {};
for (const take of [layer, nothing]) await run(take);
console.log((await run(layer)) - (await run(nothing)));
endpoint.stop();
