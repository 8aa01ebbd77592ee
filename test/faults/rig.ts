import assert from 'node:assert/strict';
import { copyFileSync, cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { seededEntropy } from '../../src/base/entropy.ts';
import { asPosternError } from '../../src/base/errors.ts';
import { Device } from '../../src/device/device.ts';
import { LwM2mDevice } from '../../src/device/lwm2m-device.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { composeGateway, type GatewayParts } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { composeHeadend, type HeadendParts } from '../../src/headend/composition.ts';
import { Headend } from '../../src/headend/headend.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import {
  clientConfig,
  type DeviceKind,
  deviceConfig,
  gatewayConfig,
  headendConfig,
  loopback,
  secrets,
  type Toml,
} from '../journeys/site.ts';
import { LeapClock } from '../leap-clock.ts';
import { type Beliefs, deviceBeliefs, gatewayBeliefs, headendBeliefs } from './beliefs.ts';
import { abandon, unwatched, type Watched, watch } from './failing-storage.ts';

/** How many times faster than real time the parties live: they wait a second and more before they try again. */
const rate = 20;
/** How often a supervisor starts a party, or an operator gives an order, until it is given up. */
const attempts = 8;

/** A party that runs, with a way to ask what it believes and what a fresh start from its file would believe. */
interface Running {
  readonly file: string;
  readonly beliefs: () => Beliefs;
  readonly fresh: (folder: string) => Promise<Beliefs>;
  readonly stop: () => Promise<void>;
}

/** The trees that are made while `make` runs. A device keeps its tree to itself. */
function withTree<T>(make: () => T): [T, ManagementTree] {
  const trees: ManagementTree[] = [];
  const { mount } = ManagementTree.prototype;
  ManagementTree.prototype.mount = function mounted(this: ManagementTree, ...args: Parameters<typeof mount>) {
    trees.push(this);
    mount.apply(this, args);
  };
  try {
    const made = make();
    return [made, trees[0]!];
  } finally {
    ManagementTree.prototype.mount = mount;
  }
}

/** Copies a state file as it is at this moment, with what belongs to it. */
function copyState(from: string, to: string): void {
  unwatched(() => {
    using raw = new DatabaseSync(from);
    raw.exec(`VACUUM INTO '${to}'`);
    copyFileSync(`${from}.lock`, `${to}.lock`);
    if (existsSync(`${from}.key`)) copyFileSync(`${from}.key`, `${to}.key`);
    const images = `${from}.images`;
    if (existsSync(images)) cpSync(images, `${to}.images`, { recursive: true });
  });
}

const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

/**
 * The parties of one journey, each with its state in a file. They behave as in the field: a supervisor starts a party again
 * that could not start, devices and gateways repeat what failed, and an operator gives an order again that was refused.
 */
export class Rig implements AsyncDisposable {
  readonly clock = new LeapClock(rate, () => this.#note());
  readonly gatewayEvents = new EventRecorder();
  readonly headendEvents = new EventRecorder();
  readonly deviceEvents = new EventRecorder();
  readonly #folder: string;
  readonly #brokerUrl: string;
  readonly #running = new Map<string, Running>();
  readonly #others: AsyncDisposable[] = [];
  readonly #compared: Promise<void>[] = [];
  /** How many writes of a party belong to its first start, by party. */
  readonly startPlaces = new Map<string, number>();
  readonly #watched = new Map<string, Watched>();
  #copies = 0;
  #next = Promise.withResolvers<void>();

  constructor(folder: string, brokerUrl: string) {
    this.#folder = folder;
    this.#brokerUrl = brokerUrl;
    mkdirSync(folder, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#compared);
    for (const other of this.#others.reverse()) await inTime('the client', other[Symbol.asyncDispose]());
    for (const [name, { stop }] of [...this.#running].reverse()) await inTime(name, stop());
    this.clock.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Path with which the names of all files of a party begin. */
  fileOf(name: string): string {
    return join(this.#folder, `${name.replaceAll(':', '-')}.db`);
  }

  /** Lets one write of a party fail. What the party believes is compared at once, with what is in its file. */
  watch(name: string, failAt: number | undefined, endsTransaction: boolean): Watched {
    const watching = watch(this.fileOf(name), failAt, endsTransaction);
    this.#watched.set(name, watching);
    watching.onWrite = () => this.#note();
    watching.onFailed = () => {
      const compared = this.#compareSoon(name);
      compared.catch(() => {});
      this.#compared.push(compared);
    };
    return watching;
  }

  /** Starts the DM server, with accounts for the gateways `gw-1` to `gw-3`. */
  async headend(deviceIds: readonly string[] = []): Promise<Headend> {
    const file = this.fileOf('headend');
    const config = (state: string) =>
      headendConfig(this.#brokerUrl, deviceIds, {
        headend: { id: 'dm.example', state, 'session-timeout': 60 },
        gateway: ['gw-1', 'gw-2', 'gw-3'].map(party),
      });
    const { clock, headendEvents: events } = this;
    const headend = await this.#start('headend', async () => {
      const parts = composeHeadend(config(file), { events, clock, entropy: seededEntropy(1) });
      const made = new Headend(config(file), { events, clock }, parts);
      this.#running.set('headend', {
        file,
        beliefs: () => unwatched(() => headendBeliefs(parts)),
        fresh: async (state) => await freshHeadend(config(state)),
        stop: () => made[Symbol.asyncDispose](),
      });
      return made;
    });
    headend.start();
    await events.until('mqtt.connected');
    return headend;
  }

  /**
   * Starts a gateway. It may be one that was stopped before.
   * @param factoryIds devices that it may bootstrap
   * @param changes tables of the configuration to be replaced
   */
  async gateway(name: string, factoryIds: readonly string[], changes: Toml = {}): Promise<Gateway> {
    const file = this.fileOf(name);
    const config = (state: string) =>
      gatewayConfig(this.#brokerUrl, factoryIds, {
        gateway: { id: name, state },
        images: { directory: `${state}.images` },
        ...changes,
      });
    const { clock, gatewayEvents: events } = this;
    const surroundings = { events, clock, listInterfaces: loopback('IPv4') };
    return await this.#start(name, async () => {
      const parts = composeGateway(config(file), surroundings);
      const made = new Gateway(config(file), surroundings, parts);
      this.#running.set(name, {
        file,
        beliefs: () => unwatched(() => gatewayBeliefs(parts, made.status())),
        fresh: async (state) => await freshGateway(config(state)),
        stop: () => made[Symbol.asyncDispose](),
      });
      try {
        await made.start();
      } catch (thrown) {
        await made[Symbol.asyncDispose]();
        throw thrown;
      }
      return made;
    });
  }

  /** Starts an OMA DM device. It may be one that was stopped before. */
  async device(id: string, gateway: Pick<Gateway, 'coapPort'>, how: DeviceKind = {}): Promise<Device> {
    const file = this.fileOf(id);
    const config = (state: string, server = how.server ?? false) =>
      deviceConfig(id, gateway, { ...how, server, more: { ...how.more, state } });
    const { clock, deviceEvents: events } = this;
    return await this.#start(id, async () => {
      const [made, tree] = withTree(() => new Device(config(file), { events, clock }));
      this.#running.set(id, {
        file,
        beliefs: () => unwatched(() => deviceBeliefs(tree)),
        fresh: async (state) => {
          const [again, found] = withTree(
            // Without the account of the factory, which a start writes: the running device may still wait for the disk to take it.
            () => new Device(config(state, false), { events: new EventRecorder(), clock: new HandClock() }),
          );
          const beliefs = deviceBeliefs(found);
          await again[Symbol.asyncDispose]();
          return beliefs;
        },
        stop: () => made[Symbol.asyncDispose](),
      });
      try {
        await made.start();
      } catch (thrown) {
        await made[Symbol.asyncDispose]();
        throw thrown;
      }
      return made;
    });
  }

  /** Starts an LwM2M client, which has no durable state. */
  async client(id: string, gateway: Pick<Gateway, 'coapPort'>): Promise<LwM2mDevice> {
    const { clock, deviceEvents: events } = this;
    const made = new LwM2mDevice(clientConfig(id, gateway), { events, clock });
    this.#others.push(made);
    await made.start();
    return made;
  }

  /** Stops a party in good order. */
  async stop(name: string): Promise<void> {
    const running = this.#running.get(name);
    this.#running.delete(name);
    await running?.stop();
  }

  /** Something has happened: a write, or a timer. */
  #note(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers();
  }

  /**
   * Resolves behind the next event of any party, its next write, or the next timer: all that can change what a party believes.
   * What follows from it may take some turns.
   */
  async changed(): Promise<void> {
    const all = [this.gatewayEvents, this.headendEvents, this.deviceEvents];
    await Promise.race([this.#next.promise, ...all.map((each) => each.nextOfAny())]);
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Waits until a condition holds. */
  async until(what: string, holds: () => boolean): Promise<void> {
    const giveUp = Promise.withResolvers<never>();
    const timer = setTimeout(() => giveUp.reject(new Error(`it never came: ${what}`)), 10_000);
    try {
      while (!holds()) await Promise.race([giveUp.promise, this.changed()]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Starts a party as a supervisor does. */
  async #start<T>(name: string, work: () => Promise<T>): Promise<T> {
    const started = await insist(async () => {
      try {
        return await work();
      } catch (thrown) {
        this.#running.delete(name);
        abandon(this.fileOf(name));
        throw thrown;
      }
    });
    const watched = this.#watched.get(name);
    if (watched && !this.startPlaces.has(name)) this.startPlaces.set(name, watched.places.length);
    return started;
  }

  /** Compares what all parties believe with what each would believe after a fresh start. */
  async compareAll(): Promise<void> {
    await Promise.all(this.#compared);
    for (const name of this.#running.keys()) await this.#compare(name);
  }

  /**
   * The beliefs that have to be in the file. An epoch that could not be stored is stored with the first alert, and without
   * the number of starts another one begins. Nonces count in memory until they are written with the next sync, and when they
   * could not be: an overheard credential must not be good a second time.
   */
  #durable(beliefs: Beliefs, isAtTheEnd: boolean, { epoch } = beliefs): Beliefs {
    const { credentials } = beliefs as { credentials?: readonly object[] };
    if (!credentials) return beliefs;
    const failed = this.#watched.values().find((each) => each.failed !== undefined)?.failed ?? '';
    const areUnsaved = !isAtTheEnd || /^(BEGIN|COMMIT|UPDATE credential SET server_nonce)/.test(failed);
    const unsaved = areUnsaved && { clientNonce: '', serverNonce: '' };
    return {
      ...beliefs,
      epoch: epoch !== undefined && !failed.startsWith('PRAGMA user_version') && beliefs.epoch,
      credentials: credentials.map((each) => ({ ...each, ...unsaved })),
    };
  }

  /** Compares when what the failed write belongs to has ended: the message under way may have open levels of changes. */
  async #compareSoon(name: string): Promise<void> {
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    await this.#compare(name, false);
  }

  /** @param isAtTheEnd of the journey, and not right after the write that failed */
  async #compare(name: string, isAtTheEnd = true): Promise<void> {
    const when = isAtTheEnd ? 'at the end' : 'right after the write that failed';
    for (let look = 1; ; look++) {
      const running = this.#running.get(name);
      // It could not start, or has been stopped.
      if (!running || !existsSync(running.file)) return;
      const copy = join(this.#folder, `copy-${++this.#copies}.db`);
      copyState(running.file, copy);
      try {
        const living = running.beliefs();
        const fresh = await running.fresh(copy);
        assert.deepEqual(
          this.#durable(living, isAtTheEnd),
          this.#durable(fresh, isAtTheEnd, living),
          `${when}, ${name} believes what is in its file`,
        );
        return;
      } catch (thrown) {
        // A message under way may have changed nodes that it has not stored yet.
        if (look === 5) throw thrown;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }
}

/** A party that was asked to stop stops. */
async function inTime(name: string, stopping: PromiseLike<void>): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${name} does not stop`)), 10_000);
  try {
    await Promise.race([stopping, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Does something that may be refused, as a supervisor or an operator does: again and again, not for ever. */
export async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++)
    try {
      return await work();
    } catch (thrown) {
      if (attempt === attempts || asPosternError(thrown).code === 'internal') throw thrown;
    }
}

async function freshGateway(config: Parameters<typeof composeGateway>[0]): Promise<Beliefs> {
  const parts: GatewayParts = composeGateway(config, {
    events: new EventRecorder(),
    clock: new HandClock(),
    listInterfaces: loopback('IPv4'),
  });
  const gateway = new Gateway(config, { events: new EventRecorder() }, parts);
  const beliefs = gatewayBeliefs(parts, gateway.status());
  await gateway[Symbol.asyncDispose]();
  return beliefs;
}

async function freshHeadend(config: Parameters<typeof composeHeadend>[0]): Promise<Beliefs> {
  const parts: HeadendParts = composeHeadend(config, {
    events: new EventRecorder(),
    clock: new HandClock(),
  });
  const beliefs = headendBeliefs(parts);
  await parts.stack.disposeAsync();
  return beliefs;
}
