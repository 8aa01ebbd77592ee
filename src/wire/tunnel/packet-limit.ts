import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';

/** Packets up to this size are never suspected, in bytes. */
const floor = 1024;
/** Milliseconds for which a limit that was learned holds. It doubles with each further one. */
const holds = { first: 3_600_000, cap: 86_400_000 } as const;

/**
 * The largest packet that the broker takes. Over MQTT 5 the broker may say so. Over MQTT 3.1.1 it can only end the
 * connection, so the limit is learned from a connection that ends while a large packet waits for its acknowledgement.
 */
export class PacketLimit {
  readonly #clock: Clock;
  readonly #configured: number;
  #announced = Number.POSITIVE_INFINITY;
  #learned: { readonly bytes: number; readonly until: Monotonic } | undefined;
  #holds: number = holds.first;
  /** The largest packet that the broker acknowledged on this connection. */
  #proven = 0;

  /** @param configured bytes */
  constructor(clock: Clock, configured = Number.POSITIVE_INFINITY) {
    this.#clock = clock;
    this.#configured = configured;
  }

  get bytes(): number {
    if (this.#learned && this.#learned.until <= this.#clock.now()) this.#learned = undefined;
    return Math.min(this.#configured, this.#announced, this.#learned?.bytes ?? Number.POSITIVE_INFINITY);
  }

  /** Begins a connection. `announced`: what the broker says, in bytes. */
  connected(announced = Number.POSITIVE_INFINITY): void {
    this.#announced = announced;
    this.#proven = 0;
  }

  /** Whether the broker has acknowledged a packet of at least this size on this connection. */
  isProven(bytes: number): boolean {
    return bytes <= this.#proven;
  }

  acknowledged(bytes: number): void {
    this.#proven = Math.max(this.#proven, bytes);
  }

  /**
   * Learns from a connection that ended while packets were not acknowledged. The new limit is halfway between the largest
   * packet that was acknowledged and the suspect. So a sender of ever smaller packets can end only a few connections.
   * @param bytes size of the largest packet that was not acknowledged
   * @param isSure the broker said that a packet was too large
   * @returns the new limit, or undefined when the packet is not the likely cause
   */
  suspect(bytes: number, isSure: boolean): number | undefined {
    // Without any acknowledgement on this connection, the connection itself is the likely cause.
    const isLikely = isSure || (this.#proven > 0 && bytes > this.#proven);
    // What is above the limit was sent before the limit was learned.
    if (bytes <= floor || bytes > this.bytes || !isLikely) return undefined;
    const limit = Math.max(floor, Math.floor((Math.min(this.#proven, bytes) + bytes) / 2));
    const learned = Math.min(limit, bytes - 1);
    this.#learned = { bytes: learned, until: plus(this.#clock.now(), this.#holds) };
    this.#holds = Math.min(holds.cap, this.#holds * 2);
    return learned;
  }
}
