import { existing } from '../base/errors.ts';
import type { Headend } from './headend.ts';
import type { Order } from './order-book.ts';
import { type ResultKind, type ResultRecord, resultKinds } from './records.ts';

/** The state of an order, in the form that all answers share. */
export const stateOf = ({ correlator, state, accepted, due, ended, status, reason }: Order) => ({
  correlator,
  state,
  accepted,
  ...(due !== undefined && { due }),
  ...(ended !== undefined && { ended }),
  ...(status !== undefined && { status }),
  ...(reason !== undefined && { reason }),
});

const isResultKind = (kind: string): kind is ResultKind => (resultKinds as readonly string[]).includes(kind);

/** What the gateway reported on an order; nothing when that is the result of an earlier order of this name. */
function resultOf(headend: Headend, { kind, party, name, correlator }: Order): { result?: string } {
  const found = isResultKind(kind) ? headend.records.result(kind, party, name) : undefined;
  return found?.correlator === correlator ? { result: found.result } : {};
}

/** While an order goes on: what its gateway says is wrong, which may be why the order waits. */
function problemOf(headend: Headend, { state, party }: Order): { problem?: string } {
  const problem = state === 'running' ? headend.problemOf(party) : undefined;
  return problem === undefined ? {} : { problem };
}

/** An order of any kind. */
export const orderView = (headend: Headend, order: Order) => {
  const { number, kind, party, name, operations } = order;
  return {
    number,
    kind,
    party,
    name,
    ...stateOf(order),
    ...problemOf(headend, order),
    ...resultOf(headend, order),
    ...(operations && { operations: [...operations] }),
  };
};

/** A fan-out, trigger or image. */
const gatewayOrderView = (headend: Headend, order: Order) => ({
  gateway: order.party,
  name: order.name,
  ...stateOf(order),
  ...problemOf(headend, order),
  ...resultOf(headend, order),
});

/** An order that an earlier version of Postern sent: only its result is known. */
const endedOrderView = ({ gateway, name, correlator = '', at, result }: ResultRecord) => ({
  ...{ gateway, name, correlator, state: 'done' as const, accepted: at, ended: at, result },
});

/** @throws {PosternError} `notFound` */
export function gatewayOrder(headend: Headend, kind: ResultKind, gateway: string, name: string) {
  const order = headend.orders.get(kind, gateway, name);
  if (order) return gatewayOrderView(headend, order);
  const what = { CommandFanout: 'fan-out', DeviceTrigger: 'trigger', ImageOperation: 'order for an image' };
  return endedOrderView(
    existing(headend.records.result(kind, gateway, name), `${what[kind]} ${name} of ${gateway}`),
  );
}

/** All orders of one kind, the latest last. */
export function gatewayOrders(headend: Headend, kind: ResultKind) {
  const orders = headend.orders.list(kind);
  const known = new Set(orders.map(({ party, name }) => `${party} ${name}`));
  const earlier = headend.records
    .results(kind)
    .filter(({ gateway, name }) => !known.has(`${gateway} ${name}`));
  return [...earlier.map(endedOrderView), ...orders.map((order) => gatewayOrderView(headend, order))];
}
