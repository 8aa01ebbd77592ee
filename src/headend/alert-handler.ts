import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import { type Rate, TokenBuckets } from '../base/token-buckets.ts';
import { AlertCode, DmStatus } from '../dm/status.ts';
import type { AlertNumber } from '../mo/alert-number.ts';
import { type FirmwareOperation, isFirmwareOperation } from '../mo/firmware-branch.ts';
import { FumoResult } from '../mo/fumo.ts';
import {
  isAlertOf,
  readDeviceAttach,
  readDeviceDetach,
  readDevicePresence,
  readGatewayFault,
  readLocationUpdate,
} from '../mo/gateway-alerts.ts';
import { statusOfOtherAlert } from '../mo/generic-alerts.ts';
import { FumoAlert } from '../mo/identifiers.ts';
import { readImageResult } from '../mo/image-result.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { Alert } from '../wire/syncml/message.ts';
import type { AlertSequences } from './alert-sequences.ts';
import type { OrderBook, OrderEnd } from './order-book.ts';
import type { Parties } from './parties.ts';
import type { PendingDetaches } from './pending-detaches.ts';
import type { Reachability } from './reachability.ts';
import { type Records, type ResultKind, resultKinds } from './records.ts';
import type { SessionContext } from './sessions.ts';
import type { TelemetryHandler } from './telemetry-handler.ts';
import type { UnreachableDevices } from './unreachable-devices.ts';

export interface AlertHandlerParts {
  readonly database: Database;
  readonly parties: Parties;
  readonly sequences: AlertSequences;
  readonly reachability: Reachability;
  readonly pendingDetaches: PendingDetaches;
  readonly unreachableDevices: UnreachableDevices;
  readonly records: Records;
  readonly orders: OrderBook;
  readonly telemetry: TelemetryHandler;
  /** Called in the transaction in which a gateway is known to have lost its state. */
  readonly lost: (gateway: string) => void;
  readonly vocabulary: Vocabulary;
  readonly clock: Clock;
  readonly events: Events;
  /** In place of `newDevices`. */
  readonly newDevices?: Rate;
  /** Asks a device or child gateway for a session through a broker gateway, so that it can prove itself there. */
  readonly ask: (deviceId: string, brokerGateway: string) => void;
  /** Called in the transaction of a gateway's report that it leaves, or that it could not be passed on. */
  readonly departed?: (gateway: string, kind: string, reason: string) => void;
}

/** Devices of which a claim is remembered. The oldest claim is forgotten: the device must attach anew. */
const claimLimit = 4096;
/** Milliseconds in which a child gateway that a new parent claims can prove itself there. What the parent tells of it waits. */
const proofTime = 60_000;

interface Claim {
  /** The gateway that claims the device. */
  readonly gateway: string;
  readonly until: Monotonic;
}

/** Devices without an account here that one gateway may report as new: a gateway may invent devices. */
export const newDevices: Rate = { rate: 1, burst: 100_000 };
/** Gateways with such a rate. */
const reporters = 4096;

const resultEvents = {
  CommandFanout: 'alert.command-fanout',
  DeviceTrigger: 'alert.device-trigger',
  ImageOperation: 'alert.image-operation',
} as const;

/** Handles the alerts that gateways and devices send in their sessions: GwMO's alerts and those of FUMO. */
export class AlertHandler {
  readonly #parts: AlertHandlerParts;
  /** Gateways that claim a device, while it is attached elsewhere. */
  readonly #claims = new BoundedMap<string, Claim>(claimLimit);
  /** Sessions in which the disk did not take an alert. */
  readonly #stalled = new WeakSet<SessionContext>();
  /** Takes back that the number of the alert under way was judged to be new. */
  #judged: (() => void) | undefined;
  readonly #newDevices: TokenBuckets;

  constructor(parts: AlertHandlerParts) {
    this.#parts = parts;
    this.#newDevices = new TokenBuckets(parts.newDevices ?? newDevices, reporters);
  }

  /**
   * Handles one alert as one unit: all that it says is stored, or nothing. Returns its DM status: 415 for a type that
   * this server does not know (OMA DM protocol 1.2.1, section 8.7), 403 for a type that this kind of party must not
   * send, 400 for malformed data, 503 while a child gateway that it names has not proved its move, 420 when the disk does not take it. Then all later alerts of the session get 420 too: they
   * come again in their order, so that no alert overtakes an earlier one of the same device. 418 for a number that this
   * server knows from another run of the gateway, which the gateway has forgotten.
   */
  handle(context: SessionContext, alert: Alert): number {
    if (this.#stalled.has(context)) return DmStatus.DeviceFull;
    this.#judged = undefined;
    try {
      return this.#parts.database.transaction(() => this.#handle(context, alert));
    } catch (thrown) {
      const { code, dmStatus } = asPosternError(thrown);
      if (code === 'storage') this.#stalled.add(context);
      this.#takeBack();
      return dmStatus;
    }
  }

  /** The alert that was handled last is refused, so its number is not known. */
  #takeBack(): void {
    this.#judged?.();
  }

  #handle({ party, gateway: through }: SessionContext, alert: Alert): number {
    const ofGateway = party.kind === 'gateway';
    const gateway = ofGateway ? party.id : through;
    const { alerts } = this.#parts.vocabulary;
    if (isAlertOf(alert, alerts.DeviceAttach))
      return ofGateway ? this.#deviceAttached(gateway, alert) : DmStatus.Forbidden;
    if (isAlertOf(alert, alerts.DeviceDetach))
      return ofGateway ? this.#deviceDetached(gateway, alert) : DmStatus.Forbidden;
    if (isAlertOf(alert, alerts.DevicePresence))
      return ofGateway ? this.#devicePresence(gateway, alert) : DmStatus.Forbidden;
    if (isAlertOf(alert, alerts.LocationUpdate))
      return ofGateway ? DmStatus.Forbidden : this.#deviceMoved(party.id, gateway, alert);
    if (isAlertOf(alert, alerts.GatewayFault))
      return ofGateway ? this.#gatewayFault(gateway, alert) : DmStatus.Forbidden;
    if (isAlertOf(alert, alerts.TelemetryReport)) {
      if (!ofGateway) return DmStatus.Forbidden;
      this.#parts.telemetry.handle(gateway, alert);
      return DmStatus.Ok;
    }
    const kind = resultKinds.find((each) => isAlertOf(alert, alerts[each]));
    if (kind) return ofGateway ? this.#recordResult(kind, gateway, alert) : DmStatus.Forbidden;
    const firmware = firmwareOperation(alert);
    if (firmware) return this.#recordFirmwareUpdate(firmware, ofGateway ? gateway : party.id, alert);
    return statusOfOtherAlert(alert);
  }

  #deviceAttached(reporter: string, alert: Alert): number {
    const { database, parties, reachability, pendingDetaches } = this.#parts;
    const found = readDeviceAttach(this.#parts.vocabulary, alert);
    const known = this.#known(reporter, found);
    if (known !== undefined) return known;
    const { epoch: _, sequence: __, run: ___, deviceId, via, ...attach } = found;
    const gateway = this.#place(reporter, via);
    if (gateway === undefined) return DmStatus.Ok;
    const isOfGateway = parties.isGateway(deviceId);
    const brokerGateway = reachability.brokerGatewayOf(reporter);
    // A party with an account here proves itself here. Another device has proved itself to the gateway that reports it, unless
    // that gateway only repeats what a child said.
    const isProved = via === undefined && parties.get(deviceId) === undefined;
    const { bootstrap, manufacturer, model } = attach;
    this.#parts.records.addAlert('DeviceAttach', gateway, deviceId, attach, senderOf(reporter, via));
    if (!isProved && this.#isHeldElsewhere(deviceId, gateway, brokerGateway)) {
      const holder = parties.gatewayOf(deviceId) ?? '';
      const until = plus(this.#parts.clock.now(), proofTime);
      database.afterCommit(() => this.#claims.set(deviceId, { gateway, until }));
      this.#emit('alert.attach-contested', { device: deviceId, gateway, holder });
      if (parties.get(deviceId) && !reachability.hasOwnConnection(deviceId))
        database.afterCommit(() => this.#parts.ask(deviceId, brokerGateway));
      return DmStatus.Ok;
    }
    database.afterCommit(() => {
      this.#claims.delete(deviceId);
      if (gateway !== brokerGateway) reachability.learn(gateway, brokerGateway);
      if (deviceId === brokerGateway) return;
      if (isProved) reachability.report(deviceId, brokerGateway);
      else reachability.learn(deviceId, brokerGateway);
      // Only a child that has proved itself is the way of a package.
      if (isOfGateway) this.#parts.ask(deviceId, brokerGateway);
    });
    this.#demandRoom(reporter, deviceId);
    pendingDetaches.drop(gateway, deviceId);
    const before = parties.associate(deviceId, gateway);
    this.#parts.unreachableDevices.remove(deviceId);
    this.#emit('alert.device-attach', {
      device: deviceId,
      gateway,
      bootstrap,
      manufacturer,
      model,
    });
    // Two gateways have the device attached now. The one that reported last is right. The other one must detach it.
    if (before !== undefined && parties.get(before)) pendingDetaches.add(before, deviceId);
    return DmStatus.Ok;
  }

  /** @throws {PosternError} `full` when the gateway reports too many devices that are not known here */
  #demandRoom(reporter: string, deviceId: string): void {
    const { parties, clock } = this.#parts;
    if (parties.get(deviceId) || parties.gatewayOf(deviceId) !== undefined) return;
    const now = clock.now();
    if (!this.#newDevices.of(reporter, now).take(this.#newDevices.rate, now))
      throw new PosternError('full', `${reporter} reports too many devices without an account`);
  }

  /**
   * Whether a device is attached to a gateway elsewhere that has not said that it misses it, or has proved itself elsewhere.
   * What another gateway says does not take the device away from there. Within one broker gateway, that gateway has judged
   * already. A gateway with a connection of its own is never taken away.
   */
  #isHeldElsewhere(deviceId: string, gateway: string, brokerGateway: string): boolean {
    const { parties, reachability, unreachableDevices } = this.#parts;
    if (parties.gatewayOf(deviceId) === gateway || reachability.hasProved(deviceId, brokerGateway))
      return false;
    if (!reachability.isElsewhere(deviceId, brokerGateway)) return false;
    return reachability.hasOwnConnection(deviceId) || unreachableDevices.reasons()(deviceId) === undefined;
  }

  /**
   * The gateway that an alert speaks of: the one that reports, or the one behind it that is nearest to the device. Undefined,
   * with an event, when that gateway is not behind the one that reports.
   * @throws {PosternError} `unavailable` when it may have moved there: it is being asked
   */
  #place(reporter: string, via: string | undefined): string | undefined {
    const { reachability } = this.#parts;
    const gateway = nearestGateway(via) ?? reporter;
    if (gateway === reporter || !reachability.isElsewhere(gateway, reachability.brokerGatewayOf(reporter)))
      return gateway;
    const claim = this.#claims.get(gateway);
    const above = via?.split('/').at(-2) ?? reporter;
    if (claim?.gateway === above && claim.until > this.#parts.clock.now())
      throw new PosternError('unavailable', `${gateway} has not proved that it is behind ${above}`);
    this.#emit('alert.foreign-gateway', { gateway, reporter });
    return undefined;
  }

  /** A device has proved itself to this server through a gateway. A claim of that gateway to the device holds now. */
  proved(deviceId: string, gateway: string): void {
    if (this.#claims.get(deviceId)?.gateway === gateway) this.#pass(deviceId);
  }

  /** Associates a device with the gateway that claimed it, if one did. */
  #pass(deviceId: string): void {
    const { database, parties, pendingDetaches } = this.#parts;
    const gateway = this.#claims.get(deviceId)?.gateway;
    if (gateway === undefined) return;
    this.#claims.delete(deviceId);
    database.transaction(() => {
      pendingDetaches.drop(gateway, deviceId);
      const before = parties.associate(deviceId, gateway);
      this.#parts.unreachableDevices.remove(deviceId);
      if (before !== undefined && parties.get(before)) pendingDetaches.add(before, deviceId);
    });
  }

  /** Notes that a gateway has devices no more, by order of this server. It sends no alert of them. */
  removed(gateway: string, names: ReadonlySet<string>): void {
    const { database, parties } = this.#parts;
    const gone = parties
      .associations()
      .filter((one) => one.gateway === gateway && names.has(hashedName(one.device)));
    database.transaction(() => {
      for (const { device } of gone) {
        this.#left(device, gateway);
        this.#emit('device.let-go', { device, gateway, status: DmStatus.Ok });
      }
    });
  }

  /** A device is not attached to this gateway any more. Joins the caller's transaction. */
  #left(deviceId: string, gateway: string): void {
    const { parties, unreachableDevices } = this.#parts;
    parties.dissociate(deviceId, gateway);
    if (this.#claims.get(deviceId)?.gateway === gateway) this.#claims.delete(deviceId);
    if (parties.gatewayOf(deviceId) === undefined) this.#pass(deviceId);
    if (parties.gatewayOf(deviceId) === undefined) unreachableDevices.remove(deviceId);
  }

  #deviceDetached(reporter: string, alert: Alert): number {
    const detach = readDeviceDetach(alert);
    const known = this.#known(reporter, detach);
    if (known !== undefined) return known;
    const { deviceId, reason, via } = detach;
    const gateway = this.#place(reporter, via);
    if (gateway === undefined) return DmStatus.Ok;
    this.#left(deviceId, gateway);
    this.#parts.records.addAlert('DeviceDetach', gateway, deviceId, { reason }, senderOf(reporter, via));
    this.#emit('alert.device-detach', { device: deviceId, gateway, reason });
    return DmStatus.Ok;
  }

  #devicePresence(reporter: string, alert: Alert): number {
    const presence = readDevicePresence(alert);
    const { parties, unreachableDevices } = this.#parts;
    const known = this.#known(reporter, presence);
    if (known !== undefined) return known;
    const { deviceId, state, reason, lastSeen, via } = presence;
    const gateway = this.#place(reporter, via);
    if (gateway === undefined) return DmStatus.Ok;
    if (state === 'unreachable') {
      unreachableDevices.add(deviceId, gateway, reason ?? '', lastSeen);
      if (parties.gatewayOf(deviceId) === gateway) this.#pass(deviceId);
    } else if (parties.gatewayOf(deviceId) === gateway) unreachableDevices.remove(deviceId);
    const body = { state, reason, lastSeen: new Date(lastSeen).toISOString() };
    this.#parts.records.addAlert('DevicePresence', gateway, deviceId, body, senderOf(reporter, via));
    this.#emit('alert.device-presence', { device: deviceId, gateway, state, reason });
    return DmStatus.Ok;
  }

  #gatewayFault(reporter: string, alert: Alert): number {
    const fault = readGatewayFault(alert);
    const known = this.#known(reporter, fault);
    if (known !== undefined) return known;
    const { kind, reason, via } = fault;
    const gateway = this.#place(reporter, via);
    if (gateway === undefined) return DmStatus.Ok;
    const { records } = this.#parts;
    // A gateway that starts says that it has none.
    if (kind === 'problem-ended' && !records.hasProblem(gateway)) return DmStatus.Ok;
    const sender = senderOf(reporter, via);
    if (kind === 'problem' || kind === 'problem-ended')
      records.putProblem(gateway, sender, kind === 'problem' ? reason : undefined);
    records.addAlert('GatewayFault', gateway, undefined, { kind, reason }, sender);
    if (kind === 'problem') this.#emit('gateway.problem', { gateway, reason });
    else this.#emit('alert.gateway-fault', { gateway, kind, reason });
    if (via === undefined && departureKinds.includes(kind)) this.#parts.departed?.(gateway, kind, reason);
    return DmStatus.Ok;
  }

  /** Records the number of an alert. Returns the status of one that is not to be handled, undefined for a new one. */
  #known(gateway: string, { epoch, sequence, run }: AlertNumber): number | undefined {
    const { parties, sequences } = this.#parts;
    if (epoch === undefined) return parties.recordAlertSequence(gateway, sequence) ? undefined : DmStatus.Ok;
    if (sequences.isNews(gateway, epoch)) {
      this.#parts.lost(gateway);
      this.#emit('gateway.new-epoch', { gateway, epoch });
    }
    const verdict = sequences.record(gateway, epoch, sequence, run);
    if (verdict === 'new') this.#judged = () => sequences.refused(gateway, epoch, sequence);
    else return verdict === 'forgotten' ? DmStatus.AlreadyExists : DmStatus.Ok;
    return undefined;
  }

  #recordResult(kind: ResultKind, gateway: string, { correlator, items: [item] }: Alert): number {
    const name = item?.source?.locUri.split('/').at(-1) ?? '';
    const result = String(item?.data ?? '');
    this.#parts.records.putResult({ kind, gateway, name, correlator, result });
    this.#parts.orders.resulted(kind, gateway, name, correlator, endOf(kind, result));
    this.#parts.records.addAlert(kind, gateway, undefined, { name, correlator });
    this.#emit(resultEvents[kind], { gateway, name, correlator, bytes: result.length });
    return DmStatus.Ok;
  }

  /** The result of a firmware update of a gateway or a device itself (OMA FUMO 1.0, section 8). */
  #recordFirmwareUpdate(
    operation: FirmwareOperation,
    party: string,
    { correlator, items: [item] }: Alert,
  ): number {
    const result = Number(item?.data);
    if (!Number.isInteger(result)) return DmStatus.BadRequest;
    this.#parts.records.addAlert('FirmwareUpdate', party, undefined, { operation, correlator, result });
    this.#emit('alert.firmware-update', { party, operation, correlator, result });
    return DmStatus.Ok;
  }

  /** Only records the move (GwMO 8.4.1, figure 10). `Policy.bootstrap` chooses the gateway in the same session. */
  #deviceMoved(deviceId: string, gateway: string, alert: Alert): number {
    const { address, gateway: before } = readLocationUpdate(alert);
    this.#parts.records.addAlert('LocationUpdate', gateway, deviceId, { address, before }, deviceId);
    this.#emit('alert.location-update', { device: deviceId, gateway, address, before });
    return DmStatus.Ok;
  }

  /** Emits an event when what it speaks of is stored. */
  readonly #emit: Events['emit'] = (...event) => {
    this.#parts.database.afterCommit(() => this.#parts.events.emit(...event));
  };
}

/** Kinds of a gateway's report of itself that end an order to leave. */
const departureKinds = ['decommissioned', 'transferred', 'transfer'];

/** How an order ended, by its result. A campaign is done when all its devices have ended, however they did. */
function endOf(kind: ResultKind, result: string): OrderEnd {
  if (kind !== 'ImageOperation') return { state: 'done' };
  const found = readImageResult(result);
  if (!found) return { state: 'unknown', reason: 'the result of the gateway cannot be read' };
  const { result: status, reason } = found;
  return { state: status === FumoResult.Ok ? 'done' : 'failed', status, reason };
}

/**
 * The gateway nearest to a device, from the path in a parent gateway's alert: names of child gateways joined by `/`,
 * the nearest to the device last. Undefined without a path: the gateway that reports is then the nearest.
 */
const nearestGateway = (via: string | undefined): string | undefined => via?.split('/').at(-1);

/** Whose room an alert takes: that of the gateway that reports, and there that of the child that told it. */
const senderOf = (reporter: string, via: string | undefined): string =>
  via === undefined ? reporter : `${reporter}/${via.split('/')[0]}`;

/** The FUMO operation whose result an alert reports, by the alert's type. Undefined for other alerts. */
function firmwareOperation({ data, items: [item] }: Alert): FirmwareOperation | undefined {
  if (data !== AlertCode.Generic) return undefined;
  const type = item?.meta?.type;
  return Object.keys(FumoAlert)
    .filter(isFirmwareOperation)
    .find((name) => FumoAlert[name] === type);
}
