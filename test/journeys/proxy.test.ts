// Servers that are reached through an HTTP proxy alone: their names are known to nobody but the proxy.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, type TestContext, test } from 'node:test';
import { SystemClock } from '../../src/base/clock.ts';
import { download } from '../../src/gateway/northbound/download.ts';
import { HandClock } from '../hand-clock.ts';
import { freePort, startMosquitto } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { linkTo, up } from '../wire/tunnel/link-rig.ts';

const limit = { timeout: 60_000 };
const { signal } = new AbortController();

/** A proxy that knows `*.test` as this machine, with what it was asked for. */
class HttpProxy implements AsyncDisposable {
  readonly asked: string[] = [];
  readonly sockets = new Set<Socket>();
  readonly server: Server = createServer();
  /** What it does with a request: passes it on, refuses it, or never answers. */
  does: 'pass' | 'refuse' | 'nothing' = 'pass';

  constructor() {
    this.server.on('connection', (socket) => this.sockets.add(socket));
    this.server.on('connect', (request: IncomingMessage, socket: Socket) => {
      this.asked.push(`CONNECT ${request.url}`);
      socket.on('error', () => {});
      if (this.does === 'nothing') return;
      if (this.does === 'refuse') return void socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
      const there = connect(Number(request.url?.split(':')[1]), '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        there.pipe(socket).pipe(there);
      });
      there.on('error', () => socket.destroy());
    });
    this.server.on('request', (request, response) => {
      this.asked.push(`${request.method} ${request.url}`);
      const { port, pathname } = new URL(request.url ?? '');
      httpRequest({ port, path: pathname, host: '127.0.0.1' }, (from) => {
        response.writeHead(from.statusCode ?? 500, from.headers);
        from.pipe(response);
      }).end();
    });
  }

  async start(port = 0): Promise<this> {
    this.server.listen(port, '127.0.0.1');
    await once(this.server, 'listening');
    process.env.HTTP_PROXY = process.env.HTTPS_PROXY = `http://127.0.0.1:${this.port}`;
    return this;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.server, 'close');
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }
}

afterEach(() => {
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']) delete process.env[name];
});

function certificate(t: TestContext, name: string) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-proxy-'));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') };
  selfSigned(name, files, '-addext', `subjectAltName=DNS:${name}`);
  // mosquitto gives up its rights before it reads them.
  chmodSync(files.key, 0o644);
  return files;
}

/** A broker with WebSockets over TLS. */
async function broker(t: TestContext) {
  const files = certificate(t, 'broker.test');
  const port = await freePort();
  const mosquitto = await startMosquitto([
    ...['allow_anonymous true', `listener ${port} 127.0.0.1`, 'protocol websockets'],
    ...[`certfile ${files.cert}`, `keyfile ${files.key}`],
  ]);
  return { mosquitto, port, url: `wss://broker.test:${port}`, ca: files.cert };
}

describe('behind an HTTP proxy', limit, () => {
  test('a broker is reached by WebSocket over TLS, also after the proxy was away', async (t) => {
    const { mosquitto, port, url, ca } = await broker(t);
    await using _broker = mosquitto;
    const proxy = await new HttpProxy().start();
    const { link, clock, events, received } = linkTo(url, { ca, protocol: 5 });
    await using _link = link;
    await events.until('mqtt.connected');
    assert.deepEqual(proxy.asked, [`CONNECT broker.test:${port}`]);
    await link.publish({ ...up('hello'), topic: 'dm/gw-1/down' });
    assert.equal(received[0]?.text, 'hello');
    const proxyPort = proxy.port;
    const gone = events.until('mqtt.disconnected');
    await proxy[Symbol.asyncDispose]();
    await gone;
    await using again = await new HttpProxy().start(proxyPort);
    clock.advance(60_000);
    await once(again.server, 'connect');
    await link.publish({ ...up('again'), topic: 'dm/gw-1/down' }).catch(() => {});
    assert.equal(again.asked.length, 1);
  });

  test('a proxy that refuses is the reason why there is no connection, and hosts of NO_PROXY are reached without it', async (t) => {
    const { mosquitto, port, url, ca } = await broker(t);
    await using _broker = mosquitto;
    await using proxy = await new HttpProxy().start();
    proxy.does = 'refuse';
    const refused = linkTo(url, { ca, protocol: 5 });
    await using _refused = refused.link;
    const { fields } = await refused.events.until('mqtt.connect-failed');
    assert.match(String(fields.reason), /403/);
    process.env.NO_PROXY = 'localhost,127.0.0.1';
    const asked = proxy.asked.length;
    const direct = linkTo(`wss://127.0.0.1:${port}`, { ca, protocol: 5 });
    await using _direct = direct.link;
    // The certificate is for another name: the connection itself was made.
    assert.match(
      String((await direct.events.until('mqtt.connect-failed')).fields.reason),
      /altnames|not in the cert/i,
    );
    assert.equal(proxy.asked.length, asked);
  });

  test('files are loaded over HTTPS and HTTP; a proxy that refuses, breaks or is silent is told as such', async (t) => {
    const files = certificate(t, 'files.test');
    const body = Buffer.alloc(200_000, 'x');
    let isCut = false;
    const answer = (
      _request: unknown,
      response: {
        end: (chunk?: Buffer) => void;
        write: (chunk: Buffer) => void;
        setHeader: (name: string, value: number) => void;
        destroy: () => void;
      },
    ) => {
      response.setHeader('content-length', body.length);
      if (!isCut) return response.end(body);
      response.write(body.subarray(0, 1000));
      for (const socket of proxy.sockets) socket.destroy();
    };
    const secure = createSecureServer(
      { key: readFileSync(files.key), cert: readFileSync(files.cert) },
      answer as never,
    );
    const plain = createServer(answer as never);
    for (const server of [secure, plain]) {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      t.after(() => {
        server.close();
        server.closeAllConnections();
      });
    }
    await using proxy = await new HttpProxy().start();
    const ca = readFileSync(files.cert, 'utf8');
    const url = `https://files.test:${(secure.address() as AddressInfo).port}/bundle`;
    const load = async (from: string, clock: SystemClock | HandClock = new SystemClock()) => {
      const file = await download({ url: from, from: 0, ca, clock: clock as SystemClock, signal });
      return Buffer.concat(await Array.fromAsync(file.body));
    };
    assert.ok((await load(url)).equals(body));
    const { port } = plain.address() as AddressInfo;
    assert.ok((await load(`http://files.test:${port}/image`)).equals(body));
    assert.deepEqual(proxy.asked, [`CONNECT ${new URL(url).host}`, `GET http://files.test:${port}/image`]);
    isCut = true;
    await assert.rejects(load(url), { code: 'unavailable' });
    proxy.does = 'refuse';
    await assert.rejects(load(url), { code: 'unavailable', message: /403/ });
    proxy.does = 'nothing';
    const clock = new HandClock();
    const silent = assert.rejects(load(url, clock), { code: 'timeout' });
    await once(proxy.server, 'connect');
    clock.advance(30_000);
    await silent;
  });
});
