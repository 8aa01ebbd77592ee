import { background } from '../base/background.ts';
import type { EventCounter } from '../base/events.ts';
import { LiveConfig, overwrite } from '../base/live-config.ts';
import { tellWeakSecrets } from '../base/weak-secrets.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { demandUsable, mqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { composeHeadend, type HeadendParts, type HeadendSurroundings, receiverOf } from './composition.ts';
import { type HeadendConfig, headendReloads } from './config.ts';
import type { DeviceValues } from './device-values.ts';
import type { Enrolment } from './enrolment.ts';
import type { DeviceTriggerRequest, StartedOperation } from './gateway-operations.ts';
import type { ObservationDesk } from './observation-desk.ts';
import type { OrderBook } from './order-book.ts';
import type { FanoutRequest, GroupRequest, ImageRequest } from './orders.ts';
import type { Policy } from './policy.ts';
import type { DeviceView, GatewayView } from './reachability.ts';
import type { Records, ResultKind, ResultRecord } from './records.ts';
import type { SessionOrders } from './session-orders.ts';
import type { TriggeredDevice } from './triggered-sessions.ts';

/** The reference DM server: manages gateways and devices over an MQTT broker. Its HTTP API is `HeadendApi`. */
export class Headend implements AsyncDisposable {
  readonly #parts: HeadendParts;
  readonly #config: LiveConfig<HeadendConfig>;

  /**
   * @param parts composed here when absent
   * @throws {PosternError} `configuration` when the state file cannot be used
   */
  constructor(
    config: HeadendConfig,
    surroundings: HeadendSurroundings,
    parts: HeadendParts = composeHeadend(config, surroundings),
  ) {
    this.#parts = parts;
    this.#config = new LiveConfig(config, parts.events, isReloadable);
  }

  /**
   * Reads the configuration again, and puts in force what `headendReloads` lists. Returns the configuration that holds
   * now. What came of it is told by events.
   * @param apply puts more of it in force, such as the certificate of the API, or throws and changes nothing
   */
  reload(read: () => HeadendConfig, apply: (config: HeadendConfig) => void = () => {}): HeadendConfig {
    const { parties, settings, sessions, events } = this.#parts;
    this.#config.reload(read, (config) => {
      const mqtt = mqttSettings(config.mqtt);
      demandUsable(mqtt);
      apply(config);
      parties.configure(config);
      tellWeakSecrets(config.device, events);
      void background(events, 'session-end', () => sessions.review());
      overwrite(settings.policy, config.policy);
      overwrite(settings.mqtt, mqtt);
      if (settings.enrolment && config.enrolment) overwrite(settings.enrolment, config.enrolment);
    });
    return this.#config.current;
  }

  /** Why the head-end cannot serve gateways any more. Undefined when it can. */
  complaint(): string | undefined {
    this.#parts.database.prepare('SELECT 1').get();
    return undefined;
  }

  /** Counts what it is told, and passes it on: the events of this head-end, and those of its API. */
  get events(): EventCounter {
    return this.#parts.events;
  }

  /** True while the connection to the broker is up. */
  get connected(): boolean {
    return this.#parts.downlink.connected;
  }

  /** What is wrong with the connection to the broker: why there is none, and what the broker refuses. */
  get problems(): readonly string[] {
    return this.#parts.downlink.problems;
  }

  /** The stored alerts, results and assignments. */
  get records(): Records {
    return this.#parts.records;
  }

  /** All orders that were accepted, and what came of them. */
  get orders(): OrderBook {
    return this.#parts.orders;
  }

  /** Values that gateways have reported. */
  get values(): DeviceValues {
    return this.#parts.values;
  }

  /** Observations at gateways. */
  get observations(): ObservationDesk {
    return this.#parts.observations;
  }

  /** The assignments of devices to gateways by the API, and the orders to manage devices in sessions. */
  get policy(): Policy {
    return this.#parts.policy;
  }

  /** Operations that were ordered for one session of a device or gateway each. */
  get sessionOrders(): SessionOrders {
    return this.#parts.sessionOrders;
  }

  /** Enrols gateways. Undefined when the configuration does not say so. */
  get enrolment(): Enrolment | undefined {
    return this.#parts.enrolment;
  }

  /** Connects to the broker. Returns before the connection is up. */
  start(): void {
    this.#parts.enrolment?.start();
    this.#parts.downlink.start(receiverOf(this.#parts));
  }

  /** Resolves when all that was stored so far survives a power cut. */
  async settled(): Promise<void> {
    await this.#parts.database.settled();
  }

  /** Ends all sessions with status 514, closes the connection to the broker and the state file. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.stack.disposeAsync();
  }

  /** Lists the results of fan-outs, the latest last. */
  fanouts(): ResultRecord[] {
    return this.#parts.records.results('CommandFanout');
  }

  /** Lists the sessions that have not ended. */
  sessions(): { party: string; gateway: string; session: string }[] {
    return this.#parts.sessions.list();
  }

  /** What a gateway says is wrong with it. */
  problemOf(gateway: string): string | undefined {
    return this.#parts.reachability.problemOf(gateway);
  }

  /** Lists the gateways of the configuration first, in its order, then others that were heard. */
  gateways(): GatewayView[] {
    const { reachability, downlink, clones, records } = this.#parts;
    const problems = records.problems();
    const others = [...problems.keys(), ...downlink.refusedGateways()];
    return reachability.gateways(others).map((gateway) => {
      const refused = downlink.refusedOf(gateway.id);
      const at = clones.clonedAt(gateway.id);
      return {
        ...gateway,
        problem: reachability.hasOwnConnection(gateway.id) ? gateway.problem : problems.get(gateway.id),
        ...(refused > 0 && { refused }),
        ...(at !== undefined && { cloned: new Date(at).toISOString() }),
      };
    });
  }

  /** Lists the devices of the configuration and all attached devices, sorted by DevId. */
  devices(): DeviceView[] {
    return this.#parts.reachability.devices();
  }

  /**
   * Assigns a device to a gateway. The device is bootstrapped to it in its next session. `gateway` undefined removes
   * the assignment.
   * @throws {PosternError} `notFound` for an unknown gateway, `full` when there are too many assignments
   */
  assign(device: string, gateway: string | undefined): void {
    this.#parts.policy.assign(device, gateway);
  }

  /**
   * Asks a device or gateway for a session by Package #0 and does operations in its next session. Returns one outcome
   * per operation, in their order.
   * @throws {PosternError} `notFound` when the party has no account for this server or no known gateway leads to it;
   * `timeout` when it opened no session in `headend.session-timeout` seconds; `unauthorized` when it refused Package
   * #0; `unavailable` when the broker, the gateway or the session failed; `full` when too many operations wait for
   * the party
   */
  async manage(partyId: string, operations: readonly Operation[]): Promise<readonly OperationOutcome[]> {
    return await this.#parts.sessionRequests.run(partyId, operations);
  }

  /**
   * Starts a fan-out at a gateway: the gateway does the commands on many devices in sessions of its own (proxy mode).
   * The result arrives later by alert and is then in `records`. `orders` has the state.
   * @throws {PosternError} `conflict` when a fan-out of this name exists and did not fail; `conflict` or `full` when the
   * gateway refused an operation; otherwise as `manage`
   */
  async fanOut(gateway: string, request: FanoutRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.fanOut(gateway, request);
  }

  /**
   * Puts an image into a gateway's Image Inventory. An earlier image of the same name is replaced. When the image has
   * a URL, the gateway starts its download; the result arrives later by alert and is then in `records`. `orders` has the
   * state of both kinds of images.
   * @throws {PosternError} as `fanOut`
   */
  async stageImage(gateway: string, request: ImageRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.stageImage(gateway, request);
  }

  /**
   * Puts a group of devices into a gateway's Device Inventory. An earlier group of the same ID is replaced.
   * @throws {PosternError} as `fanOut`
   */
  async putGroup(gateway: string, request: GroupRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.putGroup(gateway, request);
  }

  /**
   * Starts a trigger at a gateway: the gateway asks many devices for a session with this server (transparent mode),
   * and this server does the operations in each of these sessions. The gateway repeats the request to a sleeping
   * device until the deadline, which is 3600 seconds by default. A device without an account for this server, such as an
   * LwM2M client, gets a status of its own: 404 as its session, 406 or 412 in the result.
   * @throws {PosternError} `notFound` when no device has an account for this server; otherwise as `fanOut`
   */
  async trigger(gateway: string, request: DeviceTriggerRequest): Promise<StartedOperation> {
    return await this.#parts.gatewayOperations.trigger(gateway, request);
  }

  /**
   * Deletes a fan-out, trigger or image at its gateway, and forgets it here. One that runs is stopped; sessions with
   * devices that are under way go on to their end.
   * @throws {PosternError} as `manage`
   */
  async deleteOrder(kind: ResultKind, gateway: string, name: string): Promise<void> {
    await this.#parts.gatewayOperations.delete(kind, gateway, name);
  }

  /**
   * Returns the sessions that a trigger requested, one per device. Undefined when the trigger is unknown or
   * forgotten.
   */
  triggered(gateway: string, name: string): TriggeredDevice[] | undefined {
    return this.#parts.triggeredSessions.of(gateway, name);
  }
}

/** An API without TLS cannot be given a certificate while it runs, and the other way round. */
const isReloadable = (key: string, current: HeadendConfig, next: HeadendConfig): boolean =>
  headendReloads.includes(key) &&
  (!key.startsWith('api.tls-') ||
    (current.api['tls-cert'] !== undefined && next.api['tls-cert'] !== undefined));
