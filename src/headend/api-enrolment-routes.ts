import * as v from 'valibot';
import { described, identifier, integerBetween } from '../base/config.ts';
import { PosternError } from '../base/errors.ts';
import { type Route, route } from './api-route.ts';
import { pageQuery } from './api-schemas.ts';
import type { Enrolment } from './enrolment.ts';
import { codeLimit } from './enrolment-codes.ts';
import { type EnrolmentRecord, enrolmentStates } from './enrolment-records.ts';
import type { Headend } from './headend.ts';

const text = (description: string) => described(v.string(), description);
const time = (description: string) =>
  described(v.pipe(v.string(), v.isoTimestamp()), `${description}, ISO 8601`);

const enrolmentAnswer = v.strictObject({
  number: described(v.number(), 'Rises with each board. `before` takes it'),
  key: text('ID of the key of the board: the first 32 digits of the SHA-256 of its SubjectPublicKeyInfo'),
  gateway: text('Name that the board asks for'),
  serial: v.exactOptional(text('Serial number of the board, as it says itself')),
  claim: text('Claim certificate or user name by which it asks, as the broker knows it'),
  state: described(
    v.picklist(enrolmentStates),
    'waiting: a person decides. approved: it gets its certificate when it asks next. issued: the certificate was issued. refused: by a person. replaced: another board has the name now. gone: it was decommissioned or passed to another owner',
  ),
  by: v.exactOptional(text('What decided: code, replacement, list, policy or hand')),
  reason: v.exactOptional(text('Why it waits, was refused or replaced, or is gone, for a person')),
  asked: time('When it asked first'),
  decided: v.exactOptional(time('When it was approved or refused')),
  expires: v.exactOptional(time('When its certificate ends')),
});

const codeBody = v.strictObject({
  gateway: v.optional(
    described(
      identifier,
      'The only name that the code is good for, also if another board has it. Absent: any free name',
    ),
  ),
  hours: v.optional(described(integerBetween(1, 8760), 'Hours until the code ends; 168 if absent'), 168),
});

const codeAnswer = v.strictObject({
  code: text('The code. It is shown this once, and only its hash is kept'),
  gateway: v.exactOptional(text('The only name that the code is good for')),
  expires: time('When the code ends'),
});

const manifestBody = v.strictObject({
  version: described(v.literal(1), 'Version of this form'),
  batch: described(identifier, 'Name of the batch, for a person'),
  expires: time('When the codes of the boards end'),
  boards: v.pipe(
    v.array(
      v.strictObject({
        gateway: described(identifier, 'Name of the gateway'),
        serial: v.optional(text('Serial number on the label. It is not checked here')),
        hash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/), v.description('SHA-256 of its one-time code')),
      }),
    ),
    v.minLength(1),
    v.maxLength(codeLimit),
  ),
});

const manifestAnswer = v.strictObject({
  batch: text('Name of the batch'),
  taken: described(v.number(), 'Boards whose codes are new here'),
  known: described(v.number(), 'Boards whose codes were taken before'),
  expires: time('When the codes end'),
});

const approvalBody = v.strictObject({
  gateway: text(
    'Name that is approved, as `GET /enrolments` has shown it. A board that waits may ask for another one: then the answer is 409',
  ),
});

const refusalBody = v.strictObject({
  reason: v.optional(
    v.pipe(v.string(), v.minLength(1), v.maxLength(200), v.description('For the person at the board')),
    'an operator has refused it',
  ),
});

const replacementBody = v.strictObject({
  hours: v.optional(described(integerBetween(1, 8760), 'Hours until the order ends; 24 if absent'), 24),
  serial: v.optional(
    described(
      v.pipe(v.string(), v.minLength(1), v.maxLength(255)),
      'Serial number that the new board must have',
    ),
  ),
});

const replacementAnswer = v.strictObject({
  gateway: text('Name that the next board gets'),
  serial: v.exactOptional(text('Serial number that the new board must have')),
  expires: time('When the order ends'),
});

const iso = (at: number): string => new Date(at).toISOString();

const view = ({ publicKey: _key, chain: _chain, secrets: _secrets, ...record }: EnrolmentRecord) => {
  const { asked, decided, expires, ...rest } = record;
  return {
    ...rest,
    asked: iso(asked),
    ...(decided !== undefined && { decided: iso(decided) }),
    ...(expires !== undefined && { expires: iso(expires) }),
  };
};

/**
 * What enrols gateways.
 * @throws {PosternError} `notAllowed` without the table `enrolment`
 */
export function deskOf({ enrolment }: Headend): Enrolment {
  if (!enrolment)
    throw new PosternError(
      'notAllowed',
      'this server enrols no gateways: see the table enrolment of its configuration',
    );
  return enrolment;
}

/** Gateways that ask for their certificates. */
export const enrolmentRoutes: readonly Route[] = [
  route({
    method: 'GET',
    path: '/enrolments',
    summary: 'Lists boards that have asked to be enrolled, the latest first; `before` selects the next page',
    query: pageQuery,
    status: 200,
    answers: v.array(enrolmentAnswer),
    handle: (headend, { query: { limit, before } }) => deskOf(headend).list(limit, before).map(view),
  }),
  route({
    method: 'POST',
    path: '/enrolments/{key}/approve',
    summary:
      'Approves a board: it gets a certificate and a DM account. Another board of the same name loses its account',
    body: approvalBody,
    status: 200,
    answers: enrolmentAnswer,
    handle: async (headend, { parameters: { key }, body: { gateway } }) =>
      view(await deskOf(headend).approve(key, gateway)),
  }),
  route({
    method: 'POST',
    path: '/enrolments/{key}/refuse',
    summary: 'Refuses a board that waits. It may be approved later',
    body: refusalBody,
    status: 200,
    answers: enrolmentAnswer,
    handle: async (headend, { parameters: { key }, body: { reason } }) =>
      view(await deskOf(headend).refuse(key, reason)),
  }),
  route({
    method: 'POST',
    path: '/gateways/{gateway}/replacement',
    summary:
      'Orders that the next board which asks by this name replaces the board that is enrolled by it. The old board loses its account then',
    body: replacementBody,
    status: 200,
    answers: replacementAnswer,
    handle: (headend, { parameters: { gateway }, body: { hours, serial } }) => {
      const { expires, ...order } = deskOf(headend).replace(gateway, hours, serial);
      return { ...order, expires: iso(expires) };
    },
  }),
  route({
    method: 'DELETE',
    path: '/gateways/{gateway}/replacement',
    summary: 'Takes the order to replace a board back',
    status: 200,
    answers: v.strictObject({ removed: text('The gateway whose board stays') }),
    handle: (headend, { parameters: { gateway } }) => {
      deskOf(headend).keep(gateway);
      return { removed: gateway };
    },
  }),
  route({
    method: 'POST',
    path: '/enrolment-codes',
    summary: 'Makes a one-time code, by which one board is enrolled without a person',
    body: codeBody,
    status: 200,
    answers: codeAnswer,
    handle: (headend, { body: { hours, gateway } }) => {
      const { expires, ...code } = deskOf(headend).makeCode(hours, gateway);
      return { ...code, expires: iso(expires) };
    },
  }),
  route({
    method: 'POST',
    path: '/enrolment-manifests',
    summary:
      'Takes the boards of a batch from the factory: each is enrolled by its code without a person. All of them are taken, or none; a name that is in use is refused',
    body: manifestBody,
    status: 200,
    answers: manifestAnswer,
    handle: (headend, { body: { batch, expires, boards } }) => {
      const taken = deskOf(headend).takeManifest({ batch, expires: Date.parse(expires), boards });
      return { batch, taken, known: boards.length - taken, expires };
    },
  }),
];
