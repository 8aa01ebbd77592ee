import * as v from 'valibot';

const uri = v.pipe(v.string(), v.startsWith('./'), v.description('Node of the management tree'));
const id = v.pipe(v.string(), v.minLength(1), v.maxLength(200));
const name = v.pipe(
  v.string(),
  v.regex(/^[\w.-]{1,64}$/, 'a name of letters, digits, _ . -'),
  v.description('Name of the node for it in the tree of the gateway'),
);
const whole = v.pipe(v.number(), v.integer(), v.minValue(1));

/** The optional fields are exact: `NodeOperation` allows them to be absent, but not to be undefined. */
const nodeOperation = v.strictObject({
  name: v.picklist(['Get', 'Add', 'Replace', 'Delete', 'Copy', 'Exec']),
  uri,
  format: v.exactOptional(v.string()),
  type: v.exactOptional(v.string()),
  data: v.exactOptional(v.string()),
  from: v.exactOptional(uri),
  correlator: v.exactOptional(v.string()),
});

/** A `UserInteraction`. */
const interaction = v.strictObject({
  name: v.literal('Alert'),
  code: v.pipe(v.number(), v.integer(), v.minValue(1100), v.maxValue(1104)),
  items: v.array(v.string()),
});

/** A `Compound` of one level: the API does not accept compounds inside compounds. */
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
  v.description('DM commands, in order; Atomic and Sequence contain commands'),
);

/** The devices of a campaign, see `Targets`. */
const targets = {
  devices: v.optional(v.pipe(v.array(id), v.maxLength(10_000), v.description('Devices by DevId'))),
  group: v.optional(v.pipe(id, v.description("A group of the gateway's inventory"))),
  where: v.optional(
    v.pipe(
      v.record(v.string(), v.string()),
      v.description(
        'Conditions: names of leaves of the inventory record, and the values that they must have',
      ),
    ),
  ),
};

/** What fan-outs and triggers have in common. */
const campaign = {
  gateway: id,
  name,
  returnFormat: v.optional(v.picklist([0, 1, 2, 3])),
  deadline: v.optional(v.pipe(whole, v.description('Seconds for the whole campaign; 3600 by default'))),
};

/** Body of a request for a session. */
export const sessionBody = v.strictObject({ operations: v.optional(operations) });

/** Body of a fan-out. */
export const fanoutBody = v.strictObject({
  ...campaign,
  ...targets,
  operations: v.optional(operations),
  command: v.optional(
    v.pipe(v.string(), v.description('Instead of operations: commands as XML, as in a SyncBody')),
  ),
  timeout: v.optional(v.pipe(whole, v.description('Seconds for a device to open a session'))),
});

/** Body of a trigger. */
export const triggerBody = v.strictObject({
  ...campaign,
  devices: v.pipe(v.array(id), v.minLength(1), v.maxLength(10_000)),
  operations,
});

/** Body of an image. `data` is base64. */
export const imageBody = v.strictObject({
  gateway: id,
  name,
  version: v.optional(v.string()),
  url: v.optional(
    v.pipe(v.string(), v.description('URL from which the gateway downloads it (HTTP or HTTPS)')),
  ),
  data: v.optional(
    v.pipe(v.string(), v.base64('base64'), v.description('Instead of url: the image itself, as base64')),
  ),
  hash: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-fA-F]{64}$/, 'a SHA-256 in hexadecimal'))),
  signature: v.optional(v.string()),
  dropEarlier: v.optional(
    v.pipe(
      v.boolean(),
      v.description('Whether the earlier version of this image may be deleted when both do not fit'),
    ),
  ),
});

/** Body of a group. */
export const groupBody = v.strictObject({ gateway: id, devices: v.pipe(v.array(id), v.maxLength(10_000)) });

/** Body of an assignment of a device to a gateway. */
export const assignmentBody = v.strictObject({ gateway: id });

/** Query of a list that is read page by page, the latest entry first. */
export const pageQuery = v.strictObject({
  limit: v.optional(v.pipe(v.string(), v.regex(/^\d{1,4}$/, 'a number'), v.transform(Number)), '100'),
  before: v.optional(v.pipe(v.string(), v.regex(/^\d{1,15}$/, 'a number'), v.transform(Number))),
});
