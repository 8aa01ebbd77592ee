import * as v from 'valibot';
import { PosternError } from '../base/errors.ts';
import { gatewayOrderAnswer, groupAnswer, removedAnswer, triggerAnswer } from './api-answers.ts';
import { type Route, route } from './api-route.ts';
import { fanoutBody, groupBody, imageBody, triggerBody } from './api-schemas.ts';
import type { Headend } from './headend.ts';
import { gatewayOrder, gatewayOrders } from './order-views.ts';
import { commandXml } from './orders.ts';
import type { ResultKind } from './records.ts';

interface NamedRequest {
  readonly parameters: { readonly gateway: string; readonly name: string };
}

/** Handles the request for one order. */
const orderOf =
  (kind: ResultKind) =>
  (headend: Headend, { parameters: { gateway, name } }: NamedRequest) =>
    gatewayOrder(headend, kind, gateway, name);

/** Handles the request to delete one order. */
const deletionOf =
  (kind: ResultKind) =>
  async (headend: Headend, { parameters: { gateway, name } }: NamedRequest) => {
    await headend.deleteOrder(kind, gateway, name);
    return { removed: name };
  };

/** A trigger with its sessions. */
function triggerView(headend: Headend, gateway: string, name: string) {
  const sessions = headend.triggered(gateway, name);
  return {
    ...gatewayOrder(headend, 'DeviceTrigger', gateway, name),
    ...(sessions && {
      sessions: sessions.map(({ operations, ...session }) => ({ ...session, operations: [...operations] })),
    }),
  };
}

/** Fan-outs, triggers, images and groups: operations of a gateway on many devices, and what they need. */
export const operationRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/fanouts',
    summary: 'Lists fan-outs with their states and results, the latest last',
    status: 200,
    answers: v.array(gatewayOrderAnswer),
    handle: (headend) => gatewayOrders(headend, 'CommandFanout'),
  }),
  route({
    method: 'POST',
    path: '/fanouts',
    summary:
      'Starts a fan-out: a gateway does operations on many devices, in its own session with each (proxy mode). A name is taken until it is deleted or its order has failed: 409',
    body: fanoutBody,
    status: 202,
    answers: gatewayOrderAnswer,
    handle: async (headend, { body }) => {
      const { gateway, devices, group, where, operations, command: givenCommand, ...rest } = body;
      const command = givenCommand ?? (operations && commandXml(operations));
      if (command === undefined) throw new PosternError('malformed', 'operations or command: one is needed');
      await headend.fanOut(gateway, { ...rest, command, targets: { devices, group, where } });
      return gatewayOrder(headend, 'CommandFanout', gateway, rest.name);
    },
  }),
  route({
    method: 'GET',
    path: '/fanouts/{gateway}/{name}',
    summary: 'State of a fan-out, and its result when it has ended',
    status: 200,
    answers: gatewayOrderAnswer,
    handle: orderOf('CommandFanout'),
  }),
  route({
    method: 'DELETE',
    path: '/fanouts/{gateway}/{name}',
    summary:
      'Deletes a fan-out at its gateway and here. One that runs is stopped; sessions that are under way go on to their end',
    status: 200,
    answers: removedAnswer,
    handle: deletionOf('CommandFanout'),
  }),
  route({
    method: 'POST',
    path: '/triggers',
    summary:
      'Starts a trigger: a gateway asks many devices for a session with this server, which does operations in it. A name is taken as with fan-outs',
    body: triggerBody,
    status: 202,
    answers: triggerAnswer,
    handle: async (headend, { body: { gateway, ...request } }) => {
      await headend.trigger(gateway, { ...request, targets: {} });
      return triggerView(headend, gateway, request.name);
    },
  }),
  route({
    method: 'GET',
    path: '/triggers',
    summary: 'Lists triggers with their states and results, the latest last',
    status: 200,
    answers: v.array(gatewayOrderAnswer),
    handle: (headend) => gatewayOrders(headend, 'DeviceTrigger'),
  }),
  route({
    method: 'GET',
    path: '/triggers/{gateway}/{name}',
    summary: 'State of a trigger and of the sessions that it requested',
    status: 200,
    answers: triggerAnswer,
    handle: (headend, { parameters: { gateway, name } }) => triggerView(headend, gateway, name),
  }),
  route({
    method: 'DELETE',
    path: '/triggers/{gateway}/{name}',
    summary: 'Deletes a trigger at its gateway and here, and gives up its sessions',
    status: 200,
    answers: removedAnswer,
    handle: deletionOf('DeviceTrigger'),
  }),
  route({
    method: 'GET',
    path: '/images',
    summary: 'Lists orders for images with their states and results, the latest last',
    status: 200,
    answers: v.array(gatewayOrderAnswer),
    handle: (headend) => gatewayOrders(headend, 'ImageOperation'),
  }),
  route({
    method: 'POST',
    path: '/images',
    summary:
      "Puts an image into a gateway's Image Inventory: the gateway downloads it from a URL, or the body has it. Another order of this name replaces the image",
    body: imageBody,
    status: 202,
    answers: gatewayOrderAnswer,
    handle: async (headend, { body: { gateway, data, ...rest } }) => {
      if ((data === undefined) === (rest.url === undefined))
        throw new PosternError('malformed', 'url or data: one of them is needed');
      await headend.stageImage(gateway, {
        ...rest,
        data: data === undefined ? undefined : Buffer.from(data, 'base64'),
      });
      return gatewayOrder(headend, 'ImageOperation', gateway, rest.name);
    },
  }),
  route({
    method: 'GET',
    path: '/images/{gateway}/{name}',
    summary: 'State of the latest order for an image, by URL or by data',
    status: 200,
    answers: gatewayOrderAnswer,
    handle: orderOf('ImageOperation'),
  }),
  route({
    method: 'DELETE',
    path: '/images/{gateway}/{name}',
    summary: 'Deletes an image at its gateway, and its order here',
    status: 200,
    answers: removedAnswer,
    handle: deletionOf('ImageOperation'),
  }),
  route({
    method: 'PUT',
    path: '/groups/{id}',
    summary: 'Puts a group of devices into the inventory of a gateway',
    body: groupBody,
    status: 200,
    answers: groupAnswer,
    handle: async (headend, { parameters: { id }, body: { gateway, devices } }) => {
      const { name, status } = await headend.putGroup(gateway, { id, devices });
      return { gateway, name, status };
    },
  }),
];
