import { freemem } from 'node:os';
import type { EventName } from '../base/event-table.ts';

/** How a gateway stands, for people and programs that ask it. */
export interface GatewayStatus {
  readonly gateway: string;
  readonly software: string;
  readonly uplink: { readonly connected: boolean; readonly url: string; readonly protocol: string };
  readonly coap: { readonly port: number; readonly addresses: readonly string[]; readonly security: string };
  readonly devices: { readonly attached: number; readonly limit: number };
  readonly outbox: { readonly waiting: number; readonly limit: number; readonly dropped: number };
  readonly sessions: number;
  /** Mebibytes: of the process, of objects, and of octets outside the heap. */
  readonly memory: { readonly rss: number; readonly heap: number; readonly outside: number };
  /** How often each event happened since the start. */
  readonly counts: Readonly<Partial<Record<EventName, number>>>;
}

export const plainWarning =
  'none: plain CoAP; anyone on the private network can read and change what is said';

/** Mebibytes that the machine could give to programs. */
export const freeMemory = (): number => Math.round(freemem() / 1_048_576);

export function memoryInUse(): GatewayStatus['memory'] {
  const { rss, heapUsed, external } = process.memoryUsage();
  const mebibytes = (bytes: number) => Math.round(bytes / 104_857.6) / 10;
  return { rss: mebibytes(rss), heap: mebibytes(heapUsed), outside: mebibytes(external) };
}
