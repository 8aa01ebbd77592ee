import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Monotonic, Wall } from '../base/clock.ts';
import type { Events } from '../base/events.ts';
import type { GatewayState } from '../wire/tunnel/gateway-state.ts';

/** Gateways whose boots are remembered, and boots of each. The oldest are forgotten. */
export const cloneLimits = { gateways: 65_536, boots: 4 } as const;
/** Milliseconds without a sign of a second board, after which there is none. */
const quiet = 3_600_000;

interface Boots {
  /** Boot IDs in hexadecimal, the latest last. */
  readonly known: readonly string[];
  readonly seen?: { readonly at: Monotonic; readonly wall: Wall };
}

/**
 * Notices two boards of one name. Each start of a gateway has a new boot ID. So a boot ID that comes again after another one
 * belongs to a board that still runs beside the other. Nobody can tell which of them is the right one.
 */
export class CloneWatch {
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #gateways = new BoundedMap<string, Boots>(cloneLimits.gateways);

  constructor({ clock, events }: { readonly clock: Clock; readonly events: Events }) {
    this.#clock = clock;
    this.#events = events;
  }

  /** Takes a state that a gateway has just published: neither a retained one nor a repetition. */
  heard(gateway: string, { online, bootId }: GatewayState): void {
    // The Last Will of an earlier start comes late.
    if (!online) return;
    const boot = Buffer.from(bootId).toString('hex');
    const { known, seen } = this.#gateways.get(gateway) ?? { known: [] };
    if (known.at(-1) === boot) return;
    const isBack = known.includes(boot);
    const wasCloned = this.clonedAt(gateway) !== undefined;
    const boots = [...known.filter((one) => one !== boot), boot].slice(-cloneLimits.boots);
    const now = isBack ? { at: this.#clock.now(), wall: this.#clock.wall() } : seen;
    this.#gateways.set(gateway, { known: boots, ...(now && { seen: now }) });
    const reason = `the starts ${known.at(-1)} and ${boot} of it take turns`;
    if (isBack && !wasCloned) this.#events.emit('gateway.cloned', { gateway, reason });
  }

  /** A board that was replaced is there again, beside the one that has its name. */
  returned(gateway: string, key: string): void {
    const wasCloned = this.clonedAt(gateway) !== undefined;
    const { known } = this.#gateways.get(gateway) ?? { known: [] };
    this.#gateways.set(gateway, { known, seen: { at: this.#clock.now(), wall: this.#clock.wall() } });
    const reason = `the board with the key ${key}, which was replaced, asks for the name again`;
    if (!wasCloned) this.#events.emit('gateway.cloned', { gateway, reason });
  }

  /** When two boards were last seen under a name. Undefined when they were not within an hour. */
  clonedAt(gateway: string): Wall | undefined {
    const seen = this.#gateways.get(gateway)?.seen;
    return seen && this.#clock.now() - seen.at < quiet ? seen.wall : undefined;
  }
}
