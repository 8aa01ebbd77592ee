import { guarded } from '../../base/background.ts';
import { type Clock, type Monotonic, plus, type Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { CoapAnswer } from '../../wire/coap/blockwise-client.ts';
import { codeText, isSuccess } from '../../wire/coap/codes.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { Observation } from '../../wire/coap/observation.ts';
import { hasOption, Option, uintOption } from '../../wire/coap/options.ts';
import { decodeContent } from '../../wire/lwm2m/content.ts';
import { isBelow, type Path, pathText } from '../../wire/lwm2m/path.ts';
import type { Registration } from '../store/registrations.ts';
import type { LwM2mReporting } from './lwm2m-reporting.ts';
import { NotificationFloor } from './notification-floor.ts';
import {
  type ObservationAttributes,
  type ObservationState,
  type ObservationWish,
  observationBounds,
  type ReportedValue,
} from './observer.ts';
import { attributesText, type Wish, wishOf } from './observer-wishes.ts';
import { reportedValues } from './reported-values.ts';

export interface ObservedClientParts {
  readonly reporting: LwM2mReporting;
  readonly values: (name: string, values: readonly ReportedValue[]) => void;
  /** Called when a notification came, which proves where the client is. */
  readonly heard: (from: Remote) => void;
  /** Called when there is work again that waits for nothing but time. */
  readonly due: () => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** One observation at the client: of one path, or of all paths of a wish. */
interface Relation {
  readonly name: string;
  readonly paths: readonly Path[];
  readonly isComposite: boolean;
  readonly observation: Observation;
  lastAt: Monotonic;
}

/** A notification, and when it came in milliseconds since 1970. */
interface Arrived {
  readonly answer: CoapAnswer;
  readonly at: number;
}

/**
 * Milliseconds until a client that did not answer is tried again, doubled each time, up to the last one; and until it is tried again at
 * a message of its own.
 */
const retryAfter = { first: 60_000, most: 3_600_000, heard: 10_000 } as const;
/** Milliseconds beyond `pmax` after which an observation is taken for lost. */
const lateness = 60_000;

/**
 * What is observed of one LwM2M client. `settle` brings it to what is wished: it sets conditions, observes, and cancels. After a
 * new registration the client has forgotten all, so all is set up anew; what an earlier observation still sends gets a Reset.
 */
export class ObservedClient {
  readonly #device: string;
  readonly #parts: ObservedClientParts;
  readonly #floor: NotificationFloor<Arrived>;
  readonly #relations = new Map<string, Relation>();
  /** Relations that are not wished any more. */
  readonly #leaving: Relation[] = [];
  /** Conditions that were set, by path. */
  readonly #attributes = new Map<string, ObservationAttributes>();
  #wishes = new Map<string, Wish>();
  /** Registration and address under which all is set up. */
  #place = '';
  #objects = '';
  /** The client has refused composite operations. */
  #isSingle = false;
  #failures = 0;
  #retry: Timer | undefined;
  #notBefore = 0;

  constructor(device: string, parts: ObservedClientParts) {
    this.#device = device;
    this.#parts = parts;
    const { clock, events } = parts;
    this.#floor = new NotificationFloor({
      clock,
      passed: (key, arrived) => this.#report(key, arrived),
      exceeded: () => events.emit('observation.flood', { device }),
    });
  }

  /** Whether nothing is wished and nothing is left to cancel. */
  get isIdle(): boolean {
    return this.#wishes.size === 0 && this.#leaving.length === 0;
  }

  wish(wishes: readonly ObservationWish[]): void {
    const before = this.#wishes;
    const held = new Map<string, string>();
    let paths = 0;
    this.#wishes = new Map(
      wishes.map((wish) => {
        const known = before.get(wish.name);
        paths += wish.paths.length;
        const made = wishOf(wish, paths, held);
        const isSame =
          JSON.stringify([known?.wish, known?.fault]) === JSON.stringify([made.wish, made.fault]);
        return [wish.name, known && isSame ? known : made];
      }),
    );
    for (const [key, relation] of this.#relations) {
      const { name } = relation;
      if (this.#wishes.get(name) === before.get(name)) continue;
      this.#relations.delete(key);
      this.#floor.drop(key);
      // What is being asked for is taken back when the answer comes.
      if (relation.observation.isActive) this.#leave(relation);
    }
    this.#floor.observe(this.#periods());
  }

  stateOf(name: string): ObservationState | undefined {
    const wish = this.#wishes.get(name);
    if (!wish) return undefined;
    const reason = wish.fault ?? [...wish.refused].map(([path, why]) => `${path}: ${why}`).join('; ');
    if (reason !== '') return { state: 'refused', reason };
    const isAsked = this.#relations.values().some((each) => each.name === name && !each.observation.isActive);
    return { state: isAsked || this.#isOpen(name, wish) ? 'waiting' : 'observing' };
  }

  /**
   * Whether `settle` would do something for this registration of the client. A client that did not answer is not tried again at each
   * message of it.
   */
  isDue(client: Registration): boolean {
    if (placeOf(client) !== this.#place || objectsOf(client) !== this.#objects) return true;
    if (this.#retry && this.#parts.clock.now() < this.#notBefore) return false;
    this.#dropSilent();
    return this.#leaving.length > 0 || [...this.#wishes].some(([name, wish]) => this.#isOpen(name, wish));
  }

  /** Forgets what is set up: the client has left. Its wishes wait. */
  left(): void {
    for (const { observation } of this.#relations.values()) observation.end();
    this.#relations.clear();
    this.#leaving.length = 0;
    this.#attributes.clear();
    this.#floor.drop();
    this.#place = '';
    this.#failures = 0;
    this.#cancelRetry();
  }

  /** Brings the client to what is wished. Rejects when the client does not answer; then it is tried again after a while. */
  async settle(client: Registration, signal: AbortSignal): Promise<void> {
    if (placeOf(client) !== this.#place) {
      this.left();
      this.#place = placeOf(client);
      this.#isSingle = client.version === '1.0';
      this.#objects = '';
    }
    if (objectsOf(client) !== this.#objects) {
      this.#objects = objectsOf(client);
      for (const { refused } of this.#wishes.values()) refused.clear();
    }
    this.#cancelRetry();
    try {
      await this.#parts.reporting.assure(client, signal);
      await this.#cancelLeft(client, signal);
      for (const [name, wish] of this.#wishes)
        if (this.#isOpen(name, wish)) await this.#observe(client, name, wish, signal);
      this.#failures = 0;
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      this.#retryLater();
      const { message: reason } = asPosternError(thrown);
      this.#parts.events.emit('observation.waiting', { device: this.#device, reason });
    }
  }

  async #cancelLeft(client: Registration, signal: AbortSignal): Promise<void> {
    const { reporting } = this.#parts;
    for (let relation = this.#leaving[0]; relation; relation = this.#leaving[0]) {
      const { paths, observation, isComposite } = relation;
      try {
        await reporting.cancel(client, paths, observation, isComposite, signal);
      } catch (thrown) {
        // Without an answer the next notification gets a Reset, which ends it as well.
        if (asPosternError(thrown).code === 'timeout') throw thrown;
      }
      this.#leaving.shift();
    }
  }

  /** Paths of a wish that are not observed and not refused. */
  #missing(name: string, { paths, refused, fault }: Wish): readonly Path[] {
    if (fault !== undefined || this.#relations.has(name)) return [];
    return paths.filter((path) => {
      const at = pathText(path);
      return !refused.has(at) && !this.#relations.has(`${name} ${at}`);
    });
  }

  #isOpen(name: string, wish: Wish): boolean {
    return this.#missing(name, wish).length > 0;
  }

  async #observe(client: Registration, name: string, wish: Wish, signal: AbortSignal): Promise<void> {
    const isWanted = () => this.#wishes.get(name) === wish;
    for (const path of this.#missing(name, wish)) {
      await this.#attempt(wish, path, () => this.#condition(client, wish, path, signal));
      if (!isWanted()) return;
    }
    const paths = this.#missing(name, wish);
    if (paths.length > 1 && !this.#isSingle && paths.length === wish.paths.length) {
      const isDone = await this.#attempt(wish, undefined, () =>
        this.#relate(name, name, paths, true, (observation) =>
          this.#parts.reporting.observeComposite(client, paths, observation, signal),
        ),
      );
      if (!isWanted() || isDone) return;
      this.#isSingle = true;
    }
    for (const path of paths) {
      await this.#attempt(wish, path, () =>
        this.#relate(`${name} ${pathText(path)}`, name, [path], false, (observation) =>
          this.#parts.reporting.observe(client, path, observation, signal),
        ),
      );
      if (!isWanted()) return;
    }
  }

  async #condition(client: Registration, { wish }: Wish, path: Path, signal: AbortSignal): Promise<boolean> {
    const at = pathText(path);
    const before = this.#attributes.get(at) ?? {};
    if (attributesText(before) === attributesText(wish.attributes)) return true;
    await this.#parts.reporting.writeAttributes(client, path, wish.attributes, before, signal);
    this.#attributes.set(at, wish.attributes);
    return true;
  }

  /**
   * Does one step, and notes what the client refuses. A composite that fails is tried path by path.
   * @throws {PosternError} when the client does not answer, or the gateway has no room
   */
  async #attempt(wish: Wish, path: Path | undefined, step: () => Promise<boolean>): Promise<boolean> {
    try {
      return await step();
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code === 'timeout' || code === 'unavailable' || code === 'full' || code === 'storage') throw thrown;
      if (path) wish.refused.set(pathText(path), message);
      return false;
    }
  }

  async #relate(
    key: string,
    name: string,
    paths: readonly Path[],
    isComposite: boolean,
    ask: (observation: Observation) => Promise<CoapAnswer | undefined>,
  ): Promise<boolean> {
    const { clock, entropy, events, heard } = this.#parts;
    const wish = this.#wishes.get(name);
    const observation: Observation = new Observation({
      token: entropy.bytes(8),
      notified: guarded(events, 'telemetry', (answer: CoapAnswer, from: Remote) => {
        relation.lastAt = clock.now();
        const isWished = this.#wishes.get(name) === wish;
        if (isWished && this.#floor.take(key, { answer, at: clock.wall() })) heard(from);
      }),
      ended: (answer) => this.#ended(key, relation, answer),
    });
    const relation: Relation = { name, paths, isComposite, observation, lastAt: clock.now() };
    // The first value comes before the answer does.
    this.#relations.set(key, relation);
    let answer: CoapAnswer | undefined;
    try {
      answer = await ask(observation);
    } finally {
      if (!observation.isActive && this.#relations.get(key) === relation) this.#relations.delete(key);
    }
    if (answer === undefined) return false;
    if (observation.isActive && this.#relations.get(key) !== relation) {
      // It is not wished any more, or the client has left, since it was asked for.
      this.#leave(relation);
    } else if (!observation.isActive && hasOption(answer.options, Option.Observe))
      throw new PosternError('full', 'no room for a further observation, or it has ended at once');
    else if (!observation.isActive)
      throw new PosternError('notAllowed', 'the client answers, but does not observe');
    return true;
  }

  #leave(relation: Relation): void {
    relation.observation.end();
    this.#leaving.push(relation);
    // The oldest get a Reset to their next notification.
    if (this.#leaving.length > observationBounds.paths) this.#leaving.shift();
  }

  /** The client has ended an observation, or nothing can come of it any more. */
  #ended(key: string, relation: Relation, answer: { readonly code: number } | undefined): void {
    if (this.#relations.get(key) !== relation) return;
    this.#relations.delete(key);
    const wish = this.#wishes.get(relation.name);
    const isError = answer !== undefined && !isSuccess(answer.code) && answer.code >> 5 === 4;
    if (isError && wish)
      for (const path of relation.paths)
        wish.refused.set(pathText(path), `the client ended it with ${codeText(answer.code)}`);
    else this.#retryLater();
  }

  /** Gives up observations of which nothing came for longer than `pmax`: the client may have lost them. */
  #dropSilent(): void {
    const now = this.#parts.clock.now();
    for (const [key, { name, observation, lastAt }] of this.#relations) {
      const { pmax } = this.#wishes.get(name)?.wish.attributes ?? {};
      if (pmax === undefined || now - lastAt <= pmax * 1000 + lateness) continue;
      observation.end();
      this.#relations.delete(key);
      this.#floor.drop(key);
    }
  }

  #report(key: string, { answer: { options, payload }, at }: Arrived): void {
    const relation = this.#relations.get(key);
    if (!relation) return;
    const { name, paths, isComposite } = relation;
    const { values, events } = this.#parts;
    const base = isComposite ? [] : (paths[0] ?? []);
    try {
      const entries = decodeContent(uintOption(options, Option.ContentFormat), payload, base, true);
      const isForeign = entries.some((entry) => !paths.some((path) => isBelow(entry.path, path)));
      if (isForeign) throw new PosternError('malformed', 'a value of a path that is not observed');
      values(name, reportedValues(entries, at));
    } catch (thrown) {
      const { message: reason } = asPosternError(thrown);
      events.emit('observation.unreadable', { device: this.#device, reason });
    }
  }

  #periods(): readonly (number | undefined)[] {
    return [...this.#wishes.values()].flatMap(({ wish, paths }) => paths.map(() => wish.attributes.pmin));
  }

  #retryLater(): void {
    const { clock } = this.#parts;
    const delay = Math.min(retryAfter.most, retryAfter.first * 2 ** Math.min(this.#failures++, 10));
    this.#notBefore = plus(clock.now(), retryAfter.heard);
    this.#retry ??= clock.after(delay, () => {
      this.#retry = undefined;
      this.#parts.due();
    });
  }

  #cancelRetry(): void {
    this.#retry?.cancel();
    this.#retry = undefined;
  }
}

const placeOf = ({ location, address, port }: Registration): string => `${location} ${address} ${port}`;
const objectsOf = ({ paths }: Registration): string => paths.map(pathText).join();
