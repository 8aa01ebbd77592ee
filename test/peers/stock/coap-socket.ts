import { generate, type NamedOption, type ParsedPacket, parse } from 'coap-packet';
import type { Clock, Timer } from '../../../src/base/clock.ts';
import type { Dice } from './dice.ts';

export interface CoapHabits {
  /** How it answers: on the acknowledgement, or in a message of its own, confirmable or not. */
  readonly answers: 'piggybacked' | 'separate' | 'separate-non';
  /** How often a datagram of its own is lost. */
  readonly loses: number;
  /** How often it sends an answer twice. */
  readonly doubles: number;
  readonly tokenLength: number;
}

export interface CoapAnswer {
  readonly code: string;
  readonly options?: readonly NamedOption[];
  readonly payload?: Buffer;
}

export interface CoapSocketParts {
  readonly habits: CoapHabits;
  readonly dice: Dice;
  readonly clock: Clock;
  readonly send: (datagram: Buffer) => void;
  /** Answers a request; undefined where it goes unheard. */
  readonly serve: (request: ParsedPacket) => CoapAnswer | undefined;
}

export const uintOf = (value: Buffer | undefined): number =>
  value === undefined || value.length === 0 ? 0 : value.readUIntBE(0, value.length);
export function uintBytes(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets.subarray(
    octets.findIndex((octet) => octet !== 0) < 0 ? 4 : octets.findIndex((octet) => octet !== 0),
  );
}
export const optionOf = ({ options = [] }: Pick<ParsedPacket, 'options'>, name: string): Buffer | undefined =>
  options.find((each) => each.name === name)?.value;

/** Four repetitions, as RFC 7252 has them, and one more than the others need. */
const repetitions = 5;

/** The message layer of a stock client, by the package coap-packet: nothing of Postern's is in it. */
export class CoapSocket {
  readonly #parts: CoapSocketParts;
  readonly #answered = new Map<number, Buffer | undefined>();
  readonly #waiting = new Map<string, (answer: ParsedPacket) => void>();
  readonly #unacknowledged = new Map<number, Timer>();
  /** What a Reset of a notification ends, by message ID. */
  readonly #notified = new Map<number, () => void>();
  #messageId: number;

  constructor(parts: CoapSocketParts) {
    this.#parts = parts;
    this.#messageId = parts.dice.below(0x10000);
  }

  /** Sends a request, and resolves with its answer. Rejects when there is none. */
  async request(
    code: string,
    options: readonly NamedOption[],
    payload: Buffer = Buffer.alloc(0),
  ): Promise<ParsedPacket> {
    const { dice, habits, clock } = this.#parts;
    const token = dice.octets(habits.tokenLength);
    const { promise, resolve, reject } = Promise.withResolvers<ParsedPacket>();
    const key = token.toString('hex');
    const given = clock.after(100_000, () => {
      this.#waiting.delete(key);
      reject(new Error(`no answer to ${code}`));
    });
    this.#waiting.set(key, (answer) => {
      given.cancel();
      this.#waiting.delete(key);
      resolve(answer);
    });
    this.#confirm({ code, token, options: [...options], payload });
    return await promise;
  }

  /** Sends a notification. `ended` is called when it gets a Reset. */
  notify(
    isConfirmable: boolean,
    { code, options = [], payload = Buffer.alloc(0) }: CoapAnswer,
    token: Buffer,
    ended: () => void,
  ): void {
    const message = { code, token, options: [...options], payload };
    if (isConfirmable) this.#notified.set(this.#confirm(message), ended);
    else {
      const messageId = this.#nextId();
      this.#notified.set(messageId, ended);
      // Nobody repeats it, so it is not lost on the way.
      this.#parts.send(generate({ ...message, confirmable: false, messageId }));
    }
  }

  /** No message of its own is repeated any more. */
  stop(): void {
    for (const timer of this.#unacknowledged.values()) timer.cancel();
    this.#unacknowledged.clear();
  }

  receive(datagram: Buffer): void {
    const packet = parse(datagram);
    const { code, messageId, ack, reset, confirmable, token } = packet;
    if (ack || reset) {
      this.#unacknowledged.get(messageId)?.cancel();
      this.#unacknowledged.delete(messageId);
      if (reset) this.#notified.get(messageId)?.();
      this.#notified.delete(messageId);
    }
    if (code === '0.00') return;
    if (!code.startsWith('0.')) {
      if (confirmable) this.#emit(generate({ code: '0.00', ack: true, messageId }));
      this.#waiting.get(token.toString('hex'))?.(packet);
      return;
    }
    this.#serve(packet);
  }

  #serve(packet: ParsedPacket): void {
    const { habits, serve } = this.#parts;
    const { messageId, token, confirmable } = packet;
    if (this.#answered.has(messageId)) {
      const kept = this.#answered.get(messageId);
      if (kept) this.#emit(kept);
      return;
    }
    const answer = serve(packet);
    if (!answer) return;
    const { code, options = [], payload = Buffer.alloc(0) } = answer;
    const response = { code, token, options: [...options], payload };
    if (habits.answers === 'piggybacked' && confirmable) {
      this.#keep(messageId, generate({ ...response, ack: true, messageId }));
      return;
    }
    if (confirmable) this.#keep(messageId, generate({ code: '0.00', ack: true, messageId }));
    else this.#answered.set(messageId, undefined);
    if (habits.answers === 'separate-non') {
      // Nobody repeats it, so it is not lost on the way.
      this.#parts.send(generate({ ...response, confirmable: false, messageId: this.#nextId() }));
    } else this.#confirm(response);
  }

  #keep(messageId: number, datagram: Buffer): void {
    this.#answered.set(messageId, datagram);
    this.#emit(datagram);
    if (this.#parts.dice.chance(this.#parts.habits.doubles)) this.#emit(datagram);
  }

  #nextId(): number {
    this.#messageId = (this.#messageId + 1) & 0xffff;
    return this.#messageId;
  }

  /** Sends a message until it is acknowledged. Returns its message ID. */
  #confirm(message: { code: string; token: Buffer; options: NamedOption[]; payload: Buffer }): number {
    const { clock } = this.#parts;
    const messageId = this.#nextId();
    const datagram = generate({ ...message, confirmable: true, messageId });
    const send = (left: number, delay: number) => {
      if (left === 0) return;
      this.#emit(datagram, left === 1);
      this.#unacknowledged.set(
        messageId,
        clock.after(delay, () => send(left - 1, delay * 2)),
      );
    };
    send(repetitions, 2000);
    return messageId;
  }

  #emit(datagram: Buffer, isLast = false): void {
    if (!isLast && this.#parts.dice.chance(this.#parts.habits.loses)) return;
    this.#parts.send(datagram);
  }
}
