import { background, failed } from '../../base/background.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import type { Events } from '../../base/events.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import type { Inventory } from '../store/inventory.ts';
import type { Arrivals } from './arrivals.ts';
import type { Associations } from './associations.ts';
import type { DeviceAddresses, PeerAddress } from './device-addresses.ts';
import { type Finding, isAtItsAddress, type SilenceOf, silenceOf } from './presence.ts';

export interface PresenceWatchParts {
  readonly inventory: Inventory;
  readonly addresses: DeviceAddresses;
  readonly arrivals: Arrivals;
  readonly associations: Pick<Associations, 'heard' | 'missing'>;
  /** Asks a directly attached device whether it is there. */
  readonly ask: (deviceId: string) => Promise<Finding>;
  /** URI of the address that a device was heard from. */
  readonly uriOf: (from: PeerAddress) => string;
  /** Why a directly attached device is locked out, as one line for a person; undefined where it is not. */
  readonly lockedOut: (record: DeviceRecord) => string | undefined;
  /** The registration of a directly attached LwM2M client. */
  readonly registrationOf: (deviceId: string) => SilenceOf['registration'];
  /** `limits.device-expiry` in milliseconds. */
  readonly configured: number | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Maximum number of devices that are asked at the same time. */
const asksAtOnce = 64;
/** Milliseconds between two searches for silent devices. */
const sweepEvery = 30_000;
/** Milliseconds until a device that did not answer is asked again, doubling from `first` to `cap`. */
const retry = { first: 900_000, cap: 14_400_000 } as const;
/** Milliseconds between two writes of when and where devices were heard. */
const writeEvery = 3_600_000;
/** Milliseconds after a device was asked for a message, during which its message does not show its own period. */
const askedFor = 60_000;
/** Questions are spread: a device is asked up to this part of its silence later. */
const spread = 0.25;

/** What the watch knows of one directly attached device. */
interface Contact {
  /** When it was heard last, or since when it is watched. */
  heardAt: Monotonic;
  /** It was heard since it is watched. */
  wasHeard: boolean;
  /** When the device is asked next, if it is not heard before. */
  askAt: Monotonic;
  /** When the gateway last asked it for a message. */
  askedAt: Monotonic | undefined;
  /** Milliseconds between the last two messages that it sent by itself. */
  period: number | undefined;
  /** Questions in a row that it did not answer. */
  misses: number;
  /** Its place in the spread, from 0 to 1. */
  readonly place: number;
}

/**
 * Watches over the directly attached devices. It notes when and where each was heard, asks those that are silent for
 * longer than fits their kind (`silenceOf`), and has `Associations` store what came of it. A child gateway watches over
 * the devices behind it.
 */
export class PresenceWatch implements Disposable {
  readonly #parts: PresenceWatchParts;
  readonly #contacts = new Map<string, Contact>();
  #timer: Timer | undefined;
  #writtenAt: Monotonic;
  #stopped = false;

  constructor(parts: PresenceWatchParts) {
    this.#parts = parts;
    this.#writtenAt = parts.clock.now();
  }

  /** Starts to watch. */
  start(): void {
    this.#refresh();
    this.review();
    this.#schedule();
  }

  /** Asks nobody any more. What devices send is still noted. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Writes what was noted. To be called before the database is closed. */
  [Symbol.dispose](): void {
    this.stop();
    this.#write();
  }

  /**
   * To be called when a device has proved itself by a message.
   * @param from absent over HTTP
   */
  heard(deviceId: string, from: PeerAddress | undefined): void {
    const { addresses, arrivals, associations, inventory, uriOf } = this.#parts;
    const other = from && addresses.heard(deviceId, from, true);
    arrivals.heard(deviceId, from);
    this.#heard(deviceId);
    const where = from && { address: uriOf(from), ...pick(from) };
    this.#store(() => associations.heard(deviceId, where));
    // Two devices of one protocol cannot share a socket, so the other one is not there any more.
    if (other !== undefined && inventory.get(other)?.protocol === inventory.get(deviceId)?.protocol)
      this.#store(() => associations.missing(other, isAtItsAddress(deviceId)));
  }

  /** To be called with what came of a question to a device, or of a message to it. */
  found(deviceId: string, finding: Finding): void {
    if (this.#stopped || finding.kind !== 'missing') return;
    const { inventory, lockedOut, associations } = this.#parts;
    const record = inventory.get(deviceId);
    // That nothing answers is true as well, but is not the cause.
    const reason = (record && lockedOut(record)) ?? finding.reason;
    this.#store(() => associations.missing(deviceId, reason));
  }

  /** Notes which devices are locked out. Each sweep does so too, so what the disk does not take now is stored later. */
  review(): void {
    const { inventory, lockedOut } = this.#parts;
    for (const record of [...inventory.values()]) {
      const reason = record.via === undefined ? lockedOut(record) : undefined;
      if (reason !== undefined) this.found(record.deviceId, { kind: 'missing', reason });
    }
  }

  /** To be called when the gateway asks a device for a message. */
  asked(deviceId: string): void {
    const contact = this.#contacts.get(deviceId);
    if (contact) contact.askedAt = this.#parts.clock.now();
  }

  detached(deviceId: string): void {
    this.#contacts.delete(deviceId);
  }

  #heard(deviceId: string): void {
    const contact = this.#contacts.get(deviceId);
    if (!contact) return;
    const now = this.#parts.clock.now();
    const gap = now - contact.heardAt;
    const isOwn = contact.askedAt === undefined || now - contact.askedAt > askedFor;
    // Messages of one session follow each other closely.
    if (isOwn && contact.wasHeard && gap > askedFor) contact.period = gap;
    contact.heardAt = now;
    contact.wasHeard = true;
    contact.misses = 0;
    contact.askAt = this.#dueAt(deviceId, contact);
  }

  #dueAt(deviceId: string, { heardAt, period, place }: Contact): Monotonic {
    const { inventory, registrationOf, configured } = this.#parts;
    const record = inventory.get(deviceId);
    if (!record) return heardAt;
    const silence = silenceOf({ record, registration: registrationOf(deviceId), period, configured });
    return plus(heardAt, silence * (1 + spread * place));
  }

  /** Makes a contact for each device that is attached here, and drops the others. */
  #refresh(): void {
    const { inventory, clock, entropy } = this.#parts;
    const isHere = (record: DeviceRecord | undefined) => record !== undefined && record.via === undefined;
    for (const record of inventory.values()) {
      const { deviceId } = record;
      if (!isHere(record) || this.#contacts.has(deviceId)) continue;
      const now = clock.now();
      const contact: Contact = {
        heardAt: now,
        wasHeard: false,
        askAt: now,
        askedAt: undefined,
        period: undefined,
        misses: 0,
        place: entropy.uniform(),
      };
      // A device that was unreachable before the restart is asked soon.
      contact.askAt =
        record.state === 'unreachable'
          ? plus(now, retry.first * contact.place)
          : this.#dueAt(deviceId, contact);
      this.#contacts.set(deviceId, contact);
    }
    for (const deviceId of this.#contacts.keys())
      if (!isHere(inventory.get(deviceId))) this.#contacts.delete(deviceId);
  }

  #schedule(): void {
    const { clock, events } = this.#parts;
    this.#timer = clock.after(sweepEvery, async () => {
      await background(events, 'presence', () => this.#sweep());
      if (!this.#stopped) this.#schedule();
    });
  }

  async #sweep(): Promise<void> {
    const { clock } = this.#parts;
    this.#refresh();
    this.review();
    if (clock.now() - this.#writtenAt >= writeEvery) this.#write();
    const due = Iterator.from(this.#contacts).filter(([, { askAt }]) => askAt <= clock.now());
    const worker = async () => {
      for (const [deviceId, contact] of due) {
        if (this.#stopped) return;
        await this.#ask(deviceId, contact);
      }
    };
    await Promise.all(Array.from({ length: asksAtOnce }, worker));
  }

  async #ask(deviceId: string, contact: Contact): Promise<void> {
    const { ask, clock } = this.#parts;
    const before = contact.heardAt;
    // Whatever happens, the device is not asked again before its time.
    contact.askAt = plus(
      clock.now(),
      Math.min(retry.cap, retry.first * 2 ** contact.misses) * (1 + spread * contact.place),
    );
    contact.askedAt = clock.now();
    try {
      const finding = await ask(deviceId);
      if (this.#stopped || contact.heardAt !== before || finding.kind === 'proven') return;
      if (finding.kind === 'missing') contact.misses++;
      else contact.askAt = plus(clock.now(), this.#dueAt(deviceId, contact) - contact.heardAt);
      this.found(deviceId, finding);
    } catch (thrown) {
      failed(this.#parts.events, 'presence', thrown);
    }
  }

  #write(): void {
    this.#writtenAt = this.#parts.clock.now();
    this.#store(() => this.#parts.inventory.writeHeard());
  }

  /**
   * Stores something. When that fails, it is tried again with the next message or question, and nothing else fails.
   */
  #store(work: () => void): void {
    try {
      work();
    } catch (thrown) {
      failed(this.#parts.events, 'presence', thrown);
    }
  }
}

const pick = ({ heardOn }: PeerAddress) => (heardOn === undefined ? {} : { heardOn });
