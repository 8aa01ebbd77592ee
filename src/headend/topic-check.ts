import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import type { MqttLink } from '../wire/tunnel/mqtt-link.ts';
import { OwnEcho } from '../wire/tunnel/own-echo.ts';
import { checkTopics, type UpTopic } from '../wire/tunnel/topics.ts';

export interface TopicCheckParts {
  readonly route: string;
  readonly group?: string | undefined;
  readonly link: () => Pick<MqttLink, 'connected' | 'protocol' | 'refused' | 'isGranted' | 'publish'>;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Milliseconds between two checks. The broker's rules may change while the connection stays. */
const checkEvery = 300_000;

/**
 * Checks that the broker lets this head-end read what gateways publish, and publish to them: on topics of a gateway that cannot be.
 * Once after each connect, and every five minutes. A real message counts as well, so rules that allow no more than the topics of
 * gateways are no refusal where gateways are at work.
 */
export class TopicCheck {
  /** By topic of the message. */
  readonly #echoes: ReadonlyMap<string, OwnEcho>;
  /** Tells the messages of this process from those of other workers and servers. */
  readonly #mark: Buffer;
  readonly #route: string;

  constructor({ route, group, link, clock, entropy, events }: TopicCheckParts) {
    const mark = Buffer.from(entropy.bytes(12));
    const echo = (topic: string, filter: string, isTrial: boolean) => {
      const about = topic.replace('~', '+');
      const publish = () => link().publish({ topic, payload: mark, isTrial });
      // Over MQTT 5 the acknowledgement says that a message is allowed. The right to read such a topic is then not needed.
      const published = (failure: unknown) => {
        if (topic === down && failure === undefined && link().protocol === 5) this.#echoes.get(topic)?.seen();
      };
      const parts = { about, filter, link, publish, published, every: checkEvery, clock, events };
      return [topic, new OwnEcho(parts)] as const;
    };
    const { up, down, state, upRoute } = checkTopics;
    this.#mark = mark;
    this.#route = route;
    this.#echoes = new Map([
      // A shared subscription gives the message to any worker.
      ...(group === undefined ? [echo(up, 'dm/+/up', true)] : []),
      echo(upRoute(route), `dm/+/up/${route}`, true),
      echo(state, 'dm/+/state', true),
      echo(down, down, false),
    ]);
  }

  /** Filter of a subscription that only the check needs. */
  static readonly watch = checkTopics.down;

  connected(): void {
    for (const echo of this.#echoes.values()) echo.again();
  }

  disconnected(): void {
    for (const echo of this.#echoes.values()) echo.disconnected();
  }

  /** Takes a message on a topic of the check, of this process or another one. Returns false for any other topic. */
  takes(topic: string, payload: Buffer): boolean {
    if (!topic.startsWith(checkPrefix)) return false;
    if (payload.equals(this.#mark)) this.#echoes.get(topic)?.seen();
    return true;
  }

  /** A message of a gateway has come. */
  heard({ what, route }: UpTopic): void {
    const { up, state, upRoute } = checkTopics;
    const topic = what === 'state' ? state : route === undefined ? up : upRoute(this.#route);
    this.#echoes.get(topic)?.heard();
  }

  /** A gateway has done what this head-end sent it. */
  wasHeard(): void {
    this.#echoes.get(checkTopics.down)?.heard();
  }
}

const checkPrefix = 'dm/~/';
