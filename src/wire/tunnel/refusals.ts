import type { Events } from '../../base/events.ts';

/** What the broker's access rules may refuse. `echo`: a message of this client on a topic that it has subscribed to. */
export type Access = 'publish' | 'subscribe' | 'echo';

const words: Readonly<Record<Access, string>> = {
  publish: 'may not publish on',
  subscribe: 'may not subscribe to',
  echo: 'may not publish or read',
};

/** Most refusals that are remembered. A client has fewer topics than that; the rest would be repetition. */
const bound = 16;

/**
 * What the broker's access rules refuse this client. Each refusal is an event once, however often the broker repeats it, and
 * so is its end.
 */
export class Refusals {
  readonly #events: Events;
  readonly #known = new Map<string, string>();

  constructor(events: Events) {
    this.#events = events;
  }

  /** The refusals in words, such as `may not subscribe to dm/gw-1/down: Not authorized (0x87)`. */
  get texts(): readonly string[] {
    return [...this.#known.values()];
  }

  add(access: Access, topic: string, reason: string): void {
    const key = `${access} ${topic}`;
    if (this.#known.has(key) || this.#known.size >= bound) return;
    this.#known.set(key, `${words[access]} ${topic}: ${reason}`);
    this.#events.emit('mqtt.refused', { access, topic, reason });
  }

  /** The broker allows it, or allows it again. */
  clear(access: Access, topic: string): void {
    if (this.#known.delete(`${access} ${topic}`)) this.#events.emit('mqtt.allowed', { access, topic });
  }
}
