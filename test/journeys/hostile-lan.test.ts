import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { encode, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { Option, text, uint } from '../../src/wire/coap/options.ts';
import { startAedes } from '../peers/brokers.ts';
import { messageOf } from '../wire/coap/wire.ts';
import { Site } from './site.ts';

const ids = Array.from({ length: 6 }, (_, at) => `urn:dev:ops:${at}`);
const path = (...segments: string[]) => segments.map((segment) => text(Option.UriPath, segment));

/** Sends on and on from many sockets, as fast as the machine allows, and counts the octets of both directions. */
class Attack implements AsyncDisposable {
  readonly #sockets: Socket[] = [];
  #running = true;
  #sending: Promise<void> = Promise.resolve();
  sent = 0;
  octetsSent = 0;
  octetsReceived = 0;

  /** @param datagram the datagram with this number */
  static async start(
    port: number,
    addresses: readonly string[],
    datagram: (at: number) => Buffer,
  ): Promise<Attack> {
    const attack = new Attack();
    for (const address of addresses) {
      const socket = createSocket('udp4');
      socket.on('error', () => {});
      socket.on('message', ({ length }) => {
        attack.octetsReceived += length;
      });
      socket.bind(0, address);
      await once(socket, 'listening');
      attack.#sockets.push(socket);
    }
    attack.#sending = attack.#send(port, datagram);
    return attack;
  }

  async #send(port: number, datagram: (at: number) => Buffer): Promise<void> {
    while (this.#running) {
      for (let count = 0; count < 20; count++) {
        const octets = datagram(this.sent);
        this.#sockets[this.sent++ % this.#sockets.length]!.send(octets, port, '127.0.0.1');
        this.octetsSent += octets.length;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Resolves when so many datagrams have been sent. */
  async until(count: number): Promise<void> {
    while (this.sent < count) await new Promise((resolve) => setImmediate(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#running = false;
    await this.#sending;
    for (const socket of this.#sockets) socket.close();
  }
}

const message = (at: number, fields: Parameters<typeof messageOf>[0]) =>
  encode(
    messageOf({ type: Type.CON, messageId: at & 0xffff, token: Buffer.of(at >> 8, at & 255), ...fields }),
  );
const attacks: Record<string, (at: number) => Buffer> = {
  garbage: (at) => Buffer.from(Array.from({ length: at % 60 }, (_, index) => (at * 31 + index * 17) & 255)),
  'GETs of what is long': (at) => message(at, { options: path('.well-known', 'core') }),
  'observers of the status': (at) =>
    message(at, { options: [uint(Option.Observe, 0), ...path('gw', 'status')] }),
  'uploads that never end': (at) =>
    message(at, {
      code: Code.POST,
      options: [...path('dm'), uint(Option.Block1, 8 + 6)],
      payload: Buffer.alloc(1024),
    }),
  'packages for the tunnel in any name': (at) =>
    message(at, {
      code: Code.POST,
      options: [
        ...path('dm', 't', 'dm.example'),
        uint(Option.ContentFormat, 65001),
        text(Option.UriQuery, `id=urn:dev:nobody:${at}`),
      ],
      payload: Buffer.from('<SyncML/>'),
    }),
  'requests for a bootstrap': (at) =>
    message(at, {
      code: Code.POST,
      options: [...path('dm', 'bs'), text(Option.UriQuery, `id=urn:dev:nobody:${at}`)],
    }),
};

describe('honest devices beside an attack from 40 addresses, one of them their own', {
  timeout: 120_000,
}, () => {
  for (const [what, datagram] of Object.entries(attacks))
    test(what, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      const gateway = await site.gateway(ids);
      const join = async (id: string) => {
        const device = site.device(id, gateway, { factory: true });
        await device.start();
        await device.attached;
      };
      const [first = '', ...others] = ids;
      await join(first);
      const addresses = ['127.0.0.1', ...Array.from({ length: 39 }, (_, at) => `127.7.${at % 4}.${1 + at}`)];
      await using attack = await Attack.start(gateway.coapPort, addresses, datagram);
      await attack.until(2000);
      await Promise.all(others.map(join));
      await attack.until(12_000);
      await headend.fanOut('gw-1', {
        name: 'label',
        targets: {},
        returnFormat: 3,
        command: '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>',
      });
      await site.headendEvents.until('alert.command-fanout', { name: 'label' });
      assert.match(headend.fanouts().at(-1)?.result ?? '', /Done="6"|Count="6"|Status="200"/);
      assert.equal(site.gatewayEvents.count('coap.handler-failed'), 0);
      assert.ok(
        attack.octetsReceived <= 3 * attack.octetsSent,
        `${attack.octetsReceived} octets for ${attack.octetsSent}`,
      );
    });
});
