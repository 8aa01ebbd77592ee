import * as v from 'valibot';
import { existing } from '../base/errors.ts';
import { observationAnswer, observationStatusAnswer, removedAnswer, valueAnswer } from './api-answers.ts';
import { type Route, route } from './api-route.ts';
import { historyQuery, observationBody } from './api-schemas.ts';

/** Observations at gateways, and the values of devices that they report. */
export const telemetryRoutes: readonly Route[] = [
  route({
    method: 'POST',
    path: '/gateways/{id}/observations',
    summary:
      'Has a gateway observe values of devices and report them. One of this name is replaced, so the same request can be repeated',
    body: observationBody,
    status: 200,
    answers: observationAnswer,
    handle: async (headend, { parameters: { id }, body }) => {
      const { devices, group, where, pmin, pmax, gt, lt, st, ...rest } = body;
      return await headend.observations.order(id, {
        ...rest,
        targets: { devices, group, where },
        attributes: { pmin, pmax, gt, lt, st },
      });
    },
  }),
  route({
    method: 'GET',
    path: '/gateways/{id}/observations',
    summary: 'Lists the observations that were ordered at a gateway, the latest last',
    status: 200,
    answers: v.array(observationAnswer),
    handle: (headend, { parameters: { id } }) => headend.observations.list(id),
  }),
  route({
    method: 'GET',
    path: '/gateways/{id}/observations/{name}',
    summary: 'Asks a gateway in a session how an observation stands',
    status: 200,
    answers: observationStatusAnswer,
    handle: async (headend, { parameters: { id, name } }) => ({
      ...existing(headend.observations.get(id, name), `observation ${name} of ${id}`),
      status: await headend.observations.status(id, name),
    }),
  }),
  route({
    method: 'DELETE',
    path: '/gateways/{id}/observations/{name}',
    summary: 'Ends an observation at its gateway, and forgets it here. The values stay',
    status: 200,
    answers: removedAnswer,
    handle: async (headend, { parameters: { id, name } }) => {
      await headend.observations.end(id, name);
      return { removed: name };
    },
  }),
  route({
    method: 'GET',
    path: '/devices/{id}/values',
    summary: 'The latest value of each path of a device that its gateway has reported',
    status: 200,
    answers: v.array(valueAnswer),
    handle: (headend, { parameters: { id } }) => headend.values.latest(id),
  }),
  route({
    method: 'GET',
    path: '/devices/{id}/values/history',
    summary:
      'Values of one path of a device, the one that arrived last first; `before` selects the next page. The latest 100,000 of all devices are kept',
    query: historyQuery,
    status: 200,
    answers: v.array(valueAnswer),
    handle: (headend, { parameters: { id }, query: { path, ...rest } }) =>
      headend.values.history(id, path, rest),
  }),
];
