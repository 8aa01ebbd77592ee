import { PosternError } from '../base/errors.ts';
import { type Route, route } from './api-route.ts';
import { fanoutBody, groupBody, imageBody, triggerBody } from './api-schemas.ts';
import { outcomeView } from './api-views.ts';
import type { Headend } from './headend.ts';
import { commandXml } from './orders.ts';
import type { ResultKind } from './records.ts';

/** @throws {PosternError} `notFound` */
function existing<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new PosternError('notFound', `no ${what}`);
  return value;
}

/** Handles the request for the result of one operation. */
const resultOf =
  (kind: ResultKind, what: string) =>
  (headend: Headend, { parameters: { gateway, name } }: { parameters: { gateway: string; name: string } }) =>
    existing(headend.records.result(kind, gateway, name), `${what} ${name} of ${gateway} has ended`);

/** Fan-outs, triggers, images and groups: operations of a gateway on many devices, and what they need. */
export const operationRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/fanouts',
    summary: 'Lists the results of fan-outs that have ended',
    status: 200,
    handle: (headend) => headend.fanouts(),
  }),
  route({
    method: 'POST',
    path: '/fanouts',
    summary:
      'Starts a fan-out: a gateway does operations on many devices, in its own session with each (proxy mode)',
    body: fanoutBody,
    status: 202,
    handle: async (headend, { body }) => {
      const { gateway, devices, group, where, operations, command: givenCommand, ...rest } = body;
      const command = givenCommand ?? (operations && commandXml(operations));
      if (command === undefined) throw new PosternError('malformed', 'operations or command: one is needed');
      return await headend.fanOut(gateway, { ...rest, command, targets: { devices, group, where } });
    },
  }),
  route({
    method: 'GET',
    path: '/fanouts/{gateway}/{name}',
    summary: 'Result of a fan-out; 404 until it has ended',
    status: 200,
    handle: resultOf('CommandFanout', 'fan-out'),
  }),
  route({
    method: 'POST',
    path: '/triggers',
    summary:
      'Starts a trigger: a gateway asks many devices for a session with this server, which does operations in it',
    body: triggerBody,
    status: 202,
    handle: async (headend, { body: { gateway, ...request } }) =>
      await headend.trigger(gateway, { ...request, targets: {} }),
  }),
  route({
    method: 'GET',
    path: '/triggers/{gateway}/{name}',
    summary: 'State of the sessions that a trigger requested; status 0: the session has not ended yet',
    status: 200,
    handle: (headend, { parameters: { gateway, name } }) =>
      existing(headend.triggered(gateway, name), `trigger ${name} of ${gateway}`).map(
        ({ device, status, outcomes }) => ({ device, status, operations: outcomes.map(outcomeView) }),
      ),
  }),
  route({
    method: 'GET',
    path: '/images',
    summary: 'Lists the results of operations on images',
    status: 200,
    handle: (headend) => headend.records.results('ImageOperation'),
  }),
  route({
    method: 'POST',
    path: '/images',
    summary:
      "Puts an image into a gateway's Image Inventory: the gateway downloads it from a URL, or the body has it",
    body: imageBody,
    status: 202,
    handle: async (headend, { body: { gateway, data, ...rest } }) => {
      if ((data === undefined) === (rest.url === undefined))
        throw new PosternError('malformed', 'url or data: one of them is needed');
      return await headend.stageImage(gateway, {
        ...rest,
        data: data === undefined ? undefined : Buffer.from(data, 'base64'),
      });
    },
  }),
  route({
    method: 'GET',
    path: '/images/{gateway}/{name}',
    summary: 'Result of the download of an image; 404 until it has ended',
    status: 200,
    handle: resultOf('ImageOperation', 'download of image'),
  }),
  route({
    method: 'PUT',
    path: '/groups/{id}',
    summary: 'Puts a group of devices into the inventory of a gateway',
    body: groupBody,
    status: 200,
    handle: async (headend, { parameters: { id }, body: { gateway, devices } }) =>
      await headend.putGroup(gateway, { id, devices }),
  }),
];
