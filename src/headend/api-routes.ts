import type * as v from 'valibot';
import type { Operation } from '../dm/server-session.ts';
import { operationRoutes } from './api-operation-routes.ts';
import { type Route, route } from './api-route.ts';
import { assignmentBody, pageQuery, sessionBody } from './api-schemas.ts';
import { outcomeView } from './api-views.ts';
import type { Headend } from './headend.ts';

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
async function manage(headend: Headend, { parameters: { id }, body }: SessionRequest) {
  const outcomes = await headend.manage(id, body.operations ?? identifyOperations);
  return { id, operations: outcomes.map(outcomeView) };
}

/** Gateways, devices, their sessions and their alerts. */
const partyRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/healthz',
    summary: 'Whether the server is connected to its broker',
    status: 200,
    handle: (headend) => ({ connected: headend.connected }),
  }),
  route({
    method: 'GET',
    path: '/counts',
    summary: 'Counts the events of this server by name since its start (docs/events.md)',
    status: 200,
    handle: ({ events }) => Object.fromEntries(events.counts),
  }),
  route({
    method: 'GET',
    path: '/gateways',
    summary: 'Lists gateways, and whether each is online',
    status: 200,
    handle: (headend) => headend.gateways(),
  }),
  route({
    method: 'POST',
    path: '/gateways/{id}/sessions',
    summary: 'Asks a gateway for a session and does operations in it; without operations, reads its DevInfo',
    body: sessionBody,
    status: 200,
    handle: manage,
  }),
  route({
    method: 'GET',
    path: '/devices',
    summary: 'Lists devices, and the gateway that each is behind',
    status: 200,
    handle: (headend) => headend.devices(),
  }),
  route({
    method: 'POST',
    path: '/devices/{id}/sessions',
    summary:
      'Asks a device for a session through its gateway and does operations in it; without operations, reads its DevInfo',
    body: sessionBody,
    status: 200,
    handle: manage,
  }),
  route({
    method: 'GET',
    path: '/sessions',
    summary: 'Lists the sessions that have not ended',
    status: 200,
    handle: (headend) => headend.sessions(),
  }),
  route({
    method: 'GET',
    path: '/alerts',
    summary: 'Lists alerts of gateways and devices, the latest first; `before` selects the next page',
    query: pageQuery,
    status: 200,
    handle: (headend, { query: { limit, before } }) => headend.records.alerts(limit, before),
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
    handle: (headend) => headend.records.assignments(),
  }),
  route({
    method: 'PUT',
    path: '/policies/{device}',
    summary: 'Assigns a device to a gateway; in its next session the device is bootstrapped to this gateway',
    body: assignmentBody,
    status: 200,
    handle: (headend, { parameters: { device }, body: { gateway } }) => {
      headend.assign(device, gateway);
      return { device, gateway };
    },
  }),
  route({
    method: 'DELETE',
    path: '/policies/{device}',
    summary: 'Removes the assignment of a device',
    status: 200,
    handle: (headend, { parameters: { device } }) => {
      headend.assign(device, undefined);
      return { device };
    },
  }),
];

/** The routes of the head-end's HTTP API. Bodies and answers are JSON. */
export const routes: readonly Route[] = [...partyRoutes, ...operationRoutes, ...policyRoutes];
