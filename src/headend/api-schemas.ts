import * as v from 'valibot';

const uri = v.pipe(
  v.string(),
  v.startsWith('./', 'a node such as ./DevInfo/Mod or ./3/0/9'),
  v.description('Node of the management tree'),
);
const id = v.pipe(
  v.string(),
  v.minLength(1, 'an ID of 1 to 200 characters'),
  v.maxLength(200, 'an ID of 1 to 200 characters'),
);
const gateway = v.pipe(id, v.description('Name of the gateway, as in GET /gateways'));
const name = v.pipe(
  v.string(),
  v.regex(/^[\w.-]{1,64}$/, 'a name of 1 to 64 letters, digits, _ . -'),
  v.description('Name of the node for it in the tree of the gateway'),
);
const whole = v.pipe(v.number(), v.integer(), v.minValue(1));
const atLeast0 = v.pipe(v.number(), v.integer(), v.minValue(0));

/** The optional fields are exact: `NodeOperation` allows them to be absent, but not to be undefined. */
const nodeOperation = v.strictObject({
  name: v.picklist(['Get', 'Add', 'Replace', 'Delete', 'Copy', 'Exec']),
  uri,
  format: v.exactOptional(
    v.pipe(v.string(), v.description('Format of data: chr (if absent), int, bool, bin, xml, node, …')),
  ),
  type: v.exactOptional(v.pipe(v.string(), v.description('Media type of data'))),
  data: v.exactOptional(v.pipe(v.string(), v.description('Value to write, or argument of an Exec'))),
  from: v.exactOptional(v.pipe(uri, v.description('Source of a Copy'))),
  correlator: v.exactOptional(
    v.pipe(v.string(), v.description('Of an Exec: repeated by the alert that reports its result')),
  ),
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
  gateway,
  name,
  returnFormat: v.optional(
    v.pipe(
      v.picklist([0, 1, 2, 3]),
      v.description(
        'How detailed the result is. 0: all values of each device. 1: how often each outcome occurred. 2: also which devices. 3 (if absent): which devices, for failures only',
      ),
    ),
  ),
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
  gateway,
  name,
  version: v.optional(v.pipe(v.string(), v.description('Version of the software'))),
  url: v.optional(
    v.pipe(v.string(), v.description('URL from which the gateway downloads it (HTTP or HTTPS)')),
  ),
  data: v.optional(
    v.pipe(
      v.string(),
      v.base64('the image as base64, as of `base64 -w0 FILE`'),
      v.description('Instead of url: the image itself, as base64'),
    ),
  ),
  hash: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^[0-9a-fA-F]{64}$/, 'a SHA-256 in hexadecimal: 64 digits'),
      v.description('SHA-256 in hexadecimal. Computed here from data when absent'),
    ),
  ),
  signature: v.optional(
    v.pipe(
      v.string(),
      v.description(
        'Base64 of a signature over the 32 octets of the SHA-256, for gateways with images.signing-keys',
      ),
    ),
  ),
  dropEarlier: v.optional(
    v.pipe(
      v.boolean(),
      v.description('Whether the earlier version of this image may be deleted when both do not fit'),
    ),
  ),
});

/** Body of an observation. */
export const observationBody = v.strictObject({
  name,
  ...targets,
  paths: v.pipe(
    v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(255))),
    v.minLength(1),
    v.maxLength(64),
    v.description('Paths on the devices: 3303/0/5700 of an LwM2M client, ./Sensor/Temp of an OMA DM device'),
  ),
  pmin: v.optional(v.pipe(atLeast0, v.description('Seconds between two notifications at least'))),
  pmax: v.optional(
    v.pipe(
      atLeast0,
      v.description('Seconds between two notifications at most. An OMA DM device is asked so often'),
    ),
  ),
  gt: v.optional(v.pipe(v.number(), v.description('A value that crosses this number is told'))),
  lt: v.optional(v.pipe(v.number(), v.description('A value that crosses this number is told'))),
  st: v.optional(
    v.pipe(v.number(), v.gtValue(0), v.description('A value that has changed by so much is told')),
  ),
  reportPeriod: v.optional(
    v.pipe(
      whole,
      v.maxValue(86_400),
      v.description('Seconds that a value waits for others at most; 60 by default'),
    ),
  ),
  reportCount: v.optional(
    v.pipe(atLeast0, v.maxValue(16_384), v.description('Values after which they are reported before that')),
  ),
  lifetime: v.optional(v.pipe(atLeast0, v.description('Seconds until it ends; 0, the default: it does not'))),
});

const instant = (text: string) =>
  v.optional(
    v.pipe(
      v.string(),
      v.isoTimestamp('a time such as 2026-01-31T12:00:00Z'),
      v.transform((time) => Date.parse(time)),
      v.description(text),
    ),
  );

/** Body of a group. */
export const groupBody = v.strictObject({
  gateway,
  devices: v.pipe(
    v.array(id),
    v.maxLength(10_000),
    v.description('Members by DevId; all before are replaced'),
  ),
});

/** Body of an assignment of a device to a gateway. */
export const assignmentBody = v.strictObject({ gateway });

/** Query of a list that is read page by page, the latest entry first. */
export const pageQuery = v.strictObject({
  limit: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,4}$/, 'a number of at most 4 digits'),
      v.transform(Number),
      v.description('Entries of a page at most; 100 if absent'),
    ),
    '100',
  ),
  before: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,15}$/, 'the number of an entry'),
      v.transform(Number),
      v.description('Only entries with a lower number: the number of the last entry of the page before'),
    ),
  ),
});

/** Query of the history of a path. */
export const historyQuery = v.strictObject({
  ...pageQuery.entries,
  path: v.pipe(
    v.string(),
    v.minLength(1),
    // An order says 3303/0/5700 or ./Sensor/Temp, and a report /3303/0/5700: all of them are the same path.
    v.transform((path) => `/${path.replace(/^\.?\//, '')}`),
    v.description(
      'Path on the device, as in an order or in an answer: 3303/0/5700, ./Sensor/Temp, /3303/0/5700',
    ),
  ),
  from: instant('Values of this time and later, ISO 8601'),
  to: instant('Values of this time and earlier, ISO 8601'),
});
