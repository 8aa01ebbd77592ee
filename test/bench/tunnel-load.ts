import { createSocket } from 'node:dgram';
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

let nextId = 1;

/**
 * Sends `count` packages from `outstanding` devices, one at a time from each. Returns the times from request to answer.
 * @throws {Error} for an answer other than 2.04
 */
export async function load(port: number, count: number, outstanding: number): Promise<Latency> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  const waiting = new Map<number, { device: number; began: number }>();
  const times: number[] = [];
  let sent = 0;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const send = (device: number) => {
    const id = nextId;
    nextId = (nextId + 1) & 0xffff;
    sent++;
    waiting.set(id, { device, began: performance.now() });
    socket.send(request(id, device), port, '127.0.0.1');
  };
  socket.on('message', (datagram) => {
    const [head = 0, code = 0] = datagram;
    if (code === 0) return;
    const isConfirmable = (head >> 4) % 4 === 0;
    if (isConfirmable) socket.send(Buffer.from([0x60, 0, datagram[2]!, datagram[3]!]), port, '127.0.0.1');
    const id = datagram.readUInt16BE(4);
    const found = waiting.get(id);
    if (!found) return;
    waiting.delete(id);
    if (code !== 0x44) return reject(new Error(`an answer ${code >> 5}.${code & 31}`));
    times.push(performance.now() - found.began);
    if (sent < count) send(found.device);
    else if (waiting.size === 0) resolve();
  });
  for (let device = 0; device < outstanding; device++) send(device);
  try {
    await promise;
  } finally {
    socket.close();
  }
  return percentiles(times);
}
