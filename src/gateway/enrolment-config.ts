import * as v from 'valibot';
import { described, fileOf, mqttUrl, secret, text, together } from '../base/config.ts';

const enrolmentTable = v.strictObject({
  folder: described(
    v.optional(text),
    'Folder of key, certificate and DM account of this gateway; by default `identity` beside the state file',
  ),
  'identity-key': described(
    v.optional(text),
    'File of the key that encrypts the secrets in `folder`, made when needed; by default `identity.key` beside the state file. Not used with `gateway.key-command`',
  ),
  url: described(
    v.optional(mqttUrl),
    'Address of the broker for the enrolment alone; by default `mqtt.url`. The broker is checked against `mqtt.ca`',
  ),
  cert: described(
    v.optional(fileOf('certificate')),
    'PEM file of the claim certificate, which may do nothing but ask',
  ),
  key: described(v.optional(fileOf('private-key')), 'PEM file of its key'),
  username: described(v.optional(text), 'User name at the broker, instead of a claim certificate'),
  password: described(v.optional(secret), 'Password at the broker'),
  code: described(v.optional(secret), 'One-time code, as `POST /enrolment-codes` of the head-end makes it'),
  serial: described(v.optional(text), 'Serial number of the board, by which the head-end may know it'),
});

/** The table `[enrolment]`. */
export const enrolmentSection = described(
  v.optional(
    v.pipe(
      enrolmentTable,
      together<v.InferOutput<typeof enrolmentTable>>('cert', 'key'),
      v.check(
        ({ cert, username }) => (cert === undefined) !== (username === undefined),
        'one of cert and username is needed, and not both: the broker must know who asks',
      ),
    ),
  ),
  'Enrolment at the first start: this gateway makes its key and asks the head-end for its certificate and its DM account. `mqtt.cert`, `mqtt.key` and the secrets of `dm-server` are then left out',
);
