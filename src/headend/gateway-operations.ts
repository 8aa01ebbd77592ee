import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { type Operation, placeOf } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { Notifier } from './notifier.ts';
import {
  type FanoutRequest,
  fanoutOperations,
  type GroupRequest,
  groupOperations,
  type ImageRequest,
  imageOperations,
  type TriggerRequest,
  triggerOperations,
} from './orders.ts';
import type { SessionRequests } from './session-requests.ts';
import type { TriggeredSessions } from './triggered-sessions.ts';

/** An operation that a gateway has accepted. An alert of the gateway reports its result later. */
export interface StartedOperation {
  readonly gateway: string;
  readonly name: string;
  /** Repeated by the alert that reports the result. 16 hexadecimal digits. */
  readonly correlator: string;
  /** DM status of the last command: 202 when the operation runs, 200 when it is already done. */
  readonly status: number;
}

/** Sessions that devices behind a gateway shall open with this server, and the operations for each session. */
export interface DeviceTriggerRequest extends Omit<TriggerRequest, 'notifications'> {
  /** DevIds. Each device needs an account for this server. */
  readonly devices: readonly string[];
  readonly operations: readonly Operation[];
}

export interface GatewayOperationsParts {
  readonly notifier: Notifier;
  readonly sessionRequests: SessionRequests;
  readonly triggeredSessions: TriggeredSessions;
  readonly vocabulary: Vocabulary;
  readonly entropy: Entropy;
}

/** Seconds. */
const defaultTriggerDeadline = 3600;

/**
 * Sends fan-outs, triggers, images and groups to gateways: writes nodes of the GwMO objects in a session and executes
 * them.
 */
export class GatewayOperations {
  readonly #parts: GatewayOperationsParts;

  constructor(parts: GatewayOperationsParts) {
    this.#parts = parts;
  }

  /** See `Headend.fanOut`. */
  async fanOut(gateway: string, request: FanoutRequest): Promise<StartedOperation> {
    return await this.#send(gateway, request.name, (correlator) =>
      fanoutOperations(this.#parts.vocabulary, request, correlator),
    );
  }

  /** See `Headend.stageImage`. */
  async stageImage(gateway: string, request: ImageRequest): Promise<StartedOperation> {
    return await this.#send(gateway, request.name, (correlator) =>
      imageOperations(this.#parts.vocabulary, request, correlator),
    );
  }

  /** See `Headend.putGroup`. */
  async putGroup(gateway: string, request: GroupRequest): Promise<StartedOperation> {
    return await this.#send(gateway, request.id, () => groupOperations(this.#parts.vocabulary, request));
  }

  /** See `Headend.trigger`. */
  async trigger(gateway: string, request: DeviceTriggerRequest): Promise<StartedOperation> {
    const { devices, operations, deadline = defaultTriggerDeadline, ...campaign } = request;
    const { notifier, triggeredSessions, vocabulary } = this.#parts;
    const notifications = new Map(devices.map((device) => [device, notifier.durablePackage0(device)]));
    const started = await this.#send(gateway, request.name, (correlator) =>
      triggerOperations(vocabulary, { ...campaign, notifications, deadline }, correlator),
    );
    triggeredSessions.begin({ gateway, name: request.name, devices, operations, deadline });
    return started;
  }

  /**
   * Sends operations to a gateway. The first one deletes what an earlier order of this name left and may fail; all
   * others must succeed.
   */
  async #send(
    gateway: string,
    name: string,
    operationsFor: (correlator: string) => readonly Operation[],
  ): Promise<StartedOperation> {
    const { entropy, sessionRequests } = this.#parts;
    const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
    const outcomes = await sessionRequests.run(gateway, operationsFor(correlator));
    const failed = outcomes.slice(1).find(({ status }) => !isOk(status));
    if (failed)
      throw new PosternError(
        failed.status === DmStatus.DeviceFull ? 'full' : 'conflict',
        `${gateway} answered ${failed.operation.name} ${placeOf(failed.operation)} with ${failed.status}`,
      );
    return { gateway, name, correlator, status: outcomes.at(-1)?.status ?? DmStatus.Ok };
  }
}
