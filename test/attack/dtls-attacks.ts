import { ecdsaSha256 } from '../../src/wire/secure/dtls/extensions.ts';
import { clientHelloBytes, readHelloVerify } from '../../src/wire/secure/dtls/hellos.ts';
import { fragmentBytes, MessageType, readFragments } from '../../src/wire/secure/dtls/messages.ts';
import { ContentType, dtls12, plainRecord, recordsOf } from '../../src/wire/secure/dtls/record.ts';
import { certificateSuites, pskSuites } from '../../src/wire/secure/dtls/suites.ts';
import { type Attack, repeatedly, Strangers } from './attacker.ts';

/** A ClientHello of DTLS in a record. */
function clientHello(random: Buffer, cookie: Buffer = Buffer.alloc(0), suites = pskSuites): Buffer {
  const offered = suites.map(({ id }) => id);
  const extensions = {
    extendedMasterSecret: true,
    cid: Buffer.alloc(0),
    ...(suites === certificateSuites && { signatureAlgorithms: [ecdsaSha256] }),
  };
  const bytes = clientHelloBytes({ random, sessionId: Buffer.alloc(0), cookie, suites: offered, extensions });
  const sequence = cookie.length > 0 ? 1 : 0;
  const fragment = { type: MessageType.ClientHello, sequence, length: bytes.length, offset: 0, bytes };
  return plainRecord(ContentType.Handshake, sequence, fragmentBytes(fragment));
}

/** Begins handshakes with these suites, 1,000 a second from 200 addresses, and returns the cookies. Nothing follows. */
const halfOpen =
  (suites: typeof pskSuites): Attack['run'] =>
  async (target, chance) => {
    const strangers = await Strangers.at(target, 200);
    const randoms = new Map<number, Buffer>();
    for (const [at, socket] of strangers.sockets.entries())
      socket.on('message', (datagram) => {
        const [record] = recordsOf(datagram, 0);
        const [answer] = record ? readFragments(record.fragment) : [];
        const random = randoms.get(at);
        if (random && answer?.type === MessageType.HelloVerifyRequest)
          strangers.send(at, clientHello(random, readHelloVerify(answer.bytes), suites), {
            port: target.coaps,
          });
      });
    await repeatedly(1000, (round) => {
      const at = round % strangers.sockets.length;
      const random = Buffer.from(chance.bytes(32));
      randoms.set(at, random);
      strangers.send(at, clientHello(random, undefined, suites), { port: target.coaps });
    });
  };

/** Attacks on DTLS: what costs the server work or places before anybody has proved anything. */
export const dtlsAttacks: Readonly<Record<string, Attack>> = {
  'dtls-hellos': {
    what: 'First ClientHellos of DTLS, none of which is followed by another, 3,000 a second from 1,000 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 1000);
      await repeatedly(3000, (round) =>
        strangers.send(round, clientHello(Buffer.from(chance.bytes(32))), { port: target.coaps }),
      );
    },
  },
  'dtls-half-open': {
    what: 'Handshakes of DTLS that end after the cookie was returned, 1,000 a second from 200 addresses',
    run: halfOpen(pskSuites),
  },
  'dtls-signatures': {
    what: 'Handshakes of DTLS with certificates that end after the cookie was returned, so that the gateway signs: 1,000 a second from 200 addresses',
    run: halfOpen(certificateSuites),
  },
  'dtls-records': {
    what: 'Records of DTLS that are made up, with any type, epoch, number and connection ID, 2,000 a second from 50 addresses',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      const types = [20, 21, 22, 23, 25];
      await repeatedly(2000, (round) => {
        const record = Buffer.from(chance.bytes(60));
        record[0] = types[round % types.length]!;
        record.writeUInt16BE(dtls12, 1);
        record.writeUInt16BE(round % 3, 3);
        const isWithCid = record[0] === ContentType.WithCid;
        record.writeUInt16BE(isWithCid ? 41 : 47, isWithCid ? 17 : 11);
        strangers.send(round, record, { port: target.coaps });
      });
    },
  },
};
