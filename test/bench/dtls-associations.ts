// Part of `npm run bench:dtls`: opens many associations in memory, and prints the bytes of RSS that each of them takes.
import { Admission } from '../../src/base/admission.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { CoapTransport } from '../../src/wire/secure/coap-transport.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';
import { key } from './dtls-client.ts';

const count = Number(process.argv[2]);
const machine = { clock: new SystemClock(), entropy: systemEntropy, events: noEvents };
const plenty = { rate: 1e9, burst: 1e9 };
const limits = {
  address: plenty,
  prefix: plenty,
  newcomers: plenty,
  regulars: plenty,
  known: plenty,
  allKnown: plenty,
};
/** Associations that the transport has stored. Until then it remembers them as new. */
let stored = 0;
let wakeUp = () => {};
const admission = new Admission({ ...machine, limits });
const transport = new CoapTransport({
  ...machine,
  admission,
  keyOf: () => key,
  associations: 2 * count,
  store: {
    load: () => [],
    save: (all) => {
      stored += all.length;
      wakeUp();
    },
    remove: () => {},
    settled: async () => {},
  },
});
const endpoint = new CoapEndpoint({
  ...machine,
  admission,
  handler: () => undefined,
  send: (content, _port, _address, to) => transport.send(content, to),
  remoteOf: (address, port) => transport.remoteOf(address, port),
});
let arrive: (datagram: Buffer) => void = () => {};
transport.open('', {
  endpoint,
  send: (datagram) => arrive(datagram),
  received: (content, remote) => {
    if (endpoint.admits(content, remote)) endpoint.take(content, remote);
  },
});

/** Opens an association with the client of this number, which sends a ping and is forgotten. */
async function open(number: number): Promise<void> {
  // A gateway's private network: what the entry remembers of addresses is bounded, and counted elsewhere.
  const address = `10.0.0.${number & 255}`;
  const port = 1024 + (number >> 8);
  const queue: (() => void)[] = [];
  const client = new DtlsEndpoint({
    ...machine,
    received: () => {},
    send: (datagram) => queue.push(() => transport.receive(datagram, address, port, '')),
  });
  arrive = (datagram) => queue.push(() => client.receive(datagram, server));
  const server = { address: '192.0.2.1', port: 5684, local: '' };
  const opening = client.connect(server, { identity: `urn:dev:bench:${number}`, key });
  for (let next = queue.shift(); next; next = queue.shift()) next();
  const { association } = await opening;
  client.send(association, Buffer.from('40000001', 'hex'));
  for (let next = queue.shift(); next; next = queue.shift()) next();
  // The keys of both ends are in one pool of this process. The client gives its own back; its last word is not delivered.
  client.close(association);
  client.stop();
}

async function resident(upTo: number, from: number): Promise<number> {
  for (let number = from; number < upTo; number++) await open(number);
  while (stored < upTo)
    await new Promise<void>((resolve) => {
      wakeUp = resolve;
    });
  // What a collection frees may hold more that the next one frees.
  for (let turn = 0; turn < 5; turn++) {
    globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    await new Promise((resolve) => setImmediate(resolve));
  }
  return process.memoryUsage().rss;
}

// The first associations pay for code, caches and pools.
const warm = await resident(count / 2, 0);
const full = await resident(count / 2 + count, count / 2);
console.log(Math.round((full - warm) / count));
process.exit();
