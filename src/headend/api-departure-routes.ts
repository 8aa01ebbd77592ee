import * as v from 'valibot';
import { described, identifier, together } from '../base/config.ts';
import { deskOf } from './api-enrolment-routes.ts';
import { type Route, route } from './api-route.ts';
import { pageQuery } from './api-schemas.ts';
import { type Departure, departureOrders, departureStates, type NextOwner } from './departures.ts';
import type { Headend } from './headend.ts';

const text = (description: string) => described(v.string(), description);
const short = (description: string) =>
  described(v.pipe(v.string(), v.minLength(1), v.maxLength(255)), description);
const time = (description: string) =>
  described(v.pipe(v.string(), v.isoTimestamp()), `${description}, ISO 8601`);

const by = v.optional(short('Who orders it, for the record'), 'api');

const decommissionBody = v.strictObject({
  by,
  force: v.optional(
    described(
      v.boolean(),
      'true: the account is void at once, whether the gateway hears the order or not. The board wipes itself when it hears of it',
    ),
    false,
  ),
});

const transferTable = v.strictObject({
  by,
  server: described(identifier, 'ServerID of the next owner'),
  code: short('One-time code that the next owner made for this gateway'),
  url: v.optional(short('Broker of the next owner; absent where it is the same')),
  ca: v.optional(text('Authorities for that broker, PEM')),
  cert: v.optional(text('Claim certificate at that broker, PEM')),
  key: v.optional(text('Key of the claim certificate, PEM')),
  username: v.optional(short('User name at that broker, instead of a claim certificate')),
  password: v.optional(short('Password at that broker')),
  keep: v.optional(described(v.boolean(), 'false: the gateway gives up its devices and its state'), true),
});

type TransferTable = v.InferOutput<typeof transferTable>;
const transferBody = v.pipe(
  transferTable,
  together<TransferTable>('cert', 'key'),
  together<TransferTable>('username', 'password'),
);

const departureAnswer = v.strictObject({
  number: described(v.number(), 'Rises with each order. `before` takes it'),
  gateway: text('The gateway'),
  key: text('ID of the key of its board'),
  order: described(v.picklist(departureOrders), 'What was ordered'),
  state: described(
    v.picklist(departureStates),
    'ordered: it waits for the gateway. given: it was sent, and the answer has not come. accepted: the gateway carries it out. withdrawing: it is taken back, and the gateway has not confirmed it yet. done: the gateway is gone, and its account void. refused: by the gateway, or the next owner. cancelled: it was taken back',
  ),
  by: text('Who ordered it'),
  reason: v.exactOptional(text('Why it was refused or cancelled, or cannot be taken back, for a person')),
  ordered: time('When it was ordered'),
  ended: v.exactOptional(time('When it ended')),
});

const iso = (at: number): string => new Date(at).toISOString();

const view = ({ ordered, ended, ...rest }: Departure) => ({
  ...rest,
  ordered: iso(ordered),
  ...(ended !== undefined && { ended: iso(ended) }),
});

/** The latest order of a gateway. */
const latest = (headend: Headend, gateway: string) => view(deskOf(headend).departures.latest(gateway)!);

const takeBack = [
  ['decommission', 'Takes the order to decommission a gateway back, while the gateway does not have it'],
  [
    'transfer',
    'Takes a transfer back, as long as the gateway has not taken its next owner. A gateway that may have the order confirms it: `withdrawing` until then, and `accepted` again with a `reason` when it has its next owner, who alone can give it back',
  ],
] as const;

/** Orders that gateways leave this server. */
export const departureRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/departures',
    summary: 'Lists the orders that gateways leave, the latest first; `before` selects the next page',
    query: pageQuery,
    status: 200,
    answers: v.array(departureAnswer),
    handle: (headend, { query: { limit, before } }) =>
      deskOf(headend).departures.list(limit, before).map(view),
  }),
  route({
    method: 'POST',
    path: '/gateways/{gateway}/decommission',
    summary:
      'Decommissions a gateway: it revokes its devices, wipes itself and tells. The order waits for a gateway that is offline',
    body: decommissionBody,
    status: 202,
    answers: departureAnswer,
    handle: (headend, { parameters: { gateway }, body: { by: who, force } }) => {
      deskOf(headend).leave(gateway, who, force);
      return latest(headend, gateway);
    },
  }),
  route({
    method: 'POST',
    path: '/gateways/{gateway}/transfer',
    summary:
      'Passes a gateway to another owner. It is enrolled there by the code first, and belongs to this server until then',
    body: transferBody,
    status: 202,
    answers: departureAnswer,
    handle: (headend, { parameters: { gateway }, body: { by: who, ...next } }) => {
      deskOf(headend).leave(gateway, who, false, next as NextOwner);
      return latest(headend, gateway);
    },
  }),
  ...takeBack.map(([order, summary]) =>
    route({
      method: 'DELETE',
      path: `/gateways/{gateway}/${order}`,
      summary,
      status: 200,
      answers: departureAnswer,
      handle: (headend, { parameters: { gateway } }) => {
        deskOf(headend).takeBack(gateway, order);
        return latest(headend, gateway);
      },
    }),
  ),
];
