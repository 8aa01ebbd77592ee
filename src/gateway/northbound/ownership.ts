import { isDeepStrictEqual } from 'node:util';
import { background, persistently } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { EventFields } from '../../base/event-fields.ts';
import type { EventName } from '../../base/event-table.ts';
import type { Events } from '../../base/events.ts';
import type { DepartureMarks } from './departure-marks.ts';
import { type EnrolmentWay, wayText } from './enrolment.ts';
import {
  dropTransfer,
  readTransferOrder,
  stageTransfer,
  storedTransfer,
  type TransferOrder,
} from './transfer-order.ts';

export interface OwnershipParts {
  readonly gatewayId: string;
  /** ServerID of the owner. */
  readonly server: string;
  /** Has the gateway enrolled as an order says, in the folder of the identity at the next owner. */
  readonly enrol: (
    order: TransferOrder,
    events: Events,
    stop: AbortSignal,
    asks: (way: () => EnrolmentWay) => void,
  ) => Promise<unknown>;
  readonly marks: DepartureMarks;
  /** Tells the owner why a transfer has failed. */
  readonly failed: (reason: string) => void;
  /** Ends this gateway and makes another one, which goes on with the departure. */
  readonly startAgain: (() => void) | undefined;
  readonly clock: Clock;
  readonly events: Events;
}

/** A transfer that is under way. */
export interface TransferView {
  /** ServerID of the next owner. */
  readonly server: string;
  /** What it waits for, and when it tries again; for a person. */
  readonly waiting: string;
}

interface Passing {
  readonly server: string;
  way?: () => EnrolmentWay;
}

/** Milliseconds within which the next owner must enrol the gateway. A restart of the gateway begins them anew. */
const transferTime = 86_400_000;

/**
 * To whom an enrolled gateway belongs. The owner ends that by an order. A gateway that passes to another owner is enrolled
 * there first, beside its present identity, and belongs to the present owner until then: so it has exactly one owner.
 */
export class Ownership {
  readonly #parts: OwnershipParts;
  /** Stops what waits for the next owner. */
  #stop = new AbortController();
  /** What the next owner, or a transfer that has failed, said last. */
  #said = '';
  /** The transfer under way: who is asked, and how it stands with the broker there, once that is asked. */
  #passing: Passing | undefined;

  constructor(parts: OwnershipParts) {
    this.#parts = parts;
  }

  /** ServerID of the owner. */
  get server(): string {
    return this.#parts.server;
  }

  /** What keeps a transfer from its end; empty when nothing does. It has no figure that changes by itself. */
  get problem(): string {
    const { retryInSeconds: _, ...way } = this.#passing?.way?.() ?? { connected: true, url: '' };
    return [this.#said, wayText(way)].filter(Boolean).join('; ');
  }

  get transfer(): TransferView | undefined {
    if (!this.#passing) return undefined;
    const { server, way } = this.#passing;
    const texts = [this.#said, way ? wayText(way()) : ''].filter(Boolean);
    return { server, waiting: texts.join('; ') || 'it is asked' };
  }

  /** Goes on with a transfer that has begun. */
  start(): void {
    const { marks, events } = this.#parts;
    const { signal } = this.#stop;
    void background(events, 'enrolment', async () => {
      try {
        const order = storedTransfer(marks.next, marks.files);
        if (marks.state !== undefined) return;
        if (order) await this.#pass(order, signal);
        else dropTransfer(marks.next);
      } catch (thrown) {
        if (!signal.aborted) await this.#fail(asPosternError(thrown).message, signal);
      }
    });
  }

  stop(): void {
    this.#stop.abort();
  }

  /**
   * Checks and stores an order of the owner.
   * @param leaf `Decommission`; `Transfer`: the gateway passes to another owner; `Withdraw`: it does not
   * @param data of a `Transfer`
   * @returns `begin`: to be called when the order is final
   * @throws {PosternError} `conflict` when the gateway has its next owner, `malformed`, `storage`
   */
  order(leaf: string, data: string): { readonly begin: () => void } {
    const { marks } = this.#parts;
    marks.demandPossible();
    if (leaf === 'Decommission') return { begin: () => this.#leave(false) };
    if (leaf === 'Withdraw') {
      if (marks.state !== undefined) throw new PosternError('conflict', 'the gateway has its next owner');
      return { begin: () => this.#withdraw() };
    }
    const order = readTransferOrder(data);
    // The owner repeats an order when it lost the answer.
    if (isDeepStrictEqual(order, storedTransfer(marks.next, marks.files))) return { begin: () => {} };
    const place = stageTransfer(order, marks.next, marks.files);
    return {
      begin: () => {
        if (marks.state !== undefined) return;
        this.#anew();
        place();
        this.start();
      },
    };
  }

  #anew(): void {
    this.stop();
    this.#passing = undefined;
    this.#stop = new AbortController();
  }

  /** The gateway stays with its owner, who has taken the transfer back. */
  #withdraw(): void {
    const { marks, gatewayId: gateway, events } = this.#parts;
    if (marks.state !== undefined || !storedTransfer(marks.next, marks.files)) return;
    this.#anew();
    dropTransfer(marks.next);
    this.#said = '';
    events.emit('departure.transfer-failed', { gateway, reason: `${this.server} has taken it back` });
  }

  /** The owner has ended its relation to this gateway, without an order to it. */
  gone(): void {
    // A gateway that is leaving hears by this that the owner knows.
    if (this.#parts.marks.state !== undefined) this.#parts.startAgain?.();
    else this.#leave(false);
  }

  #leave(isTransfer: boolean): void {
    const { marks, events, gatewayId: gateway, startAgain } = this.#parts;
    if (marks.state !== undefined) return;
    this.stop();
    marks.leave(isTransfer);
    events.emit('departure.begun', { gateway, server: this.server });
    startAgain?.();
  }

  /** Has the gateway enrolled at the next owner. @throws {PosternError} when that cannot be done */
  async #pass(order: TransferOrder, stop: AbortSignal): Promise<void> {
    const { enrol, clock, events } = this.#parts;
    const { server } = order;
    const refusal = new AbortController();
    const refuse = (code: 'timeout' | 'forbidden', reason: string) =>
      refusal.abort(new PosternError(code, `${server}: ${reason}`));
    const late = clock.after(transferTime, () =>
      refuse('timeout', 'it has not enrolled this gateway in a day'),
    );
    const emit = (name: EventName, fields: EventFields) => {
      events.emit(name, fields as never);
      const reason = String(fields.reason);
      if (name === 'enrolment.waiting' || name === 'enrolment.failed') this.#said = reason;
      if (name === 'enrolment.refused') refuse('forbidden', reason);
    };
    const passing: Passing = { server };
    this.#passing = passing;
    this.#said = '';
    try {
      await enrol(order, { emit }, AbortSignal.any([stop, refusal.signal]), (way) => {
        passing.way = way;
      });
    } finally {
      late.cancel();
      // Another order may have taken its place.
      if (this.#passing === passing) this.#passing = undefined;
    }
    // The owner may have taken it back while the answer of the next one came.
    stop.throwIfAborted();
    this.#leave(true);
  }

  /** The gateway stays with its owner, who hears of it when the disk takes the report. */
  async #fail(reason: string, stop: AbortSignal): Promise<void> {
    const { marks, gatewayId: gateway, events, failed } = this.#parts;
    this.#said = reason;
    events.emit('departure.transfer-failed', { gateway, reason });
    await persistently(this.#parts, 'enrolment', () => failed(reason), stop);
    if (!stop.aborted) dropTransfer(marks.next);
  }
}
