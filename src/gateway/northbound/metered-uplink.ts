import type { Socket } from 'node:net';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Envelope } from '../../wire/tunnel/envelope.ts';
import type { Octets } from '../store/traffic.ts';
import type { DataBudget, LimitedKind } from './data-budget.ts';
import type { Download, DownloadRequest, download } from './download.ts';
import type { Uplink, UplinkListener, UpRequest } from './uplink.ts';

/** The two ends of a session: the device, undefined for the gateway itself, and the DM server. And how a package came. */
type Ends = {
  readonly device?: string | undefined;
  readonly server?: string | undefined;
  readonly via?: string | undefined;
  readonly peer?: string | undefined;
  readonly traffic?: 'telemetry' | undefined;
};

/**
 * Milliseconds of silence after which packages no longer belong to what a DM server ordered, milliseconds after which they do
 * not in any case, and number of such sessions.
 */
const orders = { silence: 600_000, longest: 3_600_000, sessions: 4096 } as const;

interface Ordered {
  /** When the DM server asked for the session. */
  readonly since: Monotonic;
  /** When the session was last heard. */
  readonly heard: Monotonic;
  /** IP address that Package #0 went to. */
  readonly peer: string | undefined;
}

/**
 * Tells what the octets on the uplink are for. Packages that follow a Package #0 are orders. Others are alerts when they
 * are the gateway's own, and telemetry when a device began the session or the gateway reports values. The gateway cannot read packages of devices.
 * So a stranger may name a device that a DM server has asked for a session. Such packages count as telemetry if they come from
 * another address than that of Package #0, and all do after an hour.
 */
export class UplinkTraffic {
  readonly #budget: DataBudget;
  readonly #clock: Clock;
  /** Sessions that a DM server asked for. */
  readonly #ordered = new BoundedMap<string, Ordered>(orders.sessions);
  readonly #addressOf: (device: string) => string | undefined;
  /** When a DM server last asked for a session with the gateway itself. */
  #asked: Monotonic | undefined;

  /** @param addressOf IP address to which Package #0 for a device goes; undefined when it is not known */
  constructor(budget: DataBudget, clock: Clock, addressOf: (device: string) => string | undefined) {
    this.#budget = budget;
    this.#addressOf = addressOf;
    this.#clock = clock;
  }

  /** Whether a DM server has asked for a session with the gateway itself a short time ago. */
  get isAsked(): boolean {
    return this.#isRecent(this.#asked);
  }

  /**
   * Takes note that a DM server asks for a session. Returns what takes that back: Package #0 may turn out to be refused.
   */
  ordered(ends: Ends): () => void {
    const key = keyOf(ends);
    const [before, askedBefore] = [this.#ordered.get(key), this.#asked];
    const now = this.#clock.now();
    const { device } = ends;
    const peer = device === undefined ? undefined : this.#addressOf(device);
    this.#ordered.set(key, { since: now, heard: now, peer });
    if (device === undefined) this.#asked = now;
    return () => {
      if (before === undefined) this.#ordered.delete(key);
      else this.#ordered.set(key, before);
      this.#asked = askedBefore;
    };
  }

  kindOf(ends: Ends): LimitedKind {
    if (ends.traffic) return ends.traffic;
    if (this.#isOrdered(ends)) return 'orders';
    return ends.device === undefined ? 'alerts' : 'telemetry';
  }

  /** Counts the octets of a package. */
  moved(ends: Ends, octets: Octets, kind = this.kindOf(ends)): void {
    this.#budget.book(kind, octets);
  }

  /** The DM server has answered a package. A session of a device that it asked for stays an order while that goes on. */
  answered(ends: Ends): void {
    const key = keyOf(ends);
    const ordered = this.#ordered.get(key);
    if (ordered && ends.device !== undefined && this.#isOrdered(ends))
      this.#ordered.set(key, { ...ordered, heard: this.#clock.now() });
  }

  #isOrdered(ends: Ends): boolean {
    const ordered = this.#ordered.get(keyOf(ends));
    if (!ordered || !this.#isRecent(ordered.heard)) return false;
    if (this.#clock.now() - ordered.since >= orders.longest) return false;
    // Package #0 for a device behind a child gateway goes to the child.
    const isComparable = ordered.peer !== undefined && ends.peer !== undefined && ends.via === undefined;
    return !isComparable || ordered.peer === ends.peer;
  }

  #isRecent(time: Monotonic | undefined): boolean {
    return time !== undefined && this.#clock.now() - time < orders.silence;
  }

  /** Counts the connection to the broker. */
  connected(socket: Socket): void {
    this.#budget.follow(socket, 'connection');
  }
}

const keyOf = ({ device = '', server = '' }: Ends): string => `${device} ${server}`;

/** An uplink that refuses what the data budget leaves no room for. */
export class MeteredUplink implements Uplink {
  readonly #inner: Uplink;
  readonly #budget: DataBudget;
  readonly #traffic: UplinkTraffic;

  constructor(inner: Uplink, budget: DataBudget, traffic: UplinkTraffic) {
    this.#inner = inner;
    this.#budget = budget;
    this.#traffic = traffic;
  }

  get connected(): boolean {
    return this.#inner.connected;
  }

  get description() {
    return this.#inner.description;
  }

  get largestBody(): number {
    return this.#inner.largestBody;
  }

  /**
   * Whether sessions of the gateway itself may begin. A session that a DM server asks for always may: in it the server can
   * raise the budget.
   */
  get reports(): boolean {
    return this.#inner.connected && (this.#traffic.isAsked || this.#budget.allows('alerts'));
  }

  start(listener: UplinkListener): void {
    this.#budget.start();
    this.#inner.start({
      ...listener,
      notified: async (device, server, package0) => {
        if (device !== undefined) this.#budget.demand('orders');
        const takeBack = this.#traffic.ordered({ device, server });
        try {
          return await listener.notified(device, server, package0);
        } catch (thrown) {
          takeBack();
          throw thrown;
        }
      },
    });
  }

  async request(request: UpRequest): Promise<Envelope> {
    const kind = this.#traffic.kindOf(request);
    if (request.device !== undefined || kind !== 'orders') this.#budget.demand(kind);
    return await this.#inner.request(request);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
    await this.#budget[Symbol.asyncDispose]();
  }
}

/** Downloads that wait while the data budget leaves no room for images. What was received stays, and is resumed from there. */
export function meteredDownload(inner: typeof download, budget: DataBudget): typeof download {
  return async (wanted: DownloadRequest): Promise<Download> => {
    await budget.granted('images', wanted.signal);
    const found = await inner({ ...wanted, connected: (socket) => budget.follow(socket, 'images') });
    return { ...found, body: whileAllowed(found.body, budget) };
  };
}

async function* whileAllowed(
  body: AsyncIterable<Uint8Array>,
  budget: DataBudget,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    yield chunk;
    if (!budget.allows('images'))
      throw new PosternError('unavailable', 'the data budget of the uplink leaves no room for images');
  }
}
