import type { Clock, Monotonic, Timer } from '../../../base/clock.ts';
import { alertBytes } from './alerts.ts';
import { fragmentsOf, type HandshakeMessage, MessageType, wholeMessage } from './messages.ts';
import { ContentType, headerBytes, plainRecord } from './record.ts';
import type { TimerWheel } from './timer-wheel.ts';

/** Times and sizes of a handshake. */
export const handshakeLimits = {
  /** Milliseconds until a flight is sent again (RFC 6347 section 4.2.4.1). They double with each further time. */
  repeatAfter: 1000,
  /** How often a flight is sent, all in all. With the times above, a handshake ends after a minute of silence. */
  transmissions: 6,
  /**
   * How often a client sends its Finished. The server has just answered, so after these 15 seconds its silence says that it does not
   * take the key.
   */
  proofs: 4,
  /** Bytes of a datagram, which pass a path of IPv6 with room for what tunnels add (RFC 6347 section 4.1.1.1). */
  datagram: 1200,
  /** Protected records that wait for the keys. */
  early: 2,
} as const;

/** A part of a flight: a message of epoch 0, ChangeCipherSpec, or the Finished message of epoch 1. */
export type FlightItem = HandshakeMessage | 'change-cipher-spec';

/** What flights need from their surroundings. */
interface FlightParts {
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  /** Sends one datagram to the peer. */
  readonly send: (datagram: Buffer) => void;
}

/** Sends the flights of one end of a handshake, and sends them again until an answer comes (RFC 6347 section 4.2.4). */
export class Flights {
  readonly #parts: FlightParts;
  readonly #seal: (content: Buffer) => Buffer;
  readonly #gaveUp: () => void;
  /** Most bytes of a fragment with its header. */
  fragmentBytes = handshakeLimits.datagram - headerBytes;
  #record: number;
  #flight: readonly FlightItem[] = [];
  #timer: Timer | undefined;
  #isLast = false;
  #sent = 0;
  #sentAt: Monotonic | undefined;

  /**
   * @param record sequence number of the first record of epoch 0
   * @param seal makes a record of epoch 1
   * @param gaveUp called when a flight has been sent as often as may be, without an answer
   */
  constructor(parts: FlightParts, record: number, seal: (content: Buffer) => Buffer, gaveUp: () => void) {
    this.#parts = parts;
    this.#record = record;
    this.#seal = seal;
    this.#gaveUp = gaveUp;
  }

  /** No answer to the flight is expected. */
  get isLast(): boolean {
    return this.#isLast;
  }

  /**
   * Sends a flight in the place of the one before. One that is the last is repeated only by `repeat`.
   * @param most how often it is sent, all in all
   */
  send(flight: readonly FlightItem[], isLast: boolean, most: number): void {
    this.stop();
    this.#flight = flight;
    this.#sent = 0;
    this.#isLast = isLast;
    this.#transmit();
    if (!isLast) this.#arm(handshakeLimits.repeatAfter, most);
  }

  /**
   * Sends the last flight again, because the peer lacks it. Nothing is sent when that was done less than half of the first
   * time-out ago, so that two ends never answer repetitions by repetitions without end.
   */
  repeat(): void {
    const now = this.#parts.clock.now();
    if (this.#sentAt === undefined || now - this.#sentAt >= handshakeLimits.repeatAfter / 2) this.#transmit();
  }

  /** Sends a fatal alert without protection. */
  alert(description: number): void {
    this.#parts.send(plainRecord(ContentType.Alert, this.#record++, alertBytes(description)));
  }

  /** Ends the repetitions. */
  stop(): void {
    this.#timer?.cancel();
  }

  #arm(delay: number, most: number): void {
    this.#timer = this.#parts.wheel.after(delay, () => {
      if (this.#sent >= most) {
        this.#gaveUp();
        return;
      }
      this.#transmit();
      this.#arm(delay * 2, most);
    });
  }

  /** Sends the records of the flight, as many in a datagram as it holds. */
  #transmit(): void {
    const { datagram: most } = handshakeLimits;
    let datagram: Buffer[] = [];
    let length = 0;
    const flush = () => {
      if (length > 0) this.#parts.send(Buffer.concat(datagram));
      datagram = [];
      length = 0;
    };
    for (const record of this.#flight.flatMap((item) => this.#recordsOf(item))) {
      if (length + record.length > most) flush();
      datagram.push(record);
      length += record.length;
    }
    this.#sent++;
    this.#sentAt = this.#parts.clock.now();
    flush();
  }

  #recordsOf(item: FlightItem): Buffer[] {
    if (item === 'change-cipher-spec')
      return [plainRecord(ContentType.ChangeCipherSpec, this.#record++, Buffer.from([1]))];
    if (item.type === MessageType.Finished) return [this.#seal(wholeMessage(item))];
    return fragmentsOf(item, this.fragmentBytes).map((fragment) =>
      plainRecord(ContentType.Handshake, this.#record++, fragment),
    );
  }
}
