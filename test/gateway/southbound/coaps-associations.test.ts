import assert from 'node:assert/strict';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { Admission } from '../../../src/base/admission.ts';
import type { Clock, Wall } from '../../../src/base/clock.ts';
import type { Database } from '../../../src/base/database.ts';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { PlatformSealing, Sealing } from '../../../src/base/sealing.ts';
import { DtlsAssociations } from '../../../src/gateway/store/dtls-associations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../../src/wire/coap/endpoint.ts';
import { reply } from '../../../src/wire/coap/message.ts';
import {
  type AssociationStore,
  credentialMark,
  type StoredAssociation,
} from '../../../src/wire/secure/association-store.ts';
import { CoapTransport } from '../../../src/wire/secure/coap-transport.ts';
import { DtlsEndpoint } from '../../../src/wire/secure/dtls/endpoint.ts';
import { pskSuites } from '../../../src/wire/secure/dtls/suites.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { freshState } from '../../state-files.ts';

interface Address {
  readonly address: string;
  readonly port: number;
}
const gatewayAt = { address: '192.0.2.1', port: 5684, local: '' };
const local = '192.0.2.1';
const key = Buffer.from('0123456789abcdef');
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A gateway's transport with its state, and a device with CoAP over DTLS, in memory. The gateway can lose its power. */
class Rig {
  readonly clock = new HandClock();
  readonly events = new EventRecorder();
  readonly database: Database = openDatabase(':memory:', gatewaySchema);
  readonly #sealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
  /** File of the sealing key; none: there is one that lives as long as the rig. */
  keyFile: string | undefined;
  /** The keys that the gateway knows. */
  keys: Record<string, Buffer> = { device: key };
  /** Names of devices, by the identities of their keys, where they are not the same. */
  names: Readonly<Record<string, string>> = {};
  isStateNew = false;
  /** When the inventory says that a device was heard last. */
  heardAt: Readonly<Record<string, number>> = {};
  /** Milliseconds by which the machine's clock is ahead of `clock`. */
  ahead = 0;
  /** Replaces the store. */
  wrap = (store: AssociationStore): AssociationStore => store;
  transport!: CoapTransport;
  endpoint!: CoapEndpoint;
  /** Who sent them. */
  readonly askers: string[] = [];
  /** Called when the gateway handles a request. */
  whenHandled = () => {};
  /** Numbers of requests that the gateway handled. */
  readonly handled: string[] = [];
  /** All that was sent: by the gateway with the place that it was sent to, and by the device. */
  readonly sent: { readonly to: Address; readonly bytes: Buffer }[] = [];
  readonly asked: Buffer[] = [];
  place: Address = { address: '192.0.2.2', port: 40_000 };
  /** Whether what the device sends arrives. */
  isCut = false;
  /** Where a copy of each datagram of the device comes from before it. */
  overtaker: Address | undefined;
  readonly device: DtlsEndpoint;
  readonly client: CoapEndpoint;
  #queue: (() => void)[] = [];
  /** Further sockets of the device, by port. */
  readonly #further = new Map<number, DtlsEndpoint>();
  #runs = 0;

  constructor() {
    const { clock } = this;
    this.device = new DtlsEndpoint({
      clock,
      entropy: systemEntropy,
      send: (bytes) => {
        this.asked.push(bytes);
        const { place, overtaker } = this;
        if (overtaker) this.#queue.push(() => this.deliver(bytes, overtaker));
        if (!this.isCut) this.#queue.push(() => this.deliver(bytes, place));
      },
      received: (_, content) => this.client.receive(content, gatewayAt.address, gatewayAt.port),
    });
    this.client = new CoapEndpoint({
      clock,
      entropy: systemEntropy,
      events: this.events,
      handler: () => reply(Code.Content, { payload: 'from the device' }),
      send: (content) => this.device.send(this.device.at(gatewayAt.address, gatewayAt.port)!, content),
    });
    this.start();
  }

  /** A run of the gateway. The run before need not have stopped. */
  start(): void {
    const { events, database } = this;
    const run = ++this.#runs;
    // The timers of an earlier run are gone with it.
    const clock: Clock = {
      now: () => this.clock.now(),
      wall: () => (this.clock.wall() + this.ahead) as Wall,
      after: (delay, callback) => this.clock.after(delay, () => run === this.#runs && callback()),
    };
    const admission = new Admission({ clock, events });
    const told = (reason: string) => events.emit('state.key-unusable', { file: 'key', reason });
    this.transport = new CoapTransport({
      clock,
      entropy: systemEntropy,
      events,
      keyOf: (identity) => this.keys[identity],
      ownerOf: (identity) => ({ identity: this.names[identity] ?? identity }),
      admission,
      associations: 100,
      store: this.wrap(
        new DtlsAssociations(database, {
          sealing:
            this.keyFile === undefined
              ? this.#sealing
              : new PlatformSealing({ file: this.keyFile }, systemEntropy, told),
          clock,
          isNew: this.isStateNew,
          lost: (count) => told(`${count} associations were sealed by another key`),
        }),
      ),
    });
    const { transport } = this;
    transport.restore((device) => this.heardAt[device] ?? 0);
    this.endpoint = new CoapEndpoint({
      clock,
      entropy: systemEntropy,
      events,
      handler: ({ payload, remote }) => {
        const asked = Buffer.from(payload).toString();
        this.handled.push(asked);
        this.askers.push(remote.identity ?? '');
        this.whenHandled();
        if (asked.startsWith('large')) return reply(Code.Content, { payload: 'x'.repeat(1000) });
        return reply(Code.Content, { payload: `${remote.identity} at ${remote.address}` });
      },
      send: (content, _port, _address, to) => transport.send(content, to),
      remoteOf: (address, port) => transport.remoteOf(address, port),
      admission,
    });
    transport.open(local, {
      endpoint: this.endpoint,
      received: (content, remote) => {
        if (this.endpoint.admits(content, remote)) this.endpoint.take(content, remote);
      },
      send: (bytes, port, address) => {
        if (transport !== this.transport) return;
        const to = { address, port };
        this.sent.push({ to, bytes });
        const isHere = address === this.place.address && port === this.place.port;
        for (const socket of [isHere ? this.device : undefined, this.#further.get(port)])
          this.#queue.push(() => socket?.receive(Buffer.from(bytes), gatewayAt));
      },
    });
  }

  /** Brings a datagram to the gateway, as if it came from this place. */
  deliver(bytes: Buffer, { address, port }: Address): void {
    this.transport.receive(Buffer.from(bytes), address, port, local);
  }

  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet++) {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
        next();
        quiet = 0;
      }
      await turn();
    }
  }

  async connect(): Promise<void> {
    const done = this.device.connect(gatewayAt, { identity: 'device', key });
    await this.settle();
    await done;
    // It is stored now.
    this.clock.advance(5000);
  }

  /** Opens an association by a further socket of the device, at this port. `asks` sends a request and returns whether it was handled. */
  async further(port: number, identity = 'device') {
    const at = { address: this.place.address, port };
    const socket: DtlsEndpoint = new DtlsEndpoint({
      clock: this.clock,
      entropy: systemEntropy,
      send: (bytes) => this.#queue.push(() => this.deliver(bytes, at)),
      // Pings get their Resets.
      received: (held, [type, code, ...id]) => {
        if (type === 0x40 && code === 0) socket.send(held, Buffer.from([0x70, 0, ...id]));
      },
    });
    this.#further.set(port, socket);
    const done = socket.connect(gatewayAt, { identity, key });
    await this.settle();
    const { association } = await done;
    this.clock.advance(5000);
    let asked = 0;
    const asks = async (): Promise<boolean> => {
      const text = `${port} ${asked++}`;
      const head = Buffer.from([0x50, 2, asked, 0, 0xff]);
      try {
        socket.send(association, Buffer.concat([head, Buffer.from(text)]));
      } catch {
        return false;
      }
      await this.settle();
      return this.handled.includes(text);
    };
    return { socket, at, asks };
  }

  /** Sends a request, and returns its answer; undefined when none came within `seconds`. */
  async ask(text: string, seconds = 0): Promise<string | undefined> {
    let answer: string | undefined;
    const outcome = this.client
      .request(gatewayAt.address, gatewayAt.port, {
        code: Code.POST,
        options: [],
        payload: Buffer.from(text),
        timeout: 60_000,
      })
      .then(
        ({ payload }) => {
          answer = Buffer.from(payload).toString();
        },
        () => {},
      );
    await this.settle();
    for (let tenth = 0; tenth < seconds * 10 && answer === undefined; tenth++) {
      this.clock.advance(100);
      await this.settle();
    }
    void outcome;
    return answer;
  }

  /** A request of the gateway to the device. */
  async askDevice(at: Address): Promise<string | undefined> {
    let answer: string | undefined;
    void this.endpoint
      .request(at.address, at.port, { code: Code.GET, options: [], payload: new Uint8Array(), timeout: 1000 })
      .then(
        ({ payload }) => {
          answer = Buffer.from(payload).toString();
        },
        () => {},
      );
    await this.settle();
    return answer;
  }

  /** Sequence numbers of all protected records of the gateway, by the connection ID of the device. */
  get numbers(): string[] {
    return this.sent
      .filter(({ bytes }) => bytes[0] === 25)
      .map(({ bytes }) => `${bytes.toString('hex', 11, 17)} ${bytes.readUIntBE(5, 6)}`);
  }
}

const assertUnique = (numbers: readonly string[]) => assert.equal(new Set(numbers).size, numbers.length);

describe('a device that moves', () => {
  test('is answered at once at its new address, and is asked there', async () => {
    const rig = new Rig();
    await rig.connect();
    assert.equal(await rig.ask('a'), 'device at 192.0.2.2');
    const former = rig.place;
    rig.place = { address: '198.51.100.7', port: 41_000 };
    assert.equal(
      await rig.ask('b'),
      'device at 192.0.2.2',
      'the first answer comes before the address is confirmed',
    );
    assert.equal(await rig.ask('c'), 'device at 198.51.100.7');
    await rig.events.until('dtls.moved', { identity: 'device', peer: '198.51.100.7', before: '192.0.2.2' });
    assert.equal(await rig.askDevice(rig.place), 'from the device');
    assert.equal(await rig.askDevice(former), undefined);
    assert.deepEqual(rig.handled, ['a', 'b', 'c']);
  });

  test('does not move when somebody sends its records on from elsewhere', async () => {
    const rig = new Rig();
    await rig.connect();
    await rig.ask('a');
    const victim = { address: '203.0.113.5', port: 9 };
    let stolen = 0;
    for (let count = 0; count < 5; count++) {
      rig.isCut = true;
      await rig.ask(`${count % 2 === 0 ? 'large' : 'stolen'} ${count}`);
      const record = rig.asked.at(-1)!;
      stolen += record.length;
      rig.deliver(record, victim);
      await rig.settle();
      rig.isCut = false;
    }
    const received = rig.sent
      .filter(({ to }) => to.address === victim.address)
      .reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert.ok(received > 0 && received <= 3 * stolen, `${received} bytes for ${stolen}`);
    rig.clock.advance(5000);
    await rig.settle();
    assert.equal(rig.events.all.filter(({ name }) => name === 'dtls.moved').length, 0);
    assert.equal(await rig.ask('b', 10), 'device at 192.0.2.2');
    assert.equal(await rig.askDevice(rig.place), 'from the device');
  });

  test('gets its answers although a copy of each record comes from elsewhere before it', async () => {
    const rig = new Rig();
    await rig.connect();
    await rig.ask('a');
    rig.overtaker = { address: '203.0.113.5', port: 9 };
    for (const asked of ['b', 'c', 'd']) {
      assert.equal(await rig.ask(asked), 'device at 192.0.2.2');
      assert.equal(await rig.askDevice(rig.place), 'from the device');
    }
    rig.clock.advance(5000);
    await rig.settle();
    assert.equal(rig.events.count('dtls.moved'), 0);
    assert.deepEqual(rig.handled, ['a', 'b', 'c', 'd']);
  });

  test('does not move to who overtakes its answer at the new place', async () => {
    const rig = new Rig();
    await rig.connect();
    await rig.ask('a');
    rig.isCut = true;
    rig.place = { address: '198.51.100.7', port: 41_000 };
    await rig.ask('b');
    rig.deliver(rig.asked.at(-1)!, rig.place);
    await rig.settle();
    const answer = rig.asked.at(-1)!;
    await rig.ask('c');
    const elsewhere = { address: '203.0.113.5', port: 9 };
    rig.deliver(rig.asked.at(-1)!, elsewhere);
    rig.deliver(answer, rig.place);
    await rig.settle();
    assert.equal(rig.handled.at(-1), 'c');
    assert.equal(rig.events.count('dtls.moved'), 0);
    rig.isCut = false;
    assert.equal(await rig.ask('d', 10), 'device at 192.0.2.2');
    await rig.events.until('dtls.moved', { identity: 'device', peer: '198.51.100.7', before: '192.0.2.2' });
  });

  test('does not move by a repeated record, or by one that is older than others', async () => {
    const rig = new Rig();
    await rig.connect();
    rig.isCut = true;
    await rig.ask('late');
    const late = rig.asked.at(-1)!;
    rig.isCut = false;
    rig.clock.advance(10);
    const before = rig.asked.length;
    rig.client.stop();
    const association = rig.device.at(gatewayAt.address, gatewayAt.port)!;
    rig.device.send(association, Buffer.from('40000001', 'hex'));
    await rig.settle();
    const newest = rig.asked[before]!;
    const sent = rig.sent.length;
    const elsewhere = { address: '203.0.113.5', port: 9 };
    rig.deliver(newest, elsewhere);
    rig.deliver(late, elsewhere);
    await rig.settle();
    assert.equal(rig.sent.slice(sent).filter(({ to }) => to.address === elsewhere.address).length, 0);
  });
});

describe('a gateway that starts again', () => {
  const handshakes = (rig: Rig) => rig.events.all.filter(({ name }) => name === 'dtls.opened').length;

  test('after a stop goes on at once; no sequence number is used twice', async () => {
    const rig = new Rig();
    await rig.connect();
    for (let run = 0; run < 5; run++) {
      for (let count = 0; count < 20; count++)
        assert.equal(await rig.ask(`${run} ${count}`), 'device at 192.0.2.2');
      rig.transport.stop();
      rig.start();
      assert.equal(rig.transport.footprint.associations, 1);
    }
    assert.equal(handshakes(rig), 1);
    assertUnique(rig.numbers);
  });

  test('after a power cut takes no record again that it took before, and serves the next repetition', async () => {
    const rig = new Rig();
    await rig.connect();
    for (let run = 0; run < 5; run++) {
      for (let count = 0; count < 20; count++) await rig.ask(`${run} ${count}`);
      rig.start();
      const { handled } = rig;
      const before = handled.length;
      for (const record of rig.asked) rig.deliver(record, rig.place);
      await rig.settle();
      assert.equal(handled.length, before, 'nothing is handled again');
      assert.equal(await rig.ask(`after ${run}`, 10), 'device at 192.0.2.2');
      for (const record of rig.asked) rig.deliver(record, rig.place);
      await rig.settle();
      assert.deepEqual(handled.slice(before), [`after ${run}`]);
    }
    assert.equal(handshakes(rig), 1);
    assertUnique(rig.numbers);
  });

  test('after a power cut takes no record again either when the device was heard before', async () => {
    for (const isStopped of [false, true]) {
      const rig = new Rig();
      await rig.connect();
      await rig.ask('a');
      // What was stored at a stop says nothing of what came in the run after it.
      if (isStopped) {
        rig.transport.stop();
        rig.start();
      }
      for (let count = 0; count < 20; count++) await rig.ask(`${count}`);
      const { asked, handled } = rig;
      const early = [...asked];
      rig.start();
      if (isStopped) for (const record of early) rig.deliver(record, rig.place);
      assert.equal(await rig.ask('b', 10), 'device at 192.0.2.2');
      const before = handled.length;
      for (const record of early) rig.deliver(record, rig.place);
      await rig.settle();
      assert.equal(handled.length, before);
      assert.equal(handled.at(-1), 'b');
      assert.equal(new Set(handled).size, handled.length, 'each once');
    }
  });

  test('after a power cut finds a device that has moved meanwhile', async () => {
    const rig = new Rig();
    await rig.connect();
    await rig.ask('a');
    rig.start();
    rig.place = { address: '198.51.100.7', port: 41_000 };
    assert.equal(await rig.ask('b', 10), 'device at 198.51.100.7');
  });

  test('numbers beyond the first blocks are reserved before they are used', async () => {
    const rig = new Rig();
    await rig.connect();
    for (let count = 0; count < 2500; count++) {
      if (count % 1000 === 999) rig.start();
      assert.equal(await rig.ask(`${count}`, 10), 'device at 192.0.2.2', `${count}`);
    }
    assert.equal(handshakes(rig), 1);
    assertUnique(rig.numbers);
  });

  test('whose state was taken back with its lock uses no sequence number twice, as long as its clock is right', async () => {
    const rig = new Rig();
    rig.ahead = Date.UTC(2026, 10, 29) - rig.clock.wall();
    rig.start();
    await rig.connect();
    await rig.ask('before');
    const association = rig.database.prepare('SELECT * FROM dtls_association').get()!;
    const run = rig.database.prepare('SELECT number FROM dtls_run').get()!;
    for (let count = 0; count < 2500; count++) await rig.ask(`${count}`);
    // Of a snapshot of the disk, lock and state say that this is the usual next start.
    rig.database
      .prepare('UPDATE dtls_association SET run = ?, body = ?')
      .run(association.run!, association.body!);
    rig.database.prepare('UPDATE dtls_run SET number = ?').run(run.number!);
    rig.clock.advance(60_000);
    rig.start();
    assert.equal(await rig.ask('after', 10), 'device at 192.0.2.2');
    assertUnique(rig.numbers);
    // A clock that was not set yet takes nothing back.
    rig.ahead = 0;
    for (let count = 0; count < 3; count++) {
      rig.start();
      assert.equal(await rig.ask(`unset ${count}`, 10), 'device at 192.0.2.2');
    }
    assertUnique(rig.numbers);
    assert.equal(handshakes(rig), 1);
  });

  test('knows no association whose key was changed or removed, or when its state went back in time', async () => {
    for (const change of [
      (rig: Rig) => {
        rig.keys = {};
      },
      (rig: Rig) => {
        rig.keys = { device: Buffer.from('another key, 16.') };
      },
      (rig: Rig) => {
        rig.isStateNew = true;
      },
    ]) {
      const rig = new Rig();
      await rig.connect();
      rig.transport.stop();
      change(rig);
      rig.start();
      assert.equal(rig.transport.footprint.associations, 0);
      assert.equal(rig.database.prepare('SELECT count(*) AS n FROM dtls_association').get()?.n, 0);
    }
  });

  test('knows none that began less than 5 s before the power cut; those that ended before are never written', async () => {
    const rig = new Rig();
    let writes = 0;
    rig.wrap = (store) => ({
      load: () => store.load(),
      remove: (identity) => store.remove(identity),
      settled: () => store.settled(),
      save: (all) => {
        writes += all.length;
        store.save(all);
      },
    });
    rig.start();
    for (let times = 0; times < 10; times++) {
      const done = rig.device.connect(gatewayAt, { identity: 'device', key });
      await rig.settle();
      rig.device.close((await done).association);
      await rig.settle();
    }
    const done = rig.device.connect(gatewayAt, { identity: 'device', key });
    await rig.settle();
    await done;
    rig.clock.advance(4000);
    assert.equal(writes, 0);
    rig.start();
    assert.equal(rig.transport.footprint.associations, 0);
    await rig.connect();
    assert.equal(writes, 1);
    rig.start();
    assert.equal(rig.transport.footprint.associations, 1);
  });

  test('is synced when it is stored, also when nothing else is written', async () => {
    const rig = new Rig();
    const calls: string[] = [];
    rig.wrap = (store) => ({
      load: () => store.load(),
      remove: (identity) => store.remove(identity),
      settled: () => {
        calls.push('settled');
        return store.settled();
      },
      save: (all) => {
        calls.push('save');
        store.save(all);
      },
    });
    rig.start();
    await rig.connect();
    assert.deepEqual(calls, ['save', 'settled']);
  });

  test('has no key in clear in its state', async () => {
    const rig = new Rig();
    await rig.connect();
    const body = String(rig.database.prepare('SELECT body FROM dtls_association').get()?.body);
    assert.doesNotMatch(Buffer.from(body, 'base64').toString('latin1'), /identity|keys|192\.0/);
  });
});

test('when nothing can be stored, an association ends before it uses a number that is not reserved', async () => {
  const rig = new Rig();
  let isFull = false;
  rig.wrap = (store) => ({
    load: () => store.load(),
    remove: (identity) => store.remove(identity),
    settled: () => store.settled(),
    save: (all) => {
      if (isFull) throw new PosternError('storage', 'the disk is full');
      store.save(all);
    },
  });
  rig.start();
  await rig.connect();
  isFull = true;
  let answers = 0;
  for (let count = 0; count < 1100; count++) if ((await rig.ask(`${count}`)) !== undefined) answers++;
  assert.ok(answers > 1000 && answers < 1024, `${answers}`);
  await rig.events.until('background.failed', { work: 'state', reason: 'the disk is full' });
  rig.start();
  isFull = false;
  // Requests without an answer wait in front of this one until they are given up.
  const again = (await rig.ask('again', 61)) ?? (await rig.ask('and again', 61));
  assert.equal(again, 'device at 192.0.2.2');
  assertUnique(rig.numbers);
});

test('the numbers of the next block wait until their reservation survives a power cut', async () => {
  const rig = new Rig();
  const { promise, resolve } = Promise.withResolvers<void>();
  rig.wrap = (store) => ({
    load: () => store.load(),
    remove: (identity) => store.remove(identity),
    settled: () => promise,
    save: (all) => store.save(all),
  });
  rig.start();
  await rig.connect();
  let answers = 0;
  for (let count = 0; count < 1100; count++) if ((await rig.ask(`${count}`)) !== undefined) answers++;
  assert.ok(answers > 1000 && answers < 1024, `${answers}`);
  resolve();
  await rig.settle();
  // Requests without an answer wait in front of this one until they are given up.
  const again = (await rig.ask('again', 61)) ?? (await rig.ask('and again', 61));
  assert.equal(again, 'device at 192.0.2.2');
  assertUnique(rig.numbers);
});

for (const [end, ahead] of [
  ['a stop', 0],
  ['a power cut', 0],
  ['a clock that went back', -3_600_000],
] as const)
  test(`after ${end}, those that were silent for longest give way at the bound`, () => {
    const [clock, events] = [new HandClock(), new EventRecorder()];
    const database = openDatabase(':memory:', gatewaySchema);
    const sealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
    const store = () =>
      new DtlsAssociations(database, { sealing, clock, isNew: false, lost: () => assert.fail('it is lost') });
    // By name the order is another one than by time. Of `none` the inventory has no record.
    const heard = ['d', 'a', 'e', 'c', 'b'];
    const heardAt = (device: string) => (device === 'none' ? 0 : 10_000_000 + ahead + heard.indexOf(device));
    const all = ['none', ...heard].toSorted().map((identity, at): StoredAssociation => {
      const place = { address: `10.0.0.${at}`, port: 40_000, local };
      const parts = { identity, isClient: false, ownCid: at, peerCid: undefined, place };
      const numbers = { sent: at, received: at, peerLimit: 2 ** 14 };
      const state = { suite: pskSuites[0]!, keys: Buffer.alloc(40, at), ...parts, ...numbers };
      return { credential: credentialMark(key), isClean: end === 'a stop', state };
    });
    store().save(all);
    const start = (associations: number) => {
      const transport = new CoapTransport({
        ...{ clock, entropy: systemEntropy, events, keyOf: () => key, associations, store: store() },
        admission: new Admission({ clock, events }),
      });
      transport.restore(heardAt);
      return transport;
    };
    const closed = () =>
      events.all.filter(({ name }) => name === 'dtls.closed').map(({ fields }) => fields.identity);
    start(6);
    assert.deepEqual(closed(), []);
    // Another run, with room for three.
    const last = start(3);
    assert.deepEqual(closed(), ['none', 'd', 'a']);
    assert.deepEqual(
      heard.map((name) =>
        last.reaches(all.find(({ state }) => state.identity === name)!.state.place.address, 40_000),
      ),
      [false, false, true, true, true],
    );
  });

test('a device with a wrong key is told with the identity that it claims, and a listed one by its name too', async () => {
  for (const [identity, name] of [
    ['factory:0123', 'urn:dev:1'],
    ['urn:dev:2', 'urn:dev:2'],
    ['no\nbody', undefined],
    ['gw:ended', undefined],
  ] as const) {
    const rig = new Rig();
    rig.keys = { 'factory:0123': key, 'urn:dev:2': key };
    rig.names = { 'factory:0123': 'urn:dev:1' };
    const done = rig.device.connect(gatewayAt, { identity, key: Buffer.from('another key of 16') });
    done.catch(() => {});
    for (let second = 0; second < 90; second++) {
      rig.clock.advance(1000);
      await rig.settle();
    }
    const { fields } = await rig.events.until('dtls.refused');
    assert.deepEqual(fields, {
      peer: rig.place.address,
      reason: 'records do not verify: its key is unknown, or another one',
      identity: identity.replace('\n', '\ufffd'),
      ...(name && { device: name }),
    });
  }
});

test('5,000 devices keep their associations over a power cut, each with numbers of its own', () => {
  const [clock, events] = [new HandClock(), new EventRecorder()];
  const database = openDatabase(':memory:', gatewaySchema);
  const sealing = new Sealing(systemEntropy.bytes(32), systemEntropy);
  const store = () =>
    new DtlsAssociations(database, {
      sealing,
      clock,
      isNew: false,
      lost: () => assert.fail('a row cannot be opened'),
    });
  const all = Array.from({ length: 5000 }, (_, at): StoredAssociation => {
    const place = { address: `10.0.${at >> 8}.${at & 255}`, port: 40_000, local };
    const parts = { identity: `device ${at}`, isClient: false, ownCid: at, peerCid: undefined, place };
    const numbers = { sent: at, received: at, peerLimit: 2 ** 14 };
    const state = { suite: pskSuites[0]!, keys: Buffer.alloc(40, at), ...parts, ...numbers };
    return { credential: credentialMark(key), isClean: false, state };
  });
  store().save(all);
  const stored = new Map(
    store()
      .load()
      .map((each) => [each.state.identity, each]),
  );
  for (const { state } of all) {
    const found = stored.get(state.identity)?.state;
    assert.deepEqual([found?.place, found?.keys], [state.place, Buffer.alloc(40, state.ownCid)]);
    assert.deepEqual(state.keys, Buffer.alloc(40), 'the copy is overwritten');
    assert.ok(found!.sent > state.sent);
  }
  const transport = new CoapTransport({
    ...{ clock, entropy: systemEntropy, events, keyOf: () => key, associations: 5000 },
    admission: new Admission({ clock, events }),
    store: store(),
  });
  transport.restore(() => 0);
  assert.equal(transport.footprint.associations, 5000);
  assert.ok(all.every(({ state: { place } }) => transport.reaches(place.address, place.port)));
});

describe('a device with several sockets', () => {
  const associations = (rig: Rig) => rig.transport.footprint.associations;

  test('has an association for each, also after a stop and after a power cut', async () => {
    const rig = new Rig();
    await rig.connect();
    const { asks } = await rig.further(40_001);
    for (const isStopped of [true, false, true]) {
      assert.ok(await asks());
      assert.equal(await rig.ask('first', 10), 'device at 192.0.2.2');
      if (isStopped) rig.transport.stop();
      rig.start();
      assert.equal(associations(rig), 2);
      // After a power cut the answer to a ping has to come first.
      assert.equal(await asks(), isStopped);
      assert.equal(await rig.ask('first', 10), 'device at 192.0.2.2');
    }
    assert.equal(rig.events.count('dtls.opened'), 2);
    assertUnique(rig.numbers);
  });

  test('loses all with its key, at once and after a restart', async () => {
    const rig = new Rig();
    await rig.connect();
    const { asks } = await rig.further(40_001);
    rig.transport.revoke('device');
    await rig.settle();
    assert.equal(associations(rig), 0);
    assert.deepEqual([await asks(), await rig.ask('late')], [false, undefined]);
    rig.start();
    assert.equal(associations(rig), 0);
    assert.deepEqual(rig.handled, []);
  });

  test('that says goodbye loses the others at once, and the one that it was heard on after its answer', async () => {
    const rig = new Rig();
    await rig.connect();
    const others = [await rig.further(40_001), await rig.further(40_002)];
    for (const { asks } of others) assert.ok(await asks());
    let left: number | undefined;
    rig.whenHandled = () => {
      rig.transport.retire('device');
      left ??= associations(rig);
    };
    assert.equal(await rig.ask('goodbye'), 'device at 192.0.2.2');
    assert.deepEqual([left, associations(rig)], [1, 0]);
    for (const { asks } of others) assert.equal(await asks(), false);
  });

  test('has at most four: the one that was silent for longest is told that it ends', async () => {
    const rig = new Rig();
    await rig.connect();
    const others = [];
    for (const port of [40_001, 40_002, 40_003]) others.push(await rig.further(port));
    assert.equal(await rig.ask('heard'), 'device at 192.0.2.2');
    const last = await rig.further(40_004);
    await rig.settle();
    assert.equal(associations(rig), 4);
    assert.equal(others[0]!.socket.at(gatewayAt.address, gatewayAt.port), undefined);
    for (const { asks } of [...others.slice(1), last]) assert.ok(await asks());
    assert.equal(await rig.ask('heard again'), 'device at 192.0.2.2');
  });

  test('has one at each address and port, as one that has lost its memory', async () => {
    const rig = new Rig();
    await rig.connect();
    for (let count = 0; count < 5; count++) await rig.further(40_001);
    assert.equal(associations(rig), 2);
    rig.start();
    assert.equal(associations(rig), 2);
  });
});

test('who sends a device on from its own address and port does not speak in the name of the device', async () => {
  const rig = new Rig();
  rig.keys = { device: key, thief: key };
  const { port } = rig.place;
  const { asks } = await rig.further(port, 'thief');
  assert.ok(await asks());
  // The thief sends the datagrams of the device on, to and fro.
  await rig.connect();
  assert.equal(await rig.ask('of the device'), 'device at 192.0.2.2');
  await asks();
  assert.ok(
    !rig.handled.some((text, at) => text.startsWith(`${port}`) && rig.askers[at] !== 'thief'),
    rig.askers.join(),
  );
  assert.equal(await rig.ask('of the device again', 10), 'device at 192.0.2.2');
});

test('a device does not move by the answer of another one that has an association at its address and port', async () => {
  const rig = new Rig();
  rig.keys = { device: key, thief: key };
  await rig.connect();
  assert.equal(await rig.ask('a'), 'device at 192.0.2.2');
  const { asks } = await rig.further(rig.place.port, 'thief');
  assert.ok(await asks());
  rig.isCut = true;
  await rig.ask('b');
  rig.deliver(rig.asked.at(-1)!, { address: '203.0.113.5', port: 9 });
  await rig.settle();
  rig.clock.advance(5000);
  await rig.settle();
  assert.equal(rig.events.count('dtls.moved'), 0);
});

test('an association that was stored before an identity could have several goes on, and has one row', async () => {
  const rig = new Rig();
  await rig.connect();
  for (let count = 0; count < 600; count++) await rig.ask(`${count}`);
  rig.database.prepare("UPDATE dtls_association SET name = ''").run();
  for (let run = 0; run < 3; run++) {
    rig.start();
    for (let count = 0; count < 600; count++) await rig.ask(`${run} ${count}`, 10);
    assert.equal(rig.database.prepare('SELECT count(*) AS n FROM dtls_association').get()?.n, 1);
  }
  assert.equal(rig.events.count('dtls.opened'), 1);
  assertUnique(rig.numbers);
});

describe('the key that seals the associations', () => {
  const faults: readonly (readonly [string, RegExp, (file: string) => void])[] = [
    ['is lost', /^1 associations were sealed by another key$/, (file) => rmSync(file)],
    ['is cut off', /^the file holds 31 bytes and no key/, (file) => truncateSync(file, 31)],
    ['is empty', /^the file holds 0 bytes and no key/, (file) => truncateSync(file, 0)],
    [
      'is that of another board',
      /^1 associations were sealed by another key$/,
      (file) => writeFileSync(file, Buffer.alloc(32, 'other')),
    ],
  ];
  for (const [fault, reason, harm] of faults)
    test(`${fault}: it is told, and the device shakes hands again and goes on after the next start`, async (t) => {
      const rig = new Rig();
      rig.keyFile = `${freshState(t)}.key`;
      rig.start();
      await rig.connect();
      rig.transport.stop();
      harm(rig.keyFile);
      assert.equal(rig.events.count('state.key-unusable'), 0);
      rig.start();
      assert.equal(rig.transport.footprint.associations, 0);
      const told = rig.events.all.filter(({ name }) => name === 'state.key-unusable');
      assert.match(String(told[0]?.fields.reason), reason);
      await rig.connect();
      assert.equal(await rig.ask('a'), 'device at 192.0.2.2');
      rig.transport.stop();
      const count = told.length;
      rig.start();
      assert.equal(rig.transport.footprint.associations, 1);
      assert.equal(rig.events.count('state.key-unusable'), count, 'told once');
      assert.equal(readFileSync(rig.keyFile).length, 32);
    });
});
