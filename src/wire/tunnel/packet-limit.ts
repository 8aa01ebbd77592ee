import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';

/** Packets up to this size are never suspected, in bytes. */
const floor = 1024;
/** Milliseconds for which a limit that was learned holds. It doubles with each further one. */
const holds = { first: 3_600_000, cap: 86_400_000 } as const;

/**
 * The largest packet that the broker takes. Over MQTT 5 the broker says so, at the latest when it refuses a packet. Over MQTT
 * 3.1.1 it can only end the connection, so the limit is learned from two connections in a row that end while a large packet
 * waits for its acknowledgement. One may be an accident.
 */
export class PacketLimit {
  readonly #clock: Clock;
  readonly #configured: number;
  #announced = Number.POSITIVE_INFINITY;
  #learned: { readonly bytes: number; readonly until: Monotonic } | undefined;
  #holds: number = holds.first;
  /** The largest packet that the broker acknowledged on this connection. */
  #proven = 0;
  /** Size of the packet that may have ended the last connection. */
  #suspect: number | undefined;

  /** @param configured bytes */
  constructor(clock: Clock, configured = Number.POSITIVE_INFINITY) {
    this.#clock = clock;
    this.#configured = configured;
  }

  get bytes(): number {
    if (this.#learned && this.#learned.until <= this.#clock.now()) this.#learned = undefined;
    return Math.min(this.#configured, this.#announced, this.#learned?.bytes ?? Number.POSITIVE_INFINITY);
  }

  /** What is refused because of what was learned, in words. */
  get reason(): string | undefined {
    const { bytes } = this;
    return this.#learned?.bytes === bytes
      ? `packets of more than ${bytes} bytes are not sent, because the broker did not take larger ones`
      : undefined;
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
    if (this.#suspect !== undefined && this.#suspect <= bytes) this.#suspect = undefined;
  }

  /**
   * The broker refused a packet as too large.
   * @returns the new limit, or undefined when nothing was learned
   */
  refused(bytes: number): number | undefined {
    return this.#learn(bytes);
  }

  /**
   * A connection of MQTT 3.1.1 ended.
   * @param bytes size of the largest packet that was not acknowledged; undefined when the broker did not end the connection,
   *   or had acknowledged everything
   * @returns the new limit, or undefined when nothing was learned
   */
  ended(bytes: number | undefined): number | undefined {
    // Without any acknowledgement on this connection, the connection itself is the likely cause.
    if (bytes !== undefined && this.#proven === 0) return undefined;
    const before = this.#suspect;
    const isLikely = bytes !== undefined && bytes > this.#proven && bytes > floor;
    this.#suspect = isLikely ? bytes : undefined;
    if (bytes === undefined || !isLikely || before === undefined) return undefined;
    this.#suspect = undefined;
    // The larger one: a sender of ever larger packets, each once, must not stay unsuspected.
    return this.#learn(Math.max(bytes, before));
  }

  /**
   * The new limit is halfway between the largest packet that was acknowledged and the one that was not. So a sender of ever
   * smaller packets can end only a few connections.
   */
  #learn(bytes: number): number | undefined {
    // What is above the limit was sent before the limit was learned.
    if (bytes <= floor || bytes > this.bytes) return undefined;
    const limit = Math.max(floor, Math.floor((Math.min(this.#proven, bytes) + bytes) / 2));
    const learned = Math.min(limit, bytes - 1);
    this.#learned = { bytes: learned, until: plus(this.#clock.now(), this.#holds) };
    this.#holds = Math.min(holds.cap, this.#holds * 2);
    return learned;
  }
}
