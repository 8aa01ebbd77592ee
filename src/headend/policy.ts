import type { Database } from '../base/database.ts';
import { matchesDevice } from '../base/device-pattern.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Opening, Work } from '../dm/server-session.ts';
import { isOk } from '../dm/status.ts';
import { type AssistedBootstrapParts, bootstrapToGateway } from './assisted-bootstrap.ts';
import type { HeadendConfig } from './config.ts';
import { noGateway } from './gateway-operations.ts';
import type { Order, OrderBook, OrderEnd } from './order-book.ts';
import type { Parties } from './parties.ts';
import type { Records } from './records.ts';
import type { SessionContext } from './sessions.ts';

export interface PolicyParts extends AssistedBootstrapParts {
  readonly settings: HeadendConfig['policy'];
  readonly parties: Parties;
  readonly records: Records;
  readonly orders: OrderBook;
  readonly database: Database;
}

/** Decides which gateway a device belongs to, and bootstraps devices to that gateway in their own sessions. */
export class Policy {
  readonly #parts: PolicyParts;

  constructor(parts: PolicyParts) {
    this.#parts = parts;
  }

  /**
   * Assigns a device to a gateway. It takes effect in the device's next session. `gateway` undefined removes the
   * assignment.
   * @throws {PosternError} `notFound` for an unknown gateway, `full` when there are too many assignments
   */
  assign(device: string, gateway: string | undefined): void {
    const { parties, records, orders, entropy, database } = this.#parts;
    if (gateway !== undefined && !parties.isGateway(gateway))
      throw new PosternError('notFound', noGateway(parties, gateway));
    database.transaction(() => {
      const before = records.assignment(device);
      if (!records.assign(device, gateway)) throw new PosternError('full', 'too many policies');
      if (before !== undefined && before !== gateway) orders.remove('Bootstrap', before, device);
      if (gateway === undefined) return;
      // The same assignment again is no other order.
      if (before === gateway && orders.get('Bootstrap', gateway, device)) return;
      const correlator = Buffer.from(entropy.bytes(8)).toString('hex');
      orders.begin({ kind: 'Bootstrap', party: gateway, name: device, correlator, state: 'running' });
    });
  }

  /** The bootstrap of a device to the gateway that it is assigned to by the API. Undefined without an assignment. */
  bootstrapOf(device: string): { readonly gateway: string; readonly order: Order | undefined } | undefined {
    const { records, orders } = this.#parts;
    const gateway = records.assignment(device);
    return gateway === undefined ? undefined : { gateway, order: orders.get('Bootstrap', gateway, device) };
  }

  /**
   * Returns the gateway that a device belongs to: the one an operator assigned by the API, or else by the first rule
   * of the configuration that matches, or else the gateway that the device came through.
   */
  gatewayFor(device: string, cameThrough: string): string {
    const { settings, records } = this.#parts;
    const assigned = records.assignment(device);
    if (assigned !== undefined) return assigned;
    return settings.assign.find((rule) => matchesDevice(rule.device, device))?.gateway ?? cameThrough;
  }

  /**
   * In a device's own session: DM-server-assisted bootstrap to the gateway that the device belongs to (GwMO section
   * 8.4.1). Does nothing when assisted bootstrap is switched off or the gateway is unknown to this server. Does
   * nothing either when Package #0 requested the session: the device was bootstrapped in a session that it opened
   * itself. A failure is emitted as an event and does not end the session.
   */
  async *bootstrap({ party, gateway: cameThrough }: SessionContext, { notified }: Opening): Work {
    const { settings, parties, events } = this.#parts;
    const gateway = this.gatewayFor(party.id, cameThrough);
    if (!settings['assisted-bootstrap'] || notified || !parties.get(gateway)) return;
    const isAssociated = parties.gatewayOf(party.id) === gateway;
    try {
      const status = yield* bootstrapToGateway(this.#parts, party.id, gateway, isAssociated);
      if (isOk(status)) this.#ended(party.id, gateway, { state: 'done', status });
      else {
        const reason = `the device answered its account with ${status}`;
        this.#ended(party.id, gateway, { state: 'failed', status, reason });
      }
    } catch (thrown) {
      const { message, dmStatus } = asPosternError(thrown);
      events.emit('bootstrap.assisted-failed', { device: party.id, gateway, reason: message });
      this.#ended(party.id, gateway, { state: 'failed', status: dmStatus, reason: message });
    }
  }

  /** Stores how the bootstrap of an assigned device ended. One that failed is tried again in the next session of the device. */
  #ended(device: string, gateway: string, end: OrderEnd): void {
    const order = this.bootstrapOf(device);
    if (order?.gateway === gateway && order.order) this.#parts.orders.end(order.order.number, end);
  }
}
