// One server of the CoAP benchmark: `node coap-servers.ts KIND`. Prints its port, and serves until it is killed.
import { createSocket, type SocketOptions } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { createServer } from 'coap';
import { Admission } from '../../src/base/admission.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { literalLookup } from '../../src/base/source-address.ts';
import { beFrugal, watchedForWork } from '../../src/cli/frugality.ts';
import { CoapNetwork } from '../../src/gateway/southbound/coap-network.ts';
import { body, timeResource, unlimited } from './coap-resource.ts';

async function postern(events = noEvents): Promise<number> {
  const clock = new SystemClock();
  const network = new CoapNetwork({
    port: 0,
    interfaces: ['lo'],
    multicast: false,
    clock,
    entropy: systemEntropy,
    events,
    admission: new Admission({ clock, events, limits: unlimited }),
    listInterfaces: () => ({ lo: (networkInterfaces().lo ?? []).filter(({ family }) => family === 'IPv4') }),
  });
  await network.start(({ endpoint }) => timeResource(clock, endpoint));
  return network.port;
}

/** Postern in a process whose memory is bounded as that of a gateway. */
function gateway(): Promise<number> {
  beFrugal();
  return postern(watchedForWork(noEvents));
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

async function echo(options: Partial<SocketOptions> = {}): Promise<number> {
  const socket = createSocket({ type: 'udp4', ...options });
  socket.on('message', (datagram, { port, address }) => socket.send(datagram, port, address));
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.bind(0, '127.0.0.1', () => resolve());
  await promise;
  return socket.address().port;
}

const kinds = {
  postern: () => postern(),
  gateway,
  coap: coapPackage,
  echo,
  literal: () => echo(literalLookup),
};
console.log(await kinds[process.argv[2] as keyof typeof kinds]());
