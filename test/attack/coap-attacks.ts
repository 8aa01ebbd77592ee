import { decode, encode, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, uint } from '../../src/wire/coap/options.ts';
import { deviceId } from '../bench/crowd.ts';
import {
  type Attack,
  bignum,
  firstMessage,
  inBlocks,
  int,
  Method,
  repeatedly,
  request,
  Strangers,
  xml,
} from './attacker.ts';

/** Discovery by multicast from 1,000 spoofed addresses. */
const multicast = (rate: number): Attack => ({
  what: `Discovery by multicast from 1,000 spoofed addresses, ${rate.toLocaleString('en')} a second`,
  run: async (target) => {
    const strangers = await Strangers.at(target, 1000);
    for (const socket of strangers.sockets) socket.setMulticastInterface(target.multicast);
    const question = {
      type: Type.NON,
      code: Method.GET,
      path: '.well-known/core',
      // The answer to it is short enough for a peer that has proved nothing.
      query: ['rt=oma.dm.bs'],
    } as const;
    await repeatedly(rate, (round) => strangers.send(round, request(question), { to: '224.0.1.187' }));
  },
});

/** Attacks on the CoAP endpoint: floods, and what fills its tables. */
export const coapAttacks: Readonly<Record<string, Attack>> = {
  garbage: {
    what: 'Random datagrams and CoAP messages with one octet changed, 2,000 a second from 50 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      await repeatedly(2000, (round) => {
        const datagram =
          round % 2 === 0
            ? chance.bytes(1 + int(chance, 200))
            : request({ path: 'dm', options: [xml], payload: firstMessage('x', '1', 1) });
        const changed = Buffer.from(datagram);
        changed[int(chance, changed.length)] = int(chance, 256);
        strangers.send(round, changed);
      });
    },
  },
  flood: {
    what: 'Requests for all resources, 3,000 a second from 1,000 addresses',
    run: async (target) => {
      const strangers = await Strangers.at(target, 1000);
      const paths = ['.well-known/core', 'dm', 'bs', 'rd', 'img/x', 'gw/status', 'nothing'];
      await repeatedly(3000, (round) =>
        strangers.send(round, request({ code: 1 + (round % 4), path: paths[round % paths.length]! })),
      );
    },
  },
  'thousand-gets': {
    what: 'Messages of 1,000 Gets in the names of honest devices, without a credential, 25 a second in blocks',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 25);
      const gets = Array.from(
        { length: 1000 },
        (_, at) =>
          `<Get><CmdID>${at + 1}</CmdID><Item><Target><LocURI>./DevInfo</LocURI></Target></Item></Get>`,
      ).join('');
      await repeatedly(25, (round) => {
        const device = deviceId(int(chance, target.devices));
        const message = firstMessage(device, String(int(chance, 1e6)), 1, { body: gets });
        for (const part of inBlocks({ path: 'dm', options: [xml] }, message)) strangers.send(round, part);
      });
    },
  },
  observers: {
    what: 'Observations of the state of the uplink that nobody ends, 500 a second from 200 addresses',
    run: async (target) => {
      const strangers = await Strangers.at(target, 200);
      await repeatedly(500, (round) =>
        strangers.send(
          round,
          request({ code: Method.GET, path: 'gw/status', options: [uint(Option.Observe, 0)] }),
        ),
      );
    },
  },
  blocks: {
    what: 'Uploads in blocks that never end, and 8,192 that are never continued, 3,000 blocks a second from 50 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      // Every second block belongs to an upload that goes on and on, the others begin one.
      await repeatedly(3000, (round) => {
        const isEndless = round % 2 === 0;
        const from = isEndless ? (round / 2) % 50 : int(chance, 50);
        const block = isEndless ? Math.floor(round / 100) : 0;
        strangers.send(
          from,
          request({
            path: 'dm',
            query: isEndless ? [] : [`n=${round % 8192}`],
            options: [xml, uint(Option.Block1, block * 16 + 8 + 6)],
            payload: Buffer.alloc(1024),
          }),
        );
      });
    },
  },
  bignums: {
    what: 'CBOR bignums of 60 KB over CoAP and of 256 KB over HTTP, ten a second',
    run: async (target) => {
      const strangers = await Strangers.at(target, 10);
      await repeatedly(10, (round) => {
        const question = { path: 'dm', options: [uint(Option.ContentFormat, ContentFormat.SyncmlCbor)] };
        for (const part of inBlocks(question, bignum(60_000))) strangers.send(round, part);
        void fetch(`http://${target.host}:${target.http}/dm`, {
          method: 'POST',
          headers: { 'content-type': 'application/cbor' },
          body: Buffer.concat([Buffer.from([0xc2, 0x5a, 0, 4, 0, 0]), Buffer.alloc(262_144, 0xff)]),
        }).then(
          (answer) => answer.arrayBuffer(),
          () => {},
        );
      });
    },
  },
  replay: {
    what: 'Datagrams of an honest bootstrap and session, heard and sent again with changed message IDs, 500 a second',
    run: async (target, chance) => {
      const heard: Buffer[] = [];
      const listener = await Strangers.at(target, 1);
      listener.sockets[0]!.on('message', (datagram) => heard.push(datagram));
      const strangers = await Strangers.at(target, 20);
      await repeatedly(500, (round) => {
        if (round % 50 === 0)
          listener.send(
            0,
            request({ path: 'dm/bs', query: [`id=${deviceId(int(chance, target.devices))}`] }),
          );
        const again = heard[int(chance, heard.length)];
        const message = again && decode(again);
        if (!message || message instanceof Malformed) return;
        strangers.send(
          round,
          encode({ ...message, type: Type.CON, code: Method.POST, messageId: int(chance, 65_536) }),
        );
        if (heard.length > 500) heard.length = 0;
      });
    },
  },
  'multicast-500': multicast(500),
  'multicast-1500': multicast(1500),
  'slow-readers': {
    what: 'Clients that ask for everything in blocks of 16 octets, and never for the next one, 1,000 a second from 100 addresses',
    run: async (target) => {
      const strangers = await Strangers.at(target, 100);
      await repeatedly(1000, (round) =>
        strangers.send(
          round,
          request({
            code: Method.GET,
            path: '.well-known/core',
            query: [`x=${round}`],
            options: [uint(Option.Block2, 0)],
          }),
        ),
      );
    },
  },
};
