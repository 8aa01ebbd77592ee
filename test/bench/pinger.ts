// A process that pings a CoAP port of 127.0.0.1 every so many milliseconds: `node pinger.ts PORT MILLISECONDS`. At a line on its
// input it prints the times of the answers in milliseconds, as JSON, and ends. It has a process of its own, since other work in its
// loop would count as time of the answer.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

const [port = '5683', every = '10'] = process.argv.slice(2);
/** One address may ask little as a stranger, so the pings come from many in turn. */
const sockets = await Promise.all(
  Array.from({ length: 32 }, async (_, at) => {
    const socket = createSocket('udp4');
    socket.bind(0, `127.2.0.${at + 1}`);
    await once(socket, 'listening');
    return socket;
  }),
);
const sent = new Map<number, number>();
const times: number[] = [];
let messageId = 0;

// The gateway answers an empty confirmable message with a Reset of the same message ID (RFC 7252, section 4.3).
for (const socket of sockets)
  socket.on('message', (datagram) => {
    const began = sent.get(datagram.readUInt16BE(2));
    if (began !== undefined && sent.delete(datagram.readUInt16BE(2))) times.push(performance.now() - began);
  });
const timer = setInterval(() => {
  messageId = (messageId + 1) & 0xffff;
  sent.set(messageId, performance.now());
  const ping = Buffer.from([0x40, 0, messageId >> 8, messageId & 0xff]);
  sockets[messageId % sockets.length]!.send(ping, Number(port), '127.0.0.1');
}, Number(every));
console.log('ready');
process.stdin.once('data', () => {
  clearInterval(timer);
  setTimeout(() => {
    for (const began of sent.values()) times.push(performance.now() - began);
    console.log(JSON.stringify(times));
    for (const socket of sockets) socket.close();
    process.stdin.destroy();
  }, 1000);
});
