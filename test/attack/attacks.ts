// The attacks of `npm run attack`. Each runs in a process of its own (`node attacks.ts NAME TARGET SEED`) until it is killed, and
// sends at most `rate` datagrams, requests or messages per second, so that the machine is not the victim.
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectMqtt } from 'mqtt';
import { type Entropy, seededEntropy } from '../../src/base/entropy.ts';
import { type CoapOption, decode, encode, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option, sorted, uint, uriOptions } from '../../src/wire/coap/options.ts';
import { clientHelloBytes, readHelloVerify } from '../../src/wire/secure/dtls/hellos.ts';
import { fragmentBytes, MessageType, readFragments } from '../../src/wire/secure/dtls/messages.ts';
import { ContentType, dtls12, plainRecord, recordsOf } from '../../src/wire/secure/dtls/record.ts';
import { suites } from '../../src/wire/secure/dtls/suites.ts';
import { deviceId } from '../bench/crowd.ts';

/** What an attacker knows of the gateway. */
export interface Target {
  readonly coap: number;
  /** UDP port of CoAP over DTLS. */
  readonly coaps: number;
  readonly http: number;
  readonly broker: string;
  /** Honest devices. Their IDs are no secret. */
  readonly devices: number;
}

interface Attack {
  /** One line for docs/security.md. */
  readonly what: string;
  readonly run: (target: Target, chance: Entropy) => Promise<void>;
}

const int = (chance: Entropy, below: number): number => Math.floor(chance.uniform() * below);
const host = '127.0.0.1';
const Method = { GET: 1, POST: 2, PUT: 3, DELETE: 4 } as const;

/** Sockets of attackers at addresses of their own: 127.66.x.y. */
async function strangers(count: number, heard?: (datagram: Buffer, by: Socket) => void): Promise<Socket[]> {
  const sockets = Array.from({ length: count }, () => createSocket('udp4'));
  for (const [at, socket] of sockets.entries()) {
    socket.on('message', (datagram) => heard?.(datagram, socket));
    socket.on('error', () => {});
    socket.bind(0, `127.66.${at >> 8}.${at & 255}`);
    await once(socket, 'listening');
  }
  return sockets;
}

/** Runs `act` about `rate` times per second, for ever. */
async function repeatedly(rate: number, act: (round: number) => unknown): Promise<never> {
  const began = performance.now();
  for (let done = 0; ; ) {
    const due = ((performance.now() - began) / 1000) * rate;
    for (; done < due; done++) await act(done);
    await pause(5);
  }
}

interface Question {
  readonly type?: Type;
  readonly code?: number;
  readonly path: string;
  readonly query?: readonly string[];
  readonly options?: readonly CoapOption[];
  readonly payload?: Uint8Array;
}

let messageId = 0;
/** A CoAP request with the next message ID and a token of its own. */
function request({ type = Type.CON, code = Method.POST, path, query = [], options = [], payload }: Question) {
  messageId = (messageId + 1) & 0xffff;
  return encode({
    type,
    code,
    messageId,
    token: Buffer.from([messageId >> 8, messageId & 255, 7]),
    options: sorted([...uriOptions(path.split('/'), query), ...options]),
    payload: payload ?? new Uint8Array(),
  });
}

/** A first DM message in XML, with the credential that the attacker likes. */
function firstMessage(device: string, session: string, message: number, body = '', credential = ''): Buffer {
  return Buffer.from(
    `<?xml version="1.0"?><SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>${session}</SessionID><MsgID>${message}</MsgID><Target><LocURI>gw-1</LocURI></Target><Source><LocURI>${device}</LocURI></Source>${credential}</SyncHdr><SyncBody>${body}<Final/></SyncBody></SyncML>`,
  );
}
const xml = uint(Option.ContentFormat, ContentFormat.SyncmlXml);
const guess = (digest: string): string =>
  `<Cred><Meta><Type xmlns="syncml:metinf">syncml:auth-md5</Type><Format xmlns="syncml:metinf">b64</Format></Meta><Data>${digest}</Data></Cred>`;

/** A ClientHello of DTLS in a record. */
function clientHello(random: Buffer, cookie: Buffer = Buffer.alloc(0)): Buffer {
  const offered = suites.map(({ id }) => id);
  const extensions = { extendedMasterSecret: true, cid: Buffer.alloc(0) };
  const bytes = clientHelloBytes({ random, sessionId: Buffer.alloc(0), cookie, suites: offered, extensions });
  const sequence = cookie.length > 0 ? 1 : 0;
  const fragment = { type: MessageType.ClientHello, sequence, length: bytes.length, offset: 0, bytes };
  return plainRecord(ContentType.Handshake, sequence, fragmentBytes(fragment));
}

/** A CBOR bignum of this many octets in a map (RFC 8949, section 3.4.3). */
const bignum = (octets: number): Buffer =>
  Buffer.concat([
    Buffer.from([0xa1, 0x01, 0xc2, 0x5a, 0, 0, octets >> 8, octets & 255]),
    Buffer.alloc(octets, 0xff),
  ]);

/** Sends a body in blocks of 1 KiB, without waiting for answers. */
function inBlocks(question: Question, body: Buffer): Buffer[] {
  const count = Math.ceil(body.length / 1024);
  return Array.from({ length: count }, (_, at) =>
    request({
      ...question,
      options: [...(question.options ?? []), uint(Option.Block1, at * 16 + (at < count - 1 ? 8 : 0) + 6)],
      payload: body.subarray(at * 1024, (at + 1) * 1024),
    }),
  );
}

export const attacks: Readonly<Record<string, Attack>> = {
  garbage: {
    what: 'Random datagrams and CoAP messages with one octet changed, 2,000 a second from 50 addresses',
    run: async ({ coap }, chance) => {
      const sockets = await strangers(50);
      await repeatedly(2000, (round) => {
        const socket = sockets[round % sockets.length]!;
        const datagram =
          round % 2 === 0
            ? chance.bytes(1 + int(chance, 200))
            : request({ path: 'dm', options: [xml], payload: firstMessage('x', '1', 1) });
        const changed = Buffer.from(datagram);
        changed[int(chance, changed.length)] = int(chance, 256);
        socket.send(changed, coap, host);
      });
    },
  },
  flood: {
    what: 'Requests for all resources, 3,000 a second from 1,000 addresses',
    run: async ({ coap }) => {
      const sockets = await strangers(1000);
      const paths = ['.well-known/core', 'dm', 'bs', 'rd', 'img/x', 'gw/status', 'nothing'];
      await repeatedly(3000, (round) =>
        sockets[round % sockets.length]!.send(
          request({ code: 1 + (round % 4), path: paths[round % paths.length]! }),
          coap,
          host,
        ),
      );
    },
  },
  'first-messages': {
    what: 'First messages of sessions in the names of honest devices, without a credential, 500 a second from 200 addresses',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(200);
      await repeatedly(500, (round) =>
        sockets[round % sockets.length]!.send(
          request({
            path: 'dm',
            options: [xml],
            payload: firstMessage(deviceId(int(chance, devices)), String(int(chance, 1e6)), 1),
          }),
          coap,
          host,
        ),
      );
    },
  },
  'thousand-gets': {
    what: 'Messages of 1,000 Gets in the names of honest devices, without a credential, 25 a second in blocks',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(25);
      const gets = Array.from(
        { length: 1000 },
        (_, at) =>
          `<Get><CmdID>${at + 1}</CmdID><Item><Target><LocURI>./DevInfo</LocURI></Target></Item></Get>`,
      ).join('');
      await repeatedly(25, async (round) => {
        const socket = sockets[round % sockets.length]!;
        const body = firstMessage(deviceId(int(chance, devices)), String(int(chance, 1e6)), 1, gets);
        for (const part of inBlocks({ path: 'dm', options: [xml] }, body)) socket.send(part, coap, host);
      });
    },
  },
  'predicted-sessions': {
    what: 'Sessions of honest devices opened ahead, by session IDs 1 to 64 and high message numbers, 500 a second',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(50);
      await repeatedly(500, (round) =>
        sockets[round % sockets.length]!.send(
          request({
            path: 'dm',
            options: [xml],
            payload: firstMessage(deviceId(int(chance, devices)), (1 + (round % 64)).toString(16), 900),
          }),
          coap,
          host,
        ),
      );
    },
  },
  guessing: {
    what: 'Proofs that are guessed, in the names of honest devices, at /dm and /bs, 1,000 a second from 20 addresses',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(20);
      await repeatedly(1000, (round) => {
        const device = deviceId(int(chance, devices));
        const digest = Buffer.from(chance.bytes(16)).toString('base64');
        const isBootstrap = round % 2 === 0;
        sockets[round % sockets.length]!.send(
          request({
            path: isBootstrap ? 'dm/bs' : 'dm',
            query: isBootstrap ? [`id=${device}`] : [],
            options: [xml],
            payload: firstMessage(device, String(int(chance, 1e6)), 1, '', guess(digest)),
          }),
          coap,
          host,
        );
      });
    },
  },
  'stolen-names': {
    what: 'Packages in the tunnel in the names of the gateway and of honest devices, also behind another gateway, 500 a second',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(50);
      await repeatedly(500, (round) => {
        const device = round % 3 === 0 ? 'gw-1' : deviceId(int(chance, devices));
        const via = round % 3 === 1 ? ['via=gw-1'] : round % 3 === 2 ? ['via=gw-2'] : [];
        const digest = Buffer.from(chance.bytes(16)).toString('base64');
        sockets[round % sockets.length]!.send(
          request({
            path: 'dm/t/dm.example',
            query: [`id=${device}`, ...via],
            options: [xml],
            payload: firstMessage(device, String(int(chance, 1e6)), 1, '', guess(digest)),
          }),
          coap,
          host,
        );
      });
    },
  },
  'tunnel-names': {
    what: 'Packages in the tunnel in 100,000 names that nobody has, 1,000 a second from 200 addresses',
    run: async ({ coap }, chance) => {
      const sockets = await strangers(200);
      await repeatedly(1000, (round) => {
        const device = `urn:dev:stranger:${int(chance, 100_000)}`;
        sockets[round % sockets.length]!.send(
          request({
            path: 'dm/t/dm.example',
            query: [`id=${device}`],
            options: [xml],
            payload: firstMessage(device, '1', 1),
          }),
          coap,
          host,
        );
      });
    },
  },
  registrations: {
    what: 'LwM2M registrations in new names and in those of honest clients, 300 a second from 100 addresses',
    run: async ({ coap, devices }, chance) => {
      const sockets = await strangers(100);
      await repeatedly(300, (round) => {
        const at = int(chance, devices);
        const name = round % 2 === 0 ? deviceId(at - (at % 5) + 4) : `stranger-${round}`;
        sockets[round % sockets.length]!.send(
          request({
            path: 'rd',
            query: [`ep=${name}`, 'lt=60', 'lwm2m=1.1', 'b=U'],
            options: [uint(Option.ContentFormat, 40)],
            payload: Buffer.from('</1/0>,</3/0>'),
          }),
          coap,
          host,
        );
      });
    },
  },
  observers: {
    what: 'Observations of the state of the uplink that nobody ends, 500 a second from 200 addresses',
    run: async ({ coap }) => {
      const sockets = await strangers(200);
      await repeatedly(500, (round) =>
        sockets[round % sockets.length]!.send(
          request({ code: Method.GET, path: 'gw/status', options: [uint(Option.Observe, 0)] }),
          coap,
          host,
        ),
      );
    },
  },
  blocks: {
    what: 'Uploads in blocks that never end, and bodies of 512 KiB, 3,000 blocks a second from 50 addresses and many ports',
    run: async ({ coap }, chance) => {
      const sockets = await strangers(50);
      await repeatedly(3000, (round) =>
        sockets[int(chance, sockets.length)]!.send(
          request({
            path: 'dm',
            query: [`n=${round % 8192}`],
            options: [xml, uint(Option.Block1, 8 + 6)],
            payload: Buffer.alloc(1024),
          }),
          coap,
          host,
        ),
      );
    },
  },
  bignums: {
    what: 'CBOR bignums of 60 KB over CoAP and of 256 KB over HTTP, ten a second',
    run: async ({ coap, http }) => {
      const sockets = await strangers(10);
      await repeatedly(10, async (round) => {
        const socket = sockets[round % sockets.length]!;
        const question = { path: 'dm', options: [uint(Option.ContentFormat, ContentFormat.SyncmlCbor)] };
        for (const part of inBlocks(question, bignum(60_000))) socket.send(part, coap, host);
        void fetch(`http://${host}:${http}/dm`, {
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
    run: async ({ coap, devices }, chance) => {
      const heard: Buffer[] = [];
      const [socket] = await strangers(1, (datagram) => heard.push(datagram));
      const sockets = await strangers(20);
      await repeatedly(500, (round) => {
        if (round % 50 === 0)
          socket!.send(
            request({ path: 'dm/bs', query: [`id=${deviceId(int(chance, devices))}`] }),
            coap,
            host,
          );
        const again = heard[int(chance, heard.length)];
        const message = again && decode(again);
        if (!message || message instanceof Malformed) return;
        sockets[round % sockets.length]!.send(
          encode({ ...message, type: Type.CON, code: Method.POST, messageId: int(chance, 65_536) }),
          coap,
          host,
        );
        if (heard.length > 500) heard.length = 0;
      });
    },
  },
  'dtls-hellos': {
    what: 'First ClientHellos of DTLS, none of which is followed by another, 3,000 a second from 1,000 addresses',
    run: async ({ coaps }, chance) => {
      const sockets = await strangers(1000);
      await repeatedly(3000, (round) =>
        sockets[round % sockets.length]!.send(clientHello(Buffer.from(chance.bytes(32))), coaps, host),
      );
    },
  },
  'dtls-half-open': {
    what: 'Handshakes of DTLS that end after the cookie was returned, 1,000 a second from 200 addresses',
    run: async ({ coaps }, chance) => {
      const randoms = new Map<Socket, Buffer>();
      const sockets = await strangers(200, (datagram, by) => {
        const [record] = recordsOf(datagram, 0);
        const [answer] = record ? readFragments(record.fragment) : [];
        const random = randoms.get(by);
        if (random && answer?.type === MessageType.HelloVerifyRequest)
          by.send(clientHello(random, readHelloVerify(answer.bytes)), coaps, host);
      });
      await repeatedly(1000, (round) => {
        const socket = sockets[round % sockets.length]!;
        const random = Buffer.from(chance.bytes(32));
        randoms.set(socket, random);
        socket.send(clientHello(random), coaps, host);
      });
    },
  },
  'dtls-records': {
    what: 'Records of DTLS that are made up, with any type, epoch, number and connection ID, 2,000 a second from 50 addresses',
    run: async ({ coaps }, chance) => {
      const sockets = await strangers(50);
      const types = [20, 21, 22, 23, 25];
      await repeatedly(2000, (round) => {
        const record = Buffer.from(chance.bytes(60));
        record[0] = types[round % types.length]!;
        record.writeUInt16BE(dtls12, 1);
        record.writeUInt16BE(round % 3, 3);
        record.writeUInt16BE(record[0] === 25 ? 41 : 47, record[0] === 25 ? 17 : 11);
        sockets[round % sockets.length]!.send(record, coaps, host);
      });
    },
  },
  multicast: {
    what: 'Discovery by multicast from 1,000 spoofed addresses, 1,500 a second',
    run: async ({ coap }) => {
      const sockets = await strangers(1000);
      for (const socket of sockets) socket.setMulticastInterface(host);
      await repeatedly(1500, (round) =>
        sockets[round % sockets.length]!.send(
          request({ type: Type.NON, code: Method.GET, path: '.well-known/core', query: ['rt=oma.dm*'] }),
          coap,
          '224.0.1.187',
        ),
      );
    },
  },
  'slow-http': {
    what: '300 connections to the HTTP binding from one address that send an octet a second',
    run: async ({ http }) => {
      const open = () => {
        const socket = connectTcp({ port: http, host, localAddress: '127.66.0.1' });
        socket.on('error', () => {});
        socket.on('close', () => setTimeout(open, 200));
        socket.write('POST /dm HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000\r\nX: ');
        const drip = setInterval(() => socket.writable && socket.write('x'), 1000);
        socket.on('close', () => clearInterval(drip));
      };
      for (let at = 0; at < 300; at++) open();
      await new Promise(() => {});
    },
  },
  'slow-readers': {
    what: 'Clients that ask for everything in blocks of 16 octets, and never for the next one, 1,000 a second from 100 addresses',
    run: async ({ coap }) => {
      const sockets = await strangers(100);
      await repeatedly(1000, (round) =>
        sockets[round % sockets.length]!.send(
          request({
            code: Method.GET,
            path: '.well-known/core',
            query: [`x=${round}`],
            options: [uint(Option.Block2, 0)],
          }),
          coap,
          host,
        ),
      );
    },
  },
  'hostile-envelopes': {
    what: 'Malformed, replayed and forged envelopes to the gateway and to the head-end over the broker, 200 a second',
    run: async ({ broker, devices }, chance) => {
      const client = connectMqtt(broker, { clientId: 'attacker', protocolVersion: 5 });
      const heard: Buffer[] = [];
      client.on('message', (_, payload) => {
        heard.push(payload);
        if (heard.length > 200) heard.shift();
      });
      client.on('error', () => {});
      await new Promise<void>((resolve) => void client.once('connect', () => resolve()));
      await client.subscribeAsync('dm/+/down');
      await client.subscribeAsync('dm/+/up/#');
      await repeatedly(200, (round) => {
        const original = heard[int(chance, heard.length)];
        const payload = Buffer.from(
          original && round % 4 !== 0 ? original : chance.bytes(1 + int(chance, 400)),
        );
        if (round % 4 > 1) payload[int(chance, payload.length)] = int(chance, 256);
        if (round % 40 === 0 && payload.length > 8) payload.set(bignum(payload.length - 8));
        const topic = round % 2 === 0 ? 'dm/gw-1/down' : `dm/gw-${1 + int(chance, 3)}/up`;
        client.publish(topic, payload, { qos: 0 });
        if (round % 100 === 0)
          client.publish('dm/gw-2/state', Buffer.from(chance.bytes(int(chance, devices))), { qos: 0 });
      });
    },
  },
};

if (import.meta.main) {
  const [name = '', target = '{}', seed = '1'] = process.argv.slice(2);
  process.on('unhandledRejection', () => {});
  await attacks[name]!.run(JSON.parse(target) as Target, seededEntropy(Number(seed)));
}
