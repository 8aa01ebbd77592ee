import { createPrivateKey } from 'node:crypto';
import type { Socket } from 'node:dgram';
import { setTimeout as pause } from 'node:timers/promises';
import { SystemClock } from '../../src/base/clock.ts';
import { type Entropy, systemEntropy } from '../../src/base/entropy.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { cidBytes } from '../../src/wire/secure/dtls/association.ts';
import { ownKey, peerTrust } from '../../src/wire/secure/dtls/certificates.ts';
import type { ServedCertificates } from '../../src/wire/secure/dtls/client-handshake.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';
import { headerBytes } from '../../src/wire/secure/dtls/record.ts';
import { key } from '../bench/dtls-client.ts';
import { authority, issue } from '../wire/secure/dtls/authority.ts';
import {
  type Attack,
  acted,
  int,
  Method,
  repeatedly,
  request,
  Strangers,
  socketAt,
  sourceOf,
  type Target,
} from './attacker.ts';
import { overheard } from './deed.ts';
import { KeyedParty } from './keyed-party.ts';

/** Datagrams of one device that the attacker keeps. */
const kept = 1000;
/** Milliseconds between two requests of the device that is overheard. */
const askEvery = 50;

/** Where the sequence number of a record is, and its ciphertext where it has a connection ID. */
const numberAt = 5;
const ciphertextAt = headerBytes + cidBytes + 8;

/** A record with one byte changed: any one; one of its ciphertext, with a number that is still to come; none. */
function spoiled(record: Buffer, round: number, chance: Entropy): Buffer {
  const copy = Buffer.from(record);
  const from = round % 3 === 1 ? ciphertextAt : 0;
  if (round % 3 < 2) copy[from + int(chance, copy.length - from)]! ^= 1 << int(chance, 8);
  if (round % 3 === 1) copy.writeUIntBE(2 ** 40 + int(chance, 2 ** 30), numberAt, 6);
  return copy;
}

/** A question whose answer is no longer than it: who overtakes it may get the whole answer. */
const question = { method: Code.GET, path: ['time'] };

/** The device that is overheard asks for something. The attack fails when it gets no answer. */
async function goOn(device: KeyedParty): Promise<void> {
  await device.ask(question).catch((thrown: unknown) => {
    console.error(`the device that is overheard gets no answer: ${thrown}`);
    process.exit(1);
  });
  await pause(askEvery);
}

/** Connections that an attacker has who opens associations: places, each with one handshake at a time. */
const places = 50;
/** Names or keys of the attacker: several times as many as the gateway keeps associations. */
const identities = 400;
/** Milliseconds between two handshakes of one place. */
const shakeEvery = 1000;

/** Shakes hands from one place, and leaves its former associations as they are. */
class Shaker {
  readonly #dtls: DtlsEndpoint;
  readonly #target: Target;

  constructor(target: Target, socket: Socket) {
    this.#target = target;
    this.#dtls = new DtlsEndpoint({
      clock: new SystemClock(),
      entropy: systemEntropy,
      send: (datagram, { address, port }) => socket.send(datagram, port, address),
      received: () => {},
    });
    socket.on('message', (datagram, { address, port }) =>
      this.#dtls.receive(datagram, { address, port, local: '' }),
    );
  }

  /** Opens a further association, and asks for something. */
  async shake(certificates: ServedCertificates): Promise<void> {
    const { host: address, coaps: port } = this.#target;
    const { association } = await this.#dtls.connect(
      { address, port, local: '' },
      { identity: '', certificates },
    );
    this.#dtls.send(association, request({ code: Method.GET, path: '.well-known/core' }));
  }
}

/** Opens associations with further and further identities, and closes none. */
async function exhaust(target: Target, certificatesOf: (identity: number) => ServedCertificates) {
  const made = new Map<number, ServedCertificates>();
  let next = 0;
  const shakers = await Promise.all(
    Array.from({ length: places }, async (_, at) => new Shaker(target, await socketAt(sourceOf(target, at)))),
  );
  await Promise.all(
    shakers.map(async (shaker, at) => {
      await pause((at * shakeEvery) / places);
      for (;;) {
        const identity = next++ % identities;
        const certificates = made.get(identity) ?? certificatesOf(identity);
        made.set(identity, certificates);
        // The gateway may refuse it.
        await shaker.shake(certificates).then(acted, () => {});
        await pause(shakeEvery);
      }
    }),
  );
}

/** What a device has that trusts the authority of the site. */
function served(target: Target, own: { readonly keyPem: string; readonly pem: string }): ServedCertificates {
  const held = ownKey(own.keyPem, own.pem);
  return { own: held, trust: peerTrust(held, [target.authority.pem], []), serverName: 'gateway' };
}

/** Attacks by parties that have proved themselves over DTLS, and by what they have sent. */
export const associationAttacks: Readonly<Record<string, Attack>> = {
  'dtls-replays': {
    what: 'Records of a device with a connection ID: each overtaken by a copy from another address, and old ones repeated, with any byte changed, and with a number that is still to come, 2,000 a second from 50 addresses. The device goes on meanwhile',
    run: async (target, chance) => {
      const strangers = await Strangers.at(target, 50);
      const device = await KeyedParty.open(
        { host: target.host, port: target.coaps },
        { address: target.multicast, port: 0 },
      );
      await device.connect({ identity: overheard, key });
      const records: Buffer[] = [];
      device.leaving = (record) => {
        strangers.send(records.length, record, { port: target.coaps });
        if (records.length < kept) records.push(Buffer.from(record));
        else records[int(chance, kept)] = Buffer.from(record);
      };
      await goOn(device);
      const on = async () => {
        for (;;) await goOn(device);
      };
      await Promise.all([
        on(),
        repeatedly(2000, (round) => {
          const record = records[int(chance, records.length)]!;
          strangers.send(round, spoiled(record, round, chance), { port: target.coaps });
        }),
      ]);
    },
  },
  'dtls-identities': {
    what: 'Handshakes with 400 certificates of an authority that the gateway trusts, four times as many as it keeps associations, at most 50 a second from 50 addresses. None is closed',
    run: async (target) => {
      const { keyPem, subject } = target.authority;
      const issuer = { key: createPrivateKey(keyPem), subject: Buffer.from(subject, 'hex') };
      await exhaust(target, (identity) =>
        served(target, issue({ commonNames: [`urn:dev:stolen:${identity}`] }, issuer)),
      );
    },
  },
  'dtls-joining': {
    what: 'Handshakes with 400 keys that nobody has listed, while a join window is open, at most 50 a second from 50 addresses. None is closed',
    opensJoinWindow: true,
    run: async (target) => {
      const unknown = authority('Unknown');
      await exhaust(target, (identity) =>
        served(target, issue({ commonNames: [`urn:dev:unknown:${identity}`] }, unknown)),
      );
    },
  },
};
