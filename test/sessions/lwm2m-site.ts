import { createHash } from 'node:crypto';
import { parse } from 'coap-packet';
import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Sealing } from '../../src/base/sealing.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { AdaptationMode } from '../../src/gateway/modes/adaptation.ts';
import { imageResource, type ServedImage } from '../../src/gateway/southbound/image-resource.ts';
import { ImageTickets } from '../../src/gateway/southbound/image-tickets.ts';
import { LwM2mBootstrapServer } from '../../src/gateway/southbound/lwm2m-bootstrap-server.ts';
import { LwM2mCalls } from '../../src/gateway/southbound/lwm2m-calls.ts';
import { LwM2mObserver } from '../../src/gateway/southbound/lwm2m-observer.ts';
import { LwM2mReporting } from '../../src/gateway/southbound/lwm2m-reporting.ts';
import type { ObservationWish, ReportedValue } from '../../src/gateway/southbound/observer.ts';
import { RegistrationServer } from '../../src/gateway/southbound/registration-server.ts';
import { sendResource } from '../../src/gateway/southbound/send-resource.ts';
import { ClientUpdates } from '../../src/gateway/store/client-updates.ts';
import { DeviceKeys } from '../../src/gateway/store/device-keys.ts';
import { Registrations } from '../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { Router } from '../../src/wire/coap/router.ts';
import { HandClock } from '../hand-clock.ts';
import type { Dice } from '../peers/stock/dice.ts';
import { Lwm2mClient } from '../peers/stock/lwm2m-client.ts';
import type { Lwm2mHabits } from '../peers/stock/lwm2m-habits.ts';
import type { Held } from '../peers/stock/lwm2m-values.ts';
import { turn } from '../wire/coap/wire.ts';

export const name = 'urn:dev:stock';
/** Registration lifetime in seconds that a bootstrap gives. */
export const givenLifetime = 4321;
const host = '192.0.2.7';
/** Turns in which datagrams and promises settle before the clock moves. */
const turns = 12;

/** A gateway's LwM2M side with one client, without sockets, on a clock that is moved by hand. */
export class Lwm2mSite implements AsyncDisposable {
  readonly clock = new HandClock();
  readonly client: Lwm2mClient;
  /** Results of firmware updates. */
  readonly results: number[] = [];
  /** What the client has told of observations, by wish, and unasked. */
  readonly reported: { readonly wish: string | undefined; readonly values: readonly ReportedValue[] }[] = [];
  readonly bytes: Buffer;
  readonly #dice: Dice;
  readonly #hash: string;
  readonly #image: ServedImage;
  readonly #trace: ((line: string) => void) | undefined;
  /** What outlives a restart of the gateway. */
  readonly #database = openDatabase(':memory:', gatewaySchema);
  isAttached = false;
  #gateway: ReturnType<Lwm2mSite['start']>;

  constructor(
    habits: Lwm2mHabits,
    dice: Dice,
    values: ReadonlyMap<string, Held>,
    trace?: (line: string) => void,
  ) {
    this.#dice = dice;
    // An octet alone is a Reset of the update.
    this.bytes = dice.octets(dice.pick([2, 700, 5000]));
    this.#hash = createHash('sha256').update(this.bytes).digest('hex');
    this.#image = {
      size: this.bytes.length,
      hash: this.#hash,
      read: (from, length) => this.bytes.subarray(from, from + length),
    };
    this.#trace = trace;
    this.client = new Lwm2mClient({
      name,
      habits,
      dice,
      clock: this.clock,
      values,
      send: (from, datagram) => {
        this.#show('>', from, datagram);
        const { endpoint } = this.#gateway;
        setImmediate(() => endpoint.receive(datagram, host, from));
      },
    });
    this.#gateway = this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.finish(Promise.all([this.client.stop(), this.#gateway.stop()]));
  }

  /** The gateway loses its power and begins anew, with its state. */
  async restart(): Promise<void> {
    await this.#gateway.stop();
    this.#gateway = this.start();
    this.#gateway.mode.resume([]);
  }

  /** As `AdaptedDevices.manage`, with time for a client that sleeps. */
  async manage(operations: readonly Operation[]) {
    return await this.#gateway.mode.manage(name, operations, { timeout: 600_000, patience: 600_000 });
  }

  wish(wishes: readonly ObservationWish[]): void {
    this.#gateway.observer.wish(name, wishes);
  }

  stateOf(wish: string) {
    return this.#gateway.observer.stateOf(name, wish);
  }

  /** Whether the registration that the client believes in is the one that the gateway has. */
  get agreesOnRegistration(): boolean {
    const { location } = this.client;
    return this.isAttached && this.#gateway.registrations.get(name)?.location === location;
  }

  /** A URI of the image for the client. */
  get uri(): string {
    return `coap://192.0.2.1${this.#gateway.tickets.pathFor(name, 'fw', this.#hash)}`;
  }

  /** Moves the clock until the work is done. */
  async finish<T>(work: Promise<T>): Promise<T | 'never'> {
    let isDone = false;
    const watched = work.finally(() => {
      isDone = true;
    });
    watched.catch(() => {});
    for (let at = 0; !isDone && at < 8000; at++) {
      for (let each = 0; each < turns && !isDone; each++) await turn();
      if (!isDone) this.clock.advance(Math.max(1, Math.min(this.clock.next ?? 1000, 30_000)));
    }
    return isDone ? await watched : 'never';
  }

  /** Moves the clock by so many milliseconds, with turns for what falls due. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.clock.now() + milliseconds;
    while (this.clock.now() < end) {
      for (let each = 0; each < turns; each++) await turn();
      const left = end - this.clock.now();
      this.clock.advance(Math.max(1, Math.min(this.clock.next ?? left, left)));
    }
    for (let each = 0; each < turns; each++) await turn();
  }

  /** Moves the clock until this holds, for so many seconds at most. Returns whether it does. */
  async until(isReached: () => boolean, seconds = 4000): Promise<boolean> {
    for (let at = 0; at < seconds && !isReached(); at++) await this.pass(1000);
    return isReached();
  }

  #show(direction: string, port: number, datagram: Buffer): void {
    this.#trace?.(`${Number(this.clock.now())} ${direction} ${port} ${lineOf(datagram)}`);
  }

  /** The parts of the gateway. All of it but the database is new after a restart. */
  protected start() {
    const clock = this.clock;
    const entropy = seededEntropy(this.#dice.between(1, 1e6));
    const events = noEvents;
    const isAttached = () => this.isAttached;
    const registrations = new Registrations(this.#database, 4);
    const sealing = new Sealing(new Uint8Array(32), entropy);
    let lastHeard = clock.now();
    let isOn = true;
    const clientOf = () => (isAttached() ? registrations.get(name) : undefined);
    const tickets = new ImageTickets({
      sealing,
      start: 1,
      devices: { named: () => ({ deviceId: name }) as never },
      ready: () => this.#image,
      clock,
    });
    const endpoint = new CoapEndpoint({
      clock,
      entropy,
      events,
      handler: (request) => blockwise.handle(request),
      send: (datagram, port) => {
        if (!isOn) return;
        this.#show('<', port, datagram);
        setImmediate(() => this.client.receive(port, datagram));
      },
    });
    const transport = (address: string, port: number, request: Parameters<typeof call>[4]) =>
      call(endpoint, entropy, address, port, request);
    const calls = new LwM2mCalls(transport);
    const values = (_: string, wish: string | undefined, found: readonly ReportedValue[]) => {
      this.reported.push({ wish, values: found });
    };
    const mode: AdaptationMode = new AdaptationMode({
      clientOf,
      lastHeard: () => lastHeard,
      isThere: async (_id, since, signal) => {
        const registration = registrations.get(name);
        if (lastHeard >= since || !registration) return lastHeard >= since;
        return await calls.execute(registration, [1, 0, 8], '', signal).then(
          () => true,
          () => false,
        );
      },
      calls,
      updated: (_id, _correlator, result) => this.results.push(result),
      succeeded: () => {},
      httpUriOf: () => undefined,
      updates: new ClientUpdates(this.#database),
      imageAt: (_id, uri) =>
        tickets.holderOf(new URL(uri).pathname + new URL(uri).search) ? this.#image : undefined,
      clock,
      events,
    });
    const observer: LwM2mObserver = new LwM2mObserver({
      clientOf,
      arrivals: { hasCome: (_id, _peer, since) => lastHeard >= since },
      reporting: new LwM2mReporting(calls),
      values,
      heard: () => heard(),
      clock,
      entropy,
      events,
    });
    const heard = () => {
      lastHeard = clock.now();
      if (!isAttached()) return;
      mode.heard(name);
      observer.heard(name);
    };
    const server = new RegistrationServer({
      registrations,
      calls,
      isAllowed: () => true,
      isJoined: () => false,
      isServed: () => true,
      isAttached,
      deviceAt: () => (isAttached() ? name : undefined),
      isOther: () => false,
      livesElsewhere: async () => false,
      originOf: () => 'local',
      attached: () => {
        this.isAttached = true;
        heard();
      },
      left: () => {
        this.isAttached = false;
        mode.detached(name);
        observer.detached(name);
      },
      heard,
      clock,
      entropy,
      events,
    });
    const bootstrap = new LwM2mBootstrapServer({
      isAllowed: () => true,
      isJoined: () => false,
      call: transport,
      calls,
      lifetime: givenLifetime,
      keys: new DeviceKeys(this.#database, sealing),
      isForOscore: () => false,
      oscoreUri: () => '',
      tryDisk: () => {},
      entropy,
      clock,
      events,
    });
    const send = sendResource({
      senderOf: (remote) => server.senderOf(remote),
      isAwaited: (remote) => server.isAwaited(remote),
      values,
      heard,
      clock,
      events,
    });
    const local = {
      address: '192.0.2.1',
      port: 5683,
      bound: '192.0.2.1',
      scheme: 'coap',
      endpoint: () => endpoint,
    } as never;
    const image = imageResource(
      (each) => (each === 'fw' ? this.#image : undefined),
      (request) => tickets.deviceOf(request) !== undefined,
    );
    const router = new Router([...server.resources(local), ...bootstrap.resources(local), send, image]);
    const blockwise = new Blockwise(router.handle, clock);
    const stop = async () => {
      isOn = false;
      const disposed = [observer, mode, server, bootstrap].map((each) => each[Symbol.asyncDispose]());
      endpoint.stop();
      await Promise.all(disposed);
    };
    return { endpoint, mode, observer, registrations, tickets, stop };
  }
}

/** A datagram as a line: type, code, message ID, token, options and the beginning of the payload. */
function lineOf(datagram: Buffer): string {
  const { ack, reset, confirmable, code, messageId, token, options, payload } = parse(datagram);
  const kind = ack ? 'ACK' : reset ? 'RST' : confirmable ? 'CON' : 'NON';
  const shown = options.map(
    ({ name: option, value }) =>
      `${option}=${/^Uri|^Location/.test(String(option)) ? value : value.toString('hex')}`,
  );
  const text = payload.subarray(0, 60).toString('latin1');
  return `${kind} ${code} ${messageId} ${token.toString('hex')} ${shown.join(' ')} ${text}`;
}
