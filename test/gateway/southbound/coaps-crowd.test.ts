import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from '../../../src/base/admission.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import { DtlsAssociations } from '../../../src/gateway/store/dtls-associations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { encode, encodeEmpty, noBytes, Type } from '../../../src/wire/coap/codec.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../../src/wire/coap/endpoint.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import { CoapTransport } from '../../../src/wire/secure/coap-transport.ts';
import type { Association } from '../../../src/wire/secure/dtls/association.ts';
import { DtlsEndpoint } from '../../../src/wire/secure/dtls/endpoint.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

/** More devices than a gateway pings at a time, and than an endpoint has room for pings. */
const count = 1200;
/** Most associations that are pinged at one time, and the milliseconds of a ping. */
const [atOnce, patience] = [512, 1900];
const gatewayAt = { address: '192.0.2.1', port: 5684, local: '192.0.2.1' };
const key = Buffer.from('0123456789abcdef');
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const plenty = { rate: 1e9, burst: 1e9 };

interface Device {
  readonly dtls: DtlsEndpoint;
  association?: Association;
  pings: number;
}

/** Devices with associations that outlive a power cut of their gateway, in memory. */
class Crowd {
  readonly #clock = new HandClock();
  readonly #events = new EventRecorder();
  readonly #database = openDatabase(':memory:', gatewaySchema);
  readonly #sealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
  readonly devices: Device[];
  #transport!: CoapTransport;
  /** Requests that the gateway has handled. */
  handled = 0;
  /** Whether devices answer pings. */
  isThere = true;
  #queue: (() => void)[] = [];

  constructor() {
    this.devices = Array.from({ length: count }, (_, at): Device => {
      const device: Device = {
        pings: 0,
        dtls: new DtlsEndpoint({
          clock: this.#clock,
          entropy: systemEntropy,
          send: (bytes) =>
            this.#queue.push(() => this.#transport.receive(bytes, addressOf(at), 40_000, gatewayAt.local)),
          received: (association, content) => {
            if (content.length !== 4 || content[0] !== 0x40) return;
            device.pings++;
            if (this.isThere) device.dtls.send(association, encodeEmpty(Type.RST, content.readUInt16BE(2)));
          },
        }),
      };
      return device;
    });
    this.start();
  }

  /** A run of the gateway after a power cut. */
  start(): void {
    const clock = this.#clock;
    const machine = { clock, entropy: systemEntropy, events: this.#events };
    const limits = {
      address: plenty,
      prefix: plenty,
      newcomers: plenty,
      regulars: plenty,
      known: plenty,
      allKnown: plenty,
    };
    const admission = new Admission({ ...machine, limits });
    const transport = new CoapTransport({
      ...{ ...machine, admission, keyOf: () => key, associations: count },
      store: new DtlsAssociations(this.#database, {
        sealing: this.#sealing,
        clock,
        isNew: false,
        lost: () => assert.fail(),
      }),
    });
    transport.restore(() => 0);
    const endpoint = new CoapEndpoint({
      ...{ ...machine, admission },
      handler: () => {
        this.handled++;
        return reply(Code.Content);
      },
      send: (content, _port, _address, to) => transport.send(content, to),
      remoteOf: (address, port) => transport.remoteOf(address, port),
    });
    transport.open(gatewayAt.local, {
      endpoint,
      received: (content, remote) => {
        if (endpoint.admits(content, remote)) endpoint.take(content, remote);
      },
      send: (bytes, _port, address) => {
        if (transport === this.#transport)
          this.#queue.push(() => this.#at(address).dtls.receive(bytes, gatewayAt));
      },
    });
    this.#transport = transport;
  }

  #at(address: string): Device {
    const [, , high, low] = address.split('.').map(Number);
    return this.devices[high! * 256 + low!]!;
  }

  async connect(): Promise<void> {
    for (const [at, device] of this.devices.entries()) {
      const opening = device.dtls.connect(gatewayAt, { identity: `device ${at}`, key });
      this.#deliver();
      device.association = (await opening).association;
      this.#deliver();
    }
    // They are stored now.
    this.advance(5000);
  }

  /** All send the same request at once. */
  async ask(messageId: number): Promise<void> {
    const request = {
      type: Type.CON,
      code: Code.GET,
      messageId,
      token: noBytes,
      options: [],
      payload: noBytes,
    };
    for (const { dtls, association } of this.devices) dtls.send(association!, encode(request));
    await this.settle();
  }

  advance(milliseconds: number): void {
    this.#clock.advance(milliseconds);
  }

  /** Whether there was anything to deliver. */
  #deliver(): boolean {
    const was = this.#queue.length > 0;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) next();
    return was;
  }

  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 5; quiet++) {
      if (this.#deliver()) quiet = 0;
      await turn();
    }
  }

  get pinged(): number {
    return this.devices.reduce((sum, { pings }) => sum + pings, 0);
  }

  stop(): void {
    for (const { dtls } of this.devices) dtls.stop();
    this.#transport.stop();
  }
}

const addressOf = (at: number): string => `10.0.${at >> 8}.${at & 255}`;

test(`after a power cut ${count} devices that ask at once are served at their first repetition`, async (t) => {
  const crowd = new Crowd();
  t.after(() => crowd.stop());
  await crowd.connect();
  crowd.start();
  await crowd.ask(1);
  assert.equal(crowd.handled, 0);
  assert.equal(crowd.pinged, count, 'each is pinged once, without a repetition');
  await crowd.ask(1);
  assert.equal(crowd.handled, count);
});

test(`${atOnce} of them are pinged at a time; those that do not answer make room for the others`, async (t) => {
  const crowd = new Crowd();
  t.after(() => crowd.stop());
  await crowd.connect();
  crowd.start();
  crowd.isThere = false;
  for (let repetition = 0; repetition < 3; repetition++) {
    await crowd.ask(1);
    assert.equal(crowd.pinged, atOnce);
  }
  crowd.advance(patience);
  await crowd.settle();
  assert.equal(crowd.pinged, 2 * atOnce);
  // One that is waiting ends, and takes no place.
  const last = crowd.devices.at(-1)!;
  last.dtls.close(last.association!);
  await crowd.settle();
  crowd.advance(patience);
  await crowd.settle();
  assert.equal(crowd.pinged, count - 1);
  assert.ok(crowd.devices.slice(0, -1).every(({ pings }) => pings === 1));
  assert.equal(crowd.handled, 0);
});
