import { PosternError } from '../base/errors.ts';
import { type Route, route } from './api-route.ts';
import { fanoutBody, groupBody, imageBody, triggerBody } from './api-schemas.ts';
import { outcomeView } from './api-views.ts';
import type { Headend } from './headend.ts';
import { commandXml } from './orders.ts';

/** @throws {PosternError} `notFound` */
function existing<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new PosternError('notFound', `no ${what}`);
  return value;
}

/** Handles the request for the result of one operation. */
const resultOf =
  (kind: string, what: string) =>
  (headend: Headend, { parameters: { gateway, name } }: { parameters: { gateway: string; name: string } }) =>
    existing(headend.records.result(kind, gateway, name), `${what} ${name} of ${gateway} has ended`);

/** Fan-outs, triggers, images and groups: operations of a gateway on many devices, and what they need. */
export const operationRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/fanouts',
    summary: 'Fan-outs that have ended, and what they came to',
    status: 200,
    handle: (headend) => headend.fanouts(),
  }),
  route({
    method: 'POST',
    path: '/fanouts',
    summary: 'Has a gateway do operations on many devices, by sessions of its own with them (proxy mode)',
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
    summary: 'What a fan-out came to; 404 until it has ended',
    status: 200,
    handle: resultOf('CommandFanout', 'fan-out'),
  }),
  route({
    method: 'POST',
    path: '/triggers',
    summary:
      'Has a gateway ask many devices for a session each with this server, and does operations in them',
    body: triggerBody,
    status: 202,
    handle: async (headend, { body: { gateway, ...request } }) =>
      await headend.trigger(gateway, { ...request, targets: {} }),
  }),
  route({
    method: 'GET',
    path: '/triggers/{gateway}/{name}',
    summary: 'How the sessions stand that a trigger asked for; status 0 is still to come',
    status: 200,
    handle: (headend, { parameters: { gateway, name } }) =>
      existing(headend.triggered(gateway, name), `trigger ${name} of ${gateway}`).map(
        ({ device, status, outcomes }) => ({ device, status, operations: outcomes.map(outcomeView) }),
      ),
  }),
  route({
    method: 'GET',
    path: '/images',
    summary: 'What operations on images came to',
    status: 200,
    handle: (headend) => headend.records.results('ImageOperation'),
  }),
  route({
    method: 'POST',
    path: '/images',
    summary: "Puts an image into a gateway's Image Inventory, from a URL or as it is",
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
    summary: 'What the download of an image came to; 404 until it has ended',
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
