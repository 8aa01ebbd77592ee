import { background } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import { childIn } from '../rights/child-scope.ts';
import type { Inventory } from '../store/inventory.ts';

export interface ClaimsParts {
  readonly inventory: Pick<Inventory, 'get'>;
  /** Whether a device proves itself where it is attached. Rejects when nobody can tell. */
  readonly isThere: (record: DeviceRecord) => Promise<boolean>;
  readonly clock: Clock;
  readonly events: Events;
}

interface Claim {
  readonly child: string;
  /** Whether the device has proved itself where it is attached; undefined while it is asked. */
  isThere: boolean | undefined;
  at: Monotonic;
}

/** Devices of which a claim is remembered. The oldest is forgotten, and the device is asked once more. */
const limit = 256;
/** Devices that are asked at the same time: for one child; for all. */
const asked = { perChild: 4, all: 16 } as const;
/** Milliseconds that an answer counts. */
const countsFor = 60_000;

/**
 * Judges what child gateways say of devices that are attached elsewhere: to this gateway itself, or behind another child. A
 * device moves only when it is not there any more, as a question to the device shows. A child alone moves nothing.
 */
export class Claims {
  readonly #parts: ClaimsParts;
  readonly #claims = new BoundedMap<string, Claim>(limit);
  /** The child of each question under way. */
  readonly #asking: string[] = [];

  constructor(parts: ClaimsParts) {
    this.#parts = parts;
  }

  /**
   * Returns when the child may have the device. The child repeats its report when it may not yet.
   * @throws {PosternError} `unavailable` while the device is asked, `conflict` when it has proved itself where it is attached
   */
  judge(child: string, deviceId: string): void {
    const { inventory, clock } = this.#parts;
    const record = inventory.get(deviceId);
    const holder = childIn(record);
    if (!record || holder === child || record.state === 'unreachable') return;
    if (holder !== undefined && inventory.get(holder)?.state === 'unreachable') return;
    const known = this.#claims.get(deviceId);
    if (known?.child === child && (known.isThere === undefined || clock.now() - known.at < countsFor)) {
      if (known.isThere === false) return;
      if (known.isThere)
        throw new PosternError(
          'conflict',
          `${deviceId} has proved itself ${placeOf(record)}, where it is attached`,
        );
    } else this.#ask(child, record);
    throw new PosternError(
      'unavailable',
      `${deviceId} is attached ${placeOf(record)}; it is asked whether it is there`,
    );
  }

  #ask(child: string, record: DeviceRecord): void {
    const ofChild = this.#asking.filter((each) => each === child).length;
    if (ofChild >= asked.perChild || this.#asking.length >= asked.all) return;
    const { isThere, clock, events } = this.#parts;
    const claim: Claim = { child, isThere: undefined, at: clock.now() };
    this.#claims.set(record.deviceId, claim);
    this.#asking.push(child);
    void background(events, 'presence', async () => {
      try {
        claim.isThere = await isThere(record).catch(() => true);
      } finally {
        claim.at = clock.now();
        this.#asking.splice(this.#asking.indexOf(child), 1);
      }
    });
  }
}

const placeOf = ({ via }: DeviceRecord): string => (via === undefined ? 'here' : `behind ${via}`);
