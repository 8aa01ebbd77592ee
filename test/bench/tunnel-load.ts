import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';

/** Bytes of a DM package in this benchmark: about a package in WBXML or CBOR. */
export const packageBytes = 300;
/** Bytes of an envelope with such a package. */
export const envelopeBytes = packageBytes + 100;

/** IPv4 loopback alone. */
export const loopbackOnly: typeof networkInterfaces = () => ({
  lo: (networkInterfaces().lo ?? []).filter(({ family }) => family === 'IPv4'),
});

/** Times of round trips, in microseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

/** @param times in milliseconds */
export function percentiles(times: readonly number[]): Latency {
  const ordered = times.toSorted((a, b) => a - b);
  const at = (share: number) =>
    ordered[Math.min(ordered.length - 1, Math.floor(ordered.length * share))]! * 1000;
  return { p50: at(0.5), p99: at(0.99) };
}

const payload = Buffer.alloc(packageBytes, 'p');

/** CON POST /dm/t/dm.example?id=urn:dev:bench:{device}, with this message ID, which is the token too. */
function request(id: number, device: number): Buffer {
  const option = (delta: number, value: string | Buffer): Buffer => {
    const { length } = value;
    const head = length < 13 ? [(delta << 4) | length] : [(delta << 4) | 13, length - 13];
    return Buffer.concat([Buffer.from(head), Buffer.from(value)]);
  };
  const header = Buffer.from([0x42, 0x02, id >> 8, id & 0xff, id >> 8, id & 0xff]);
  return Buffer.concat([
    header,
    option(11, 'dm'),
    option(0, 't'),
    option(0, 'dm.example'),
    option(1, Buffer.from([65001 >> 8, 65001 & 0xff])),
    option(3, `id=urn:dev:bench:${device}`),
    Buffer.from([0xff]),
    payload,
  ]);
}

/** Milliseconds. */
const retransmitAfter = 1000;

/** A device with a socket of its own, because a gateway bounds what it does for one peer. One package at a time. */
class Device {
  readonly #socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 16 });
  readonly #device: number;
  readonly #port: number;
  #id = 0;
  #began = 0;
  #isWaiting = false;
  #again: NodeJS.Timeout | undefined;

  /** @param answered called with each answer's code, and the milliseconds since its package was sent */
  constructor(device: number, port: number, answered: (device: Device, code: number, took: number) => void) {
    this.#device = device;
    this.#port = port;
    this.#socket.on('message', (datagram) => {
      const [head = 0, code = 0] = datagram;
      clearInterval(this.#again);
      // An empty acknowledgement: the answer comes by itself.
      if (code === 0) return;
      const isConfirmable = (head >> 4) % 4 === 0;
      if (isConfirmable) this.#send(Buffer.from([0x60, 0, datagram[2]!, datagram[3]!]));
      // On a busy machine the gateway repeats an answer before it is acknowledged.
      if (!this.#isWaiting || datagram.readUInt16BE(4) !== this.#id) return;
      this.#isWaiting = false;
      answered(this, code, performance.now() - this.#began);
    });
  }

  /** Takes an address of its own in the loopback network: a gateway bounds what it does for one address. */
  async open(): Promise<void> {
    const at = this.#device + 1;
    this.#socket.bind(0, `127.1.${at >> 8}.${at & 255}`);
    await once(this.#socket, 'listening');
  }

  send(): void {
    this.#id = (this.#id + 1) & 0xffff;
    this.#began = performance.now();
    this.#isWaiting = true;
    const datagram = request(this.#id, this.#device);
    this.#send(datagram);
    // The receive buffer of the gateway's socket holds fewer datagrams than some tests send at once.
    this.#again = setInterval(() => this.#send(datagram), retransmitAfter);
  }

  close(): void {
    clearInterval(this.#again);
    this.#socket.close();
  }

  #send(datagram: Buffer): void {
    this.#socket.send(datagram, this.#port, '127.0.0.1');
  }
}

/** How many packages are sent, by how many at once. */
export interface Work {
  readonly count: number;
  readonly outstanding: number;
  /** Longest pause of a device between two packages, in milliseconds. Pauses are random. Default 0: no pause. */
  readonly pause?: number;
}

/** Calls a function after a random pause. Without a pause, at once. */
export function afterPause({ pause = 0 }: Work, next: () => void): void {
  if (pause === 0) next();
  else setTimeout(next, Math.random() * pause);
}

/**
 * Sends packages from devices, one at a time from each. Returns the times from request to answer.
 * @throws {Error} for an answer other than 2.04
 */
export async function load(port: number, work: Work): Promise<Latency> {
  const { count, outstanding } = work;
  const times: number[] = [];
  let sent = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const devices = Array.from(
    { length: outstanding },
    (_, at) =>
      new Device(at, port, (device, code, took) => {
        if (code !== 0x44) return reject(new Error(`an answer ${code >> 5}.${code & 31}`));
        times.push(took);
        if (sent < count) {
          sent++;
          afterPause(work, () => device.send());
        } else if (times.length === count) resolve();
      }),
  );
  await Promise.all(devices.map((device) => device.open()));
  sent = devices.length;
  for (const device of devices) device.send();
  try {
    await promise;
  } finally {
    for (const device of devices) device.close();
  }
  return percentiles(times);
}
