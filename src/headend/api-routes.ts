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
    path: '/gateways',
    summary: 'Gateways, and whether they are online',
    status: 200,
    handle: (headend) => headend.gateways(),
  }),
  route({
    method: 'POST',
    path: '/gateways/{id}/sessions',
    summary: 'Has a gateway open a session, and does operations in it; without any it is asked who it is',
    body: sessionBody,
    status: 200,
    handle: manage,
  }),
  route({
    method: 'GET',
    path: '/devices',
    summary: 'Devices, and the gateway that each is behind',
    status: 200,
    handle: (headend) => headend.devices(),
  }),
  route({
    method: 'POST',
    path: '/devices/{id}/sessions',
    summary: 'Has a device open a session through its gateway, and does operations in it',
    body: sessionBody,
    status: 200,
    handle: manage,
  }),
  route({
    method: 'GET',
    path: '/sessions',
    summary: 'Sessions that are under way',
    status: 200,
    handle: (headend) => headend.sessions(),
  }),
  route({
    method: 'GET',
    path: '/alerts',
    summary:
      'Alerts that gateways and devices reported, the latest first; `before` goes on with the next page',
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
    summary: 'Gateways that were chosen for devices; others belong to the gateway that they come through',
    status: 200,
    handle: (headend) => headend.records.assignments(),
  }),
  route({
    method: 'PUT',
    path: '/policies/{device}',
    summary: 'Chooses the gateway that a device belongs to: at its next session it is bootstrapped to it',
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
    summary: 'Takes such a choice back',
    status: 200,
    handle: (headend, { parameters: { device } }) => {
      headend.assign(device, undefined);
      return { device };
    },
  }),
];

/** The routes of the head-end's HTTP API. Bodies and answers are JSON. */
export const routes: readonly Route[] = [...partyRoutes, ...operationRoutes, ...policyRoutes];
