// The server of `npm run bench:dtls`: prints its port, and answers GET /time over DTLS. Its argument is a folder of certificates.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { Admission } from '../../src/base/admission.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { CoapTransport } from '../../src/wire/secure/coap-transport.ts';
import { benchServed } from './dtls-certificates.ts';
import { key } from './dtls-client.ts';

const machine = { clock: new SystemClock(), entropy: systemEntropy, events: noEvents };
const plenty = { rate: 1e6, burst: 1e6 };
const admission = new Admission({
  ...machine,
  limits: {
    address: plenty,
    prefix: plenty,
    newcomers: plenty,
    regulars: plenty,
    known: plenty,
    allKnown: plenty,
    proven: plenty,
    allProven: plenty,
  },
});
const [folder] = process.argv.slice(2);
const certificates = folder === undefined ? undefined : benchServed(folder);
const transport = new CoapTransport({
  ...machine,
  admission,
  keyOf: () => key,
  certificates: () => certificates,
  associations: 10_000,
  store: { load: () => [], save: () => {}, remove: () => {}, settled: async () => {} },
});
const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
const endpoint = new CoapEndpoint({
  ...machine,
  admission,
  handler: () => reply(Code.Content, { payload: 'Nov 28 21:52:13' }),
  send: (content, _port, _address, to) => transport.send(content, to),
  remoteOf: (address, port) => transport.remoteOf(address, port),
});
transport.open('', {
  endpoint,
  send: (datagram, port, address) => socket.send(datagram, port, address),
  received: (content, remote) => {
    if (endpoint.admits(content, remote)) endpoint.take(content, remote);
  },
});
socket.on('message', (datagram, { address, port }) => transport.receive(datagram, address, port, ''));
socket.bind(0, '127.0.0.1');
await once(socket, 'listening');
console.log(socket.address().port);
