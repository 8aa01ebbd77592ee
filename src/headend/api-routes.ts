import * as v from 'valibot';
import { existing } from '../base/errors.ts';
import type { Operation } from '../dm/server-session.ts';
import {
  alertsAnswer,
  assignmentAnswer,
  assignmentsAnswer,
  countsAnswer,
  devicesAnswer,
  gatewaysAnswer,
  healthAnswer,
  orderAnswer,
  removedAnswer,
  sessionAnswer,
  sessionsAnswer,
} from './api-answers.ts';
import { departureRoutes } from './api-departure-routes.ts';
import { enrolmentRoutes } from './api-enrolment-routes.ts';
import { operationRoutes } from './api-operation-routes.ts';
import { Later, type Route, route } from './api-route.ts';
import { assignmentBody, pageQuery, sessionBody } from './api-schemas.ts';
import { telemetryRoutes } from './api-telemetry-routes.ts';
import type { Headend } from './headend.ts';
import { orderView, stateOf } from './order-views.ts';
import type { Party } from './parties.ts';

/** The operations of a session whose request names none: they identify the device. */
const identifyOperations: readonly Operation[] = [
  { name: 'Get', uri: './DevInfo' },
  ...['DevId', 'Man', 'Mod'].map((leaf) => ({ name: 'Get' as const, uri: `./DevInfo/${leaf}` })),
];

interface SessionRequest {
  readonly parameters: { readonly id: string };
  readonly body: v.InferOutput<typeof sessionBody>;
}

/** Handles the request for a session with a gateway or a device. */
const manage =
  (kind: Party['kind']) =>
  async (headend: Headend, { parameters: { id }, body }: SessionRequest) => {
    const { correlator, operations } = await headend.sessionOrders.run(
      kind,
      id,
      body.operations ?? identifyOperations,
    );
    if (operations) return { id, correlator, operations };
    return new Later(orderView(headend, existing(headend.orders.find(correlator), `order ${correlator}`)));
  };

/** An assignment, with the bootstrap that it asks for. */
function assignmentView(headend: Headend, device: string) {
  const { gateway, order } = existing(
    headend.policy.bootstrapOf(device),
    `assignment of ${device}: it stays with the gateway that it is heard through`,
  );
  return { device, gateway, ...(order && { bootstrap: stateOf(order) }) };
}

/** Gateways, devices, their sessions and their alerts. */
const partyRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/healthz',
    summary: 'Whether the server is connected to its broker',
    status: 200,
    answers: healthAnswer,
    handle: ({ connected, problems }) => ({
      connected,
      ...(problems.length > 0 && { problems: [...problems] }),
    }),
  }),
  route({
    method: 'GET',
    path: '/counts',
    summary: 'Counts the events of this server by name since its start (docs/events.md)',
    status: 200,
    answers: countsAnswer,
    handle: ({ events }) => Object.fromEntries(events.counts),
  }),
  route({
    method: 'GET',
    path: '/gateways',
    summary: 'Lists gateways, and whether each is online',
    status: 200,
    answers: gatewaysAnswer,
    handle: (headend) => headend.gateways(),
  }),
  route({
    method: 'POST',
    path: '/gateways/{id}/sessions',
    summary: 'Asks a gateway for a session and does operations in it; without operations, reads its DevInfo',
    body: sessionBody,
    status: 200,
    answers: sessionAnswer,
    handle: manage('gateway'),
  }),
  route({
    method: 'GET',
    path: '/devices',
    summary: 'Lists devices, and the gateway that each is behind',
    status: 200,
    answers: devicesAnswer,
    handle: (headend) => headend.devices(),
  }),
  route({
    method: 'POST',
    path: '/devices/{id}/sessions',
    summary:
      'Asks a device for a session through its gateway and does operations in it; without operations, reads its DevInfo. 202 for a device that cannot be asked, such as a client that polls over HTTP: they wait until it comes by itself, for `headend.patience` seconds at most',
    body: sessionBody,
    status: 200,
    answers: sessionAnswer,
    later: orderAnswer,
    handle: manage('device'),
  }),
  route({
    method: 'GET',
    path: '/sessions',
    summary: 'Lists the DM sessions that have not ended',
    status: 200,
    answers: sessionsAnswer,
    handle: (headend) => headend.sessions(),
  }),
  route({
    method: 'GET',
    path: '/alerts',
    summary: 'Lists alerts of gateways and devices, the latest first; `before` selects the next page',
    query: pageQuery,
    status: 200,
    answers: alertsAnswer,
    handle: (headend, { query: { limit, before } }) => headend.records.alerts(limit, before),
  }),
  route({
    method: 'GET',
    path: '/orders',
    summary:
      'Lists orders of all kinds with their states, the latest first; `before` selects the next page. The latest 1000 of each kind are kept',
    query: pageQuery,
    status: 200,
    answers: v.array(orderAnswer),
    handle: (headend, { query: { limit, before } }) =>
      headend.orders.latest(limit, before).map((order) => orderView(headend, order)),
  }),
  route({
    method: 'GET',
    path: '/orders/{correlator}',
    summary: 'One order of any kind, from its acceptance to its end',
    status: 200,
    answers: orderAnswer,
    handle: (headend, { parameters: { correlator } }) =>
      orderView(headend, existing(headend.orders.find(correlator), `order ${correlator}`)),
  }),
];

/** Assignments of devices to gateways. */
const policyRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/policies',
    summary:
      'Lists the devices that are assigned to a gateway; any other device stays with the gateway that it is heard through',
    status: 200,
    answers: assignmentsAnswer,
    handle: (headend) => headend.records.assignments().map(({ device }) => assignmentView(headend, device)),
  }),
  route({
    method: 'PUT',
    path: '/policies/{device}',
    summary: 'Assigns a device to a gateway; in its next session the device is bootstrapped to this gateway',
    body: assignmentBody,
    status: 200,
    answers: assignmentAnswer,
    handle: (headend, { parameters: { device }, body: { gateway } }) => {
      headend.assign(device, gateway);
      return assignmentView(headend, device);
    },
  }),
  route({
    method: 'GET',
    path: '/policies/{device}',
    summary: 'The assignment of a device, and the state of its bootstrap to that gateway',
    status: 200,
    answers: assignmentAnswer,
    handle: (headend, { parameters: { device } }) => assignmentView(headend, device),
  }),
  route({
    method: 'DELETE',
    path: '/policies/{device}',
    summary: 'Removes the assignment of a device, if there is one',
    status: 200,
    answers: removedAnswer,
    handle: (headend, { parameters: { device } }) => {
      headend.assign(device, undefined);
      return { removed: device };
    },
  }),
];

/** The routes of the head-end's HTTP API. Bodies and answers are JSON. */
export const routes: readonly Route[] = [
  ...partyRoutes,
  ...operationRoutes,
  ...telemetryRoutes,
  ...policyRoutes,
  ...enrolmentRoutes,
  ...departureRoutes,
];
