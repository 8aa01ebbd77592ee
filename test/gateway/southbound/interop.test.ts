import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Agent, type IncomingMessage, type ObserveReadStream } from 'coap';
import { SystemClock } from '../../../src/base/clock.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { CoapNetwork } from '../../../src/gateway/southbound/coap-network.ts';
import { Blockwise } from '../../../src/wire/coap/blockwise.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { parseLinks } from '../../../src/wire/coap/link-format.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { Router } from '../../../src/wire/coap/router.ts';
import { Site } from '../../journeys/site.ts';
import { startAedes } from '../../peers/brokers.ts';

const limit = { timeout: 60_000 };

interface Run {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs libcoap's client to its end. */
async function coapClient(...args: string[]): Promise<Run> {
  const child = spawn('coap-client-notls', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  await once(child, 'close');
  return { stdout, stderr };
}

/** The gateway's CoAP stack with one resource that is read and written: the gateway itself has none so large. */
async function startStore() {
  let body: Uint8Array = Buffer.from('nothing yet');
  const clock = new SystemClock();
  const network = new CoapNetwork({
    port: 0,
    interfaces: [],
    multicast: true,
    clock,
    entropy: systemEntropy,
    events: noEvents,
    limits: { leisure: 50 },
    listInterfaces: () => ({ lo: networkInterfaces().lo ?? [] }),
  });
  await network.start(() => {
    const store = {
      path: '/store',
      links: () => [{ target: '/store', attributes: { rt: 'test.store' } }],
      methods: {
        GET: () => reply(Code.Content, { payload: body, contentFormat: 42 }),
        PUT: ({ payload }: { payload: Uint8Array }) => {
          body = payload;
          return reply(Code.Changed);
        },
      },
    };
    return new Blockwise(new Router([store]).handle, clock).handle;
  });
  return { network, body: () => Buffer.from(body) };
}

describe("libcoap's coap-client", limit, () => {
  test('reads and writes block-wise, over IPv4 and IPv6', async (t) => {
    const { network, body } = await startStore();
    const folder = mkdtempSync(join(tmpdir(), 'postern-coap-'));
    t.after(async () => {
      rmSync(folder, { recursive: true });
      await network[Symbol.asyncDispose]();
    });
    const [up, down] = [join(folder, 'up'), join(folder, 'down')];
    const hosts = networkInterfaces().lo?.some(({ family }) => family === 'IPv6')
      ? ['127.0.0.1', '[::1]']
      : ['127.0.0.1'];
    for (const host of hosts) {
      const sent = randomBytes(20_000);
      writeFileSync(up, sent);
      await coapClient('-m', 'put', '-b', '512', '-f', up, `coap://${host}:${network.port}/store`);
      assert.deepEqual(body(), sent, host);
      await coapClient('-m', 'get', '-b', '256', '-o', down, `coap://${host}:${network.port}/store`);
      assert.deepEqual(readFileSync(down), sent, host);
    }
  });

  test('finds the gateway by unicast and multicast, and observes its uplink', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    const base = `127.0.0.1:${gateway.coapPort}`;
    const unicast = await coapClient('-m', 'get', `coap://${base}/.well-known/core?rt=oma.dm*`);
    assert.deepEqual(
      parseLinks(unicast.stdout.trim()).map(({ target }) => target),
      ['/dm/bs', '/dm', '/dm/t/dm.example'],
    );
    // The source address makes the kernel take the loopback interface for the group.
    const multicast = await coapClient(
      '-N',
      '-B',
      '2',
      '-a',
      '127.0.0.1',
      `coap://224.0.1.187:${gateway.coapPort}/.well-known/core?rt=oma.dm.bs`,
    );
    assert.match(multicast.stdout, /<\/dm\/bs>;rt="oma.dm.bs"/);

    const observer = spawn('coap-client-notls', ['-s', '30', `coap://${base}/gw/status`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const heard: string[] = [];
    let wake = () => {};
    observer.stdout.setEncoding('utf8').on('data', (text: string) => {
      heard.push(...(text.match(/online|offline/g) ?? []));
      wake();
    });
    const until = async (count: number) => {
      while (heard.length < count)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    };
    await until(1);
    await broker.stop();
    await until(2);
    await broker.restart();
    await until(3);
    assert.deepEqual(heard.slice(0, 3), ['online', 'offline', 'online']);
    const ended = once(observer, 'exit');
    observer.kill();
    await ended;
  });

  test('gets 4.04 for an unknown path, 4.05 for a wrong method and 4.13 for a too large body', async (t) => {
    const { network } = await startStore();
    const folder = mkdtempSync(join(tmpdir(), 'postern-coap-'));
    t.after(async () => {
      rmSync(folder, { recursive: true });
      await network[Symbol.asyncDispose]();
    });
    const large = join(folder, 'large');
    writeFileSync(large, randomBytes(70_000));
    const base = `coap://127.0.0.1:${network.port}`;
    assert.match((await coapClient('-m', 'get', `${base}/none`)).stderr, /4\.04/);
    assert.match((await coapClient('-m', 'delete', `${base}/store`)).stderr, /4\.05/);
    assert.match((await coapClient('-m', 'put', '-b', '1024', '-f', large, `${base}/store`)).stderr, /4\.13/);
  });
});

describe('the `coap` package', limit, () => {
  async function withAgent(use: (agent: Agent) => Promise<void>): Promise<void> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    socket.setMulticastInterface('127.0.0.1');
    const agent = new Agent({ socket });
    try {
      await use(agent);
    } finally {
      agent.close();
      socket.close();
      await once(socket, 'close');
    }
  }

  const answerOf = async (
    outgoing: ReturnType<Agent['request']>,
    payload?: Buffer,
  ): Promise<IncomingMessage> => {
    const answered = once(outgoing, 'response');
    outgoing.end(payload);
    const [incoming] = await answered;
    return incoming;
  };

  test('reads and writes block-wise', async () => {
    const { network, body } = await startStore();
    try {
      await withAgent(async (agent) => {
        const place = { host: '127.0.0.1', port: network.port, pathname: '/store' };
        const sent = randomBytes(9000);
        const put = agent.request({ ...place, method: 'PUT' });
        put.setOption('Block1', Buffer.of(5));
        assert.equal((await answerOf(put, sent)).code, '2.04');
        assert.deepEqual(body(), sent);
        const got = await answerOf(agent.request({ ...place, method: 'GET' }));
        assert.deepEqual(got.payload, sent);
      });
    } finally {
      await network[Symbol.asyncDispose]();
    }
  });

  test('finds the gateway by multicast, and observes its uplink', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    await withAgent(async (agent) => {
      const place = { port: gateway.coapPort, pathname: '/.well-known/core', query: 'rt=oma.dm.bs' };
      const outgoing = agent.request({
        ...place,
        host: '224.0.1.187',
        multicast: true,
        multicastTimeout: 1000,
        confirmable: false,
      });
      const found = await answerOf(outgoing);
      clearTimeout(outgoing.multicastTimer);
      outgoing.sender.reset();
      assert.deepEqual([found.rsinfo.address, found.rsinfo.port], ['127.0.0.1', gateway.coapPort]);
      assert.match(String(found.payload), /rt="oma.dm.bs"/);

      const observing = agent.request({
        host: '127.0.0.1',
        port: gateway.coapPort,
        pathname: '/gw/status',
        observe: true,
      });
      const stream = (await answerOf(observing)) as unknown as ObserveReadStream;
      const states: string[] = [];
      const changed = Promise.withResolvers<void>();
      stream.on('data', (state: Buffer) => {
        states.push(String(state));
        if (states.at(-1) === 'offline') changed.resolve();
      });
      await broker.stop();
      await changed.promise;
      assert.deepEqual(states.slice(-2), ['online', 'offline']);
    });
  });
});
