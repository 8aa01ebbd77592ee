import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { host } from './board.ts';

/** Seconds from 1900, the epoch of NTP, to 1970. */
const from1900 = 2_208_988_800;

/** Starts an NTP server whose clock is ahead by this many milliseconds. [RFC 5905, 7.3] */
export async function startTimeServer(ahead: number) {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const write = (packet: Buffer, at: number) => {
    const seconds = (Date.now() + ahead) / 1000 + from1900;
    packet.writeUInt32BE(Math.floor(seconds), at);
    packet.writeUInt32BE(Math.floor((seconds % 1) * 2 ** 32), at + 4);
  };
  socket.on('message', (request, { port, address }) => {
    const answer = Buffer.alloc(48);
    // No leap second, version 4, mode server; stratum 1; poll interval of the request; precision of a millisecond.
    answer.set([0x24, 1, request[2] ?? 6, 0xf6]);
    answer.write('TEST', 12);
    request.copy(answer, 24, 40, 48);
    for (const at of [16, 32, 40]) write(answer, at);
    socket.send(answer, port, address);
  });
  return {
    /** Address in the form of chrony's directive `server`, as seen from the guest. */
    name: `${host} port ${socket.address().port}`,
    /** Matches log lines of the guest after it has taken over this time. */
    pattern: () => {
      const days = [0, 86_400_000].map((more) =>
        new Date(Date.now() + ahead + more).toISOString().slice(0, 10),
      );
      return new RegExp(`"time":"(${days.join('|')})T`);
    },
    [Symbol.asyncDispose]: async () => {
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}
