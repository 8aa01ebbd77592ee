// One server of the CoAP benchmark: `node coap-servers.ts KIND`. Prints its port, and serves until it is killed.
import { createSocket } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { createServer } from 'coap';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { CoapNetwork } from '../../src/gateway/southbound/coap-network.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { type CoapRequest, reply } from '../../src/wire/coap/message.ts';
import { Router } from '../../src/wire/coap/router.ts';

const body = 'Nov 24 12:00:00';

async function postern(): Promise<number> {
  const clock = new SystemClock();
  const network = new CoapNetwork({
    port: 0,
    interfaces: ['lo'],
    multicast: false,
    clock,
    entropy: systemEntropy,
    events: noEvents,
    listInterfaces: () => ({ lo: (networkInterfaces().lo ?? []).filter(({ family }) => family === 'IPv4') }),
  });
  await network.start((local) => {
    const time = {
      path: '/time',
      methods: {
        GET: ({ remote }: CoapRequest) => {
          // A real gateway vouches for an address once a session from there has proved itself.
          if (!local.endpoint().isProven(remote)) local.endpoint().vouch(remote);
          return reply(Code.Content, { payload: body, contentFormat: 0 });
        },
      },
    };
    return new Blockwise(new Router([time]).handle, clock).handle;
  });
  return network.port;
}

async function coapPackage(): Promise<number> {
  const server = createServer((_request, response) => {
    response.setOption('Content-Format', 'text/plain');
    response.end(body);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = createSocket('udp4').bind(0, '127.0.0.1', () => resolve());
  await promise;
  server.listen(socket);
  return socket.address().port;
}

async function echo(): Promise<number> {
  const socket = createSocket('udp4');
  socket.on('message', (datagram, { port, address }) => socket.send(datagram, port, address));
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.bind(0, '127.0.0.1', () => resolve());
  await promise;
  return socket.address().port;
}

const kinds = { postern, coap: coapPackage, echo };
console.log(await kinds[process.argv[2] as keyof typeof kinds]());
