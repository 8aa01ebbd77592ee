// A CoAP server of one image on disk, for the benchmark: `node image-server.ts BYTES`. Prints its port.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { imageResource } from '../../src/gateway/southbound/image-resource.ts';
import { ImageFiles } from '../../src/gateway/store/image-files.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { remoteKey } from '../../src/wire/coap/peer.ts';
import { Router } from '../../src/wire/coap/router.ts';

// The flags that the gateway sets for itself.
for (const flag of ['--semi-space-growth-factor=1', '--heap-growing-percent=20']) setFlagsFromString(flag);
const size = Number(process.argv[2]);
const files = new ImageFiles(undefined);
const hash = '00'.repeat(32);
files.put('x', hash, Buffer.alloc(size, 7));
const clock = new SystemClock();
const image = {
  size,
  hash,
  read: (from: number, length: number) => files.read('x', hash, from, length),
};
const socket = createSocket({
  type: 'udp4',
  recvBufferSize: 1 << 20,
  lookup: (host, _, done) => done(null, host, 4),
});
const endpoint = new CoapEndpoint({
  clock,
  entropy: systemEntropy,
  events: { emit: () => {} },
  handler: new Blockwise(
    new Router([
      imageResource(
        () => image,
        () => true,
      ),
    ]).handle,
    clock,
  ).handle,
  send: (datagram, port, address) => socket.send(datagram, port, address),
});
socket.on('message', (datagram, { address, port }) => {
  // A real gateway vouches for an address once a session from there has proved itself.
  endpoint.vouch({ address, port, key: remoteKey(address, port) });
  endpoint.receive(datagram, address, port);
});
// `lookup` answers synchronously, so the event can come before `bind` returns.
const listening = once(socket, 'listening');
socket.bind(0, '127.0.0.1');
await listening;
console.log(socket.address().port);
process.once('SIGTERM', () => {
  files[Symbol.dispose]();
  process.exit();
});
