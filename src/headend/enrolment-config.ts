import * as v from 'valibot';
import { described, fileOf, identifier, integerBetween, namePattern, text } from '../base/config.ts';

const claim = described(
  v.optional(identifier),
  'Only boards that ask by this claim certificate or user name; any if absent',
);

/** The table `[enrolment]` of a head-end. */
export const headendEnrolmentSection = described(
  v.optional(
    v.strictObject({
      'ca-cert': described(
        fileOf('certificate'),
        'PEM file of the authority that issues the certificates of gateways, followed by its issuers. The broker must trust it',
      ),
      'ca-key': described(fileOf('private-key'), 'PEM file of its key'),
      days: described(v.optional(integerBetween(1, 3650), 90), 'Days for which a certificate is valid'),
      claims: described(
        v.optional(v.array(identifier), ['claim']),
        'Names of claim certificates, and user names by which boards ask. No gateway gets one of them as its name',
      ),
      allow: described(
        v.optional(
          v.array(
            v.pipe(
              v.strictObject({
                gateway: described(v.optional(identifier), 'Name of the gateway'),
                serial: described(v.optional(text), 'Serial number of the board'),
                claim,
              }),
              v.check(
                ({ gateway, serial }) => gateway !== undefined || serial !== undefined,
                'gateway or serial is needed',
              ),
            ),
          ),
          [],
        ),
        'Boards that are approved without a person. All keys of an entry must fit. The first board that asks by a name gets it',
      ),
      policy: described(
        v.optional(
          v.array(
            v.strictObject({
              gateway: described(
                namePattern,
                'Name of the gateway, or the beginning of names followed by `*`',
              ),
              claim,
              rate: described(integerBetween(1, 100_000), 'Boards per hour that are approved at most'),
            }),
          ),
          [],
        ),
        'Patterns of names that are approved without a person. The first one that fits counts. Boards beyond its rate wait for a person, or ask again later',
      ),
    }),
  ),
  'Enrolment of gateways: this server issues their certificates and DM accounts. Off without this table. Workers of one group have a state each, so enrolled accounts are known to one worker only: use it with a single worker',
);

export type EnrolmentConfig = NonNullable<v.InferOutput<typeof headendEnrolmentSection>>;
