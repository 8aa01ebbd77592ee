import * as v from 'valibot';
import { PosternError } from '../base/errors.ts';
import { type Operation, type OperationOutcome, placeOf, textOfResult } from '../dm/server-session.ts';
import type { Headend } from './headend.ts';
import { commandXml, type FanoutRequest } from './orders.ts';

/** One thing that the API does. The OpenAPI document is made from these. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** `/devices/{id}/sessions`. */
  readonly path: string;
  readonly summary: string;
  readonly query?: v.GenericSchema;
  /** Of the body; none when it takes none. */
  readonly body?: v.GenericSchema;
  /** HTTP status of success. */
  readonly status: 200 | 202;
  readonly run: (headend: Headend, call: Call) => unknown;
}

export interface Call {
  readonly parameters: readonly string[];
  readonly query: unknown;
  readonly body: unknown;
}

const uri = v.pipe(v.string(), v.startsWith('./'), v.description('Node of the management tree'));
const id = v.pipe(v.string(), v.minLength(1), v.maxLength(200));
const name = v.pipe(
  v.string(),
  v.regex(/^[\w.-]{1,64}$/, 'a name of letters, digits, _ . -'),
  v.description('Name of the node that the gateway keeps it under'),
);
const whole = v.pipe(v.number(), v.integer(), v.minValue(1));

const nodeOperation = v.strictObject({
  name: v.picklist(['Get', 'Add', 'Replace', 'Delete', 'Copy', 'Exec']),
  uri,
  format: v.optional(v.string()),
  type: v.optional(v.string()),
  data: v.optional(v.string()),
  from: v.optional(uri),
  correlator: v.optional(v.string()),
});
const interaction = v.strictObject({
  name: v.literal('Alert'),
  code: v.pipe(v.number(), v.integer(), v.minValue(1100), v.maxValue(1104)),
  items: v.array(v.string()),
});
const compound = v.strictObject({
  name: v.picklist(['Atomic', 'Sequence']),
  operations: v.pipe(
    v.array(v.variant('name', [nodeOperation, interaction])),
    v.minLength(1),
    v.maxLength(63),
  ),
});
const operations = v.pipe(
  v.array(v.variant('name', [nodeOperation, interaction, compound])),
  v.minLength(1),
  v.maxLength(64),
  v.description('DM commands, in order; Atomic and Sequence hold others'),
);
const targets = {
  devices: v.optional(v.pipe(v.array(id), v.maxLength(10_000), v.description('Devices by DevId'))),
  group: v.optional(v.pipe(id, v.description("A group of the gateway's inventory"))),
  where: v.optional(
    v.pipe(v.record(v.string(), v.string()), v.description('Leaves of inventory records, and what they are')),
  ),
};
const campaign = {
  gateway: id,
  name,
  returnFormat: v.optional(v.picklist([0, 1, 2, 3])),
  deadline: v.optional(v.pipe(whole, v.description('Seconds for the whole'))),
};
const session = v.strictObject({ operations: v.optional(operations) });
const fanout = v.pipe(
  v.strictObject({
    ...campaign,
    ...targets,
    operations: v.optional(operations),
    command: v.optional(v.pipe(v.string(), v.description('Commands as SyncBody has them, instead'))),
    timeout: v.optional(v.pipe(whole, v.description('Seconds for a device to open a session'))),
  }),
);
const trigger = v.strictObject({
  ...campaign,
  devices: v.pipe(v.array(id), v.minLength(1), v.maxLength(10_000)),
  operations,
});
const image = v.strictObject({
  gateway: id,
  name,
  version: v.optional(v.string()),
  url: v.optional(v.pipe(v.string(), v.description('Where the gateway gets it, over HTTP or HTTPS'))),
  data: v.optional(v.pipe(v.string(), v.base64('base64'), v.description('The image itself, instead'))),
  hash: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-fA-F]{64}$/, 'a SHA-256 in hexadecimal'))),
  signature: v.optional(v.string()),
});
const group = v.strictObject({ gateway: id, devices: v.pipe(v.array(id), v.maxLength(10_000)) });
const assignment = v.strictObject({ gateway: id });
const page = v.strictObject({
  limit: v.optional(v.pipe(v.string(), v.regex(/^\d{1,4}$/, 'a number'), v.transform(Number)), '100'),
  before: v.optional(v.pipe(v.string(), v.regex(/^\d{1,15}$/, 'a number'), v.transform(Number))),
});

/** What a session does when nothing else is asked for: who are you. */
const look: readonly Operation[] = [
  { name: 'Get', uri: './DevInfo' },
  ...['DevId', 'Man', 'Mod'].map((leaf) => ({ name: 'Get' as const, uri: `./DevInfo/${leaf}` })),
];

const shown = ({ operation, status, results, parts }: OperationOutcome): object => ({
  name: operation.name,
  uri: placeOf(operation),
  status,
  ...(results.length > 0 && {
    results: results.map(({ uri: at, format, data }) => ({
      uri: at,
      format,
      data: textOfResult(data),
    })),
  }),
  ...(parts && { parts: parts.map(shown) }),
});

async function manage(headend: Headend, { parameters: [party = ''], body }: Call) {
  const { operations: wanted = look } = (body ?? {}) as { operations?: readonly Operation[] };
  const outcomes = await headend.manage(party, wanted);
  return { id: party, operations: outcomes.map(shown) };
}

/** @throws {PosternError} `notFound` */
function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new PosternError('notFound', `no ${what}`);
  return value;
}

const resultOf =
  (kind: string, what: string) =>
  (headend: Headend, { parameters: [gateway = '', called = ''] }: Call) =>
    found(headend.records.result(kind, gateway, called), `${what} ${called} of ${gateway} has ended`);

type Body<S extends v.GenericSchema> = v.InferOutput<S>;

/** The head-end's HTTP API, JSON both ways. */
export const routes: readonly Route[] = [
  {
    method: 'GET',
    path: '/healthz',
    summary: 'Whether the server is connected to its broker',
    status: 200,
    run: (headend) => ({ connected: headend.connected }),
  },
  {
    method: 'GET',
    path: '/gateways',
    summary: 'Gateways, and whether they are online',
    status: 200,
    run: (headend) => headend.gateways(),
  },
  {
    method: 'POST',
    path: '/gateways/{id}/sessions',
    summary: 'Has a gateway open a session, and does operations in it; without any it is asked who it is',
    body: session,
    status: 200,
    run: manage,
  },
  {
    method: 'GET',
    path: '/devices',
    summary: 'Devices, and the gateway that each is behind',
    status: 200,
    run: (headend) => headend.devices(),
  },
  {
    method: 'POST',
    path: '/devices/{id}/sessions',
    summary: 'Has a device open a session through its gateway, and does operations in it',
    body: session,
    status: 200,
    run: manage,
  },
  {
    method: 'GET',
    path: '/sessions',
    summary: 'Sessions that are under way',
    status: 200,
    run: (headend) => headend.sessions(),
  },
  {
    method: 'GET',
    path: '/alerts',
    summary:
      'Alerts that gateways and devices reported, the latest first; `before` goes on with the next page',
    query: page,
    status: 200,
    run: (headend, { query }) => {
      const { limit, before } = query as Body<typeof page>;
      return headend.records.alerts(limit, before);
    },
  },
  {
    method: 'GET',
    path: '/fanouts',
    summary: 'Fan-outs that have ended, and what they came to',
    status: 200,
    run: (headend) => headend.fanouts(),
  },
  {
    method: 'POST',
    path: '/fanouts',
    summary: 'Has a gateway do operations on many devices, by sessions of its own with them (proxy mode)',
    body: fanout,
    status: 202,
    run: async (headend, { body }) => {
      const {
        gateway,
        devices,
        group: of,
        where,
        operations: wanted,
        command,
        ...rest
      } = body as Body<typeof fanout>;
      const given = command ?? (wanted && commandXml(wanted as readonly Operation[]));
      if (given === undefined) throw new PosternError('malformed', 'operations or command: one is needed');
      const request: FanoutRequest = { ...rest, command: given, targets: { devices, group: of, where } };
      return await headend.fanOut(gateway, request);
    },
  },
  {
    method: 'GET',
    path: '/fanouts/{gateway}/{name}',
    summary: 'What a fan-out came to; 404 until it has ended',
    status: 200,
    run: resultOf('CommandFanout', 'fan-out'),
  },
  {
    method: 'POST',
    path: '/triggers',
    summary:
      'Has a gateway ask many devices for a session each with this server, and does operations in them',
    body: trigger,
    status: 202,
    run: async (headend, { body }) => {
      const { gateway, operations: wanted, ...rest } = body as Body<typeof trigger>;
      const wish = { ...rest, targets: {}, operations: wanted as readonly Operation[] };
      return await headend.trigger(gateway, wish);
    },
  },
  {
    method: 'GET',
    path: '/triggers/{gateway}/{name}',
    summary: 'How the sessions stand that a trigger asked for; status 0 is still to come',
    status: 200,
    run: (headend, { parameters: [gateway = '', called = ''] }) =>
      found(headend.triggered(gateway, called), `trigger ${called} of ${gateway}`).map(
        ({ device, status, outcomes }) => ({ device, status, operations: outcomes.map(shown) }),
      ),
  },
  {
    method: 'GET',
    path: '/images',
    summary: 'What operations on images came to',
    status: 200,
    run: (headend) => headend.records.results('ImageOperation'),
  },
  {
    method: 'POST',
    path: '/images',
    summary: "Puts an image into a gateway's Image Inventory, from a URL or as it is",
    body: image,
    status: 202,
    run: async (headend, { body }) => {
      const { gateway, data, ...rest } = body as Body<typeof image>;
      if ((data === undefined) === (rest.url === undefined))
        throw new PosternError('malformed', 'url or data: one of them is needed');
      return await headend.stageImage(gateway, {
        ...rest,
        data: data === undefined ? undefined : Buffer.from(data, 'base64'),
      });
    },
  },
  {
    method: 'GET',
    path: '/images/{gateway}/{name}',
    summary: 'What the download of an image came to; 404 until it has ended',
    status: 200,
    run: resultOf('ImageOperation', 'download of image'),
  },
  {
    method: 'PUT',
    path: '/groups/{id}',
    summary: 'Puts a group of devices into the inventory of a gateway',
    body: group,
    status: 200,
    run: async (headend, { parameters: [groupId = ''], body }) => {
      const { gateway, devices } = body as Body<typeof group>;
      return await headend.putGroup(gateway, { id: groupId, devices });
    },
  },
  {
    method: 'GET',
    path: '/policies',
    summary: 'Gateways that were chosen for devices; others belong to the gateway that they come through',
    status: 200,
    run: (headend) => headend.records.assignments(),
  },
  {
    method: 'PUT',
    path: '/policies/{device}',
    summary: 'Chooses the gateway that a device belongs to: at its next session it is bootstrapped to it',
    body: assignment,
    status: 200,
    run: (headend, { parameters: [device = ''], body }) => {
      const { gateway } = body as Body<typeof assignment>;
      headend.assign(device, gateway);
      return { device, gateway };
    },
  },
  {
    method: 'DELETE',
    path: '/policies/{device}',
    summary: 'Takes such a choice back',
    status: 200,
    run: (headend, { parameters: [device = ''] }) => {
      headend.assign(device, undefined);
      return { device };
    },
  },
];
