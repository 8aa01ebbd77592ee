// A process of light LwM2M clients for `npm run bench:telemetry`: `node light-clients.ts PORT FIRST COUNT SECONDS`. Prints `ready` when
// all are registered, and `observed` when all are observed. At each line on its input each client tells one value, spread evenly over so
// many seconds; then it prints `told`.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { LightClient } from '../peers/light-client.ts';
import { deviceAddress, deviceId } from './crowd.ts';

const [port = 0, first = 0, count = 1, seconds = 60] = process.argv.slice(2).map(Number);
const clients = Array.from(
  { length: count },
  (_, at) => new LightClient(deviceId(first + at), port, deviceAddress(first + at)),
);
/** Registrations at a time. */
const together = 16;

const left = clients.values();
const registering = async () => {
  for (const client of left) await client.register();
};
await Promise.all(Array.from({ length: together }, registering));
console.log('ready');
await Promise.all(clients.map((client) => client.observed));
console.log('observed');

for await (const _ of createInterface(process.stdin)) {
  const began = performance.now();
  for (const [at, client] of clients.entries()) {
    const due = began + (at * seconds * 1000) / count;
    const wait = due - performance.now();
    if (wait > 1) await pause(wait);
    client.notify(20 + Math.round(Math.random() * 100) / 10);
  }
  console.log('told');
}
await once(process, 'SIGTERM');
