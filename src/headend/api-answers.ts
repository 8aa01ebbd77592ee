import * as v from 'valibot';
import { described } from '../base/config.ts';
import { valueTypes } from './device-values.ts';
import { observationStates } from './observation-desk.ts';
import { orderKinds, orderStates } from './order-book.ts';
import type { OutcomeView } from './outcome-view.ts';
import { resultKinds } from './records.ts';

/** Schemas of what the API answers. They check no request: the OpenAPI document and its test are made from them. */

const time = (text: string) => described(v.pipe(v.string(), v.isoTimestamp()), `${text}, ISO 8601`);
const text = (description: string) => described(v.string(), description);
const dmStatus = (description: string) =>
  described(v.pipe(v.number(), v.integer()), `${description} (docs/operations.md has the codes)`);

const correlator = text(
  'Names this order and no other one: GET /orders/{correlator}. The gateway repeats it in the alert with the result',
);
const gateway = text('Name of the gateway');
const deviceId = text('DevId of the device');

/** Outcome of one DM command. */
export const outcomeAnswer: v.GenericSchema<OutcomeView> = v.strictObject({
  name: text('Name of the DM command'),
  uri: text('Node that the command is for'),
  status: dmStatus('DM status of the command: 200 is done, 404 is no such node'),
  results: v.exactOptional(
    described(
      v.array(
        v.strictObject({
          uri: text('Node'),
          format: v.optional(
            text(
              'Format of the value: bin for octets, node for an interior node; chr, int, bool, float, xml, date, time, null',
            ),
          ),
          type: v.optional(
            text(
              'Type that the device said: a MIME type, or the identifier of a management object. Octets of type text/plain are a text that XML cannot hold',
            ),
          ),
          data: text(
            'The value. Octets (bin) are base64. The value of an interior node is the names of its children, joined by /',
          ),
        }),
      ),
      'What a Get found, one entry for each node',
    ),
  ),
  said: v.exactOptional(
    described(
      v.array(v.string()),
      'What the user of the device said to a question: the text that was typed, or the numbers of the choices, from 1',
    ),
  ),
  parts: v.exactOptional(
    described(v.array(v.lazy(() => outcomeAnswer)), 'Outcomes of the commands inside an Atomic or Sequence'),
  ),
});
const outcomes = described(v.array(outcomeAnswer), 'One outcome for each command, in order');

const orderFields = {
  correlator,
  state: described(
    v.picklist(orderStates),
    'sending: accepted here, not answered yet; with a reason, it waits until the device comes by itself, until due at most. running: the party goes on with it; a bootstrap waits for the next session of the device. done: it has ended, and the result says how. failed: it ended with the error in status and reason. unknown: nobody can say whether the party did it; a result that arrives later changes this',
  ),
  accepted: time('When this server accepted it'),
  due: v.exactOptional(time('It ends at this time at the latest')),
  ended: v.exactOptional(time('When it ended, or when this server gave up')),
  status: v.exactOptional(
    dmStatus('DM status of the error or of the bootstrap; for an image the result code of FUMO'),
  ),
  reason: v.exactOptional(text('Why it failed, is unknown, or waits for the device, for a person')),
  problem: v.exactOptional(
    text(
      'While it is running: what its gateway says is wrong with it, such as a data budget that is used up or a download that fails. The order may wait for that',
    ),
  ),
} as const;

const result = described(
  v.string(),
  'What the gateway reported: XML, CampaignResult for fan-outs and triggers, ImageResult for images (docs/gwmo.md). Absent until it arrives',
);

const gatewayOrderFields = {
  gateway,
  name: text('Name of its node on the gateway'),
  ...orderFields,
  result: v.exactOptional(result),
} as const;

/** A fan-out or an image from its acceptance to its end. */
export const gatewayOrderAnswer = v.strictObject(gatewayOrderFields);

/** A trigger, and the sessions that it requested. */
export const triggerAnswer = v.strictObject({
  ...gatewayOrderFields,
  sessions: v.exactOptional(
    described(
      v.array(
        v.strictObject({
          device: deviceId,
          status: dmStatus(
            '0: the session has not ended yet. 200: its commands are done. Otherwise the DM status of the error: 404 when this server has no account of the device, 408 when the device opened no session in time, 503 when this server was stopped',
          ),
          operations: outcomes,
        }),
      ),
      'One for each device. Absent when they are forgotten: those of the latest 64 triggers are kept',
    ),
  ),
});

/** An order of any kind. */
export const orderAnswer = v.strictObject({
  number: described(v.number(), 'Rises with each order. `before` takes it'),
  kind: described(
    v.picklist(orderKinds),
    'CommandFanout, DeviceTrigger, ImageOperation: at a gateway. Session: commands in one session. Bootstrap: of a device that was assigned to a gateway',
  ),
  party: text('The gateway; for a Session the device or gateway'),
  name: text('Name of the node on the gateway; for a Bootstrap the DevId'),
  ...orderFields,
  result: v.exactOptional(result),
  operations: v.exactOptional(
    described(
      v.array(outcomeAnswer),
      'Outcomes of a Session. Values are left out when they have more than 65,536 characters together',
    ),
  ),
});

export const healthAnswer = v.strictObject({
  connected: described(v.boolean(), 'Whether the connection to the broker is up'),
  problems: v.exactOptional(
    described(
      v.array(v.string()),
      'What is wrong with the connection, for a person: why there is none, or what the access rules of the broker refuse. Absent when nothing is',
    ),
  ),
});

export const countsAnswer = described(
  v.record(v.string(), v.number()),
  'Number of events by name. Names that have not occurred are absent',
);

export const gatewaysAnswer = v.array(
  v.strictObject({
    id: gateway,
    known: described(
      v.boolean(),
      'Whether it has an account for this server. One without an account has published a state, sends too many messages (`refused`), or is a child gateway with a `problem`',
    ),
    online: v.optional(
      described(v.boolean(), 'Whether it is connected to the broker. Absent until it has said so'),
    ),
    software: v.optional(text('Version of its software, as it says itself')),
    problem: v.optional(
      text(
        'What it says is wrong with its uplink, its state file, its data budget or the download of an image; a child gateway says through its parent that its state cannot be written. Absent when it says nothing',
      ),
    ),
    cloned: v.exactOptional(
      time('When two boards were last seen under this name. Absent when they were not within an hour'),
    ),
    refused: v.exactOptional(
      described(
        v.number(),
        'Messages of it that this server did not look at since its start, because it sends too many (`headend.gateway-rate`). Absent when there were none',
      ),
    ),
  }),
);

export const devicesAnswer = v.array(
  v.strictObject({
    id: deviceId,
    known: described(
      v.boolean(),
      'Whether the device has an account for this server ([[device]] of the configuration). If so, POST /devices/{id}/sessions works; any other device is managed by a fan-out of its gateway',
    ),
    gateway: v.optional(
      text(
        'The gateway that it is attached to; if it is not attached, the one that it was heard through last',
      ),
    ),
    attached: described(v.boolean(), 'Whether a gateway has it attached'),
    unreachable: v.exactOptional(text('Why its gateway cannot reach it, for a person. Absent while it can')),
    lastHeard: v.exactOptional(
      time('When an unreachable device was heard last, by the clock of its gateway'),
    ),
  }),
);

/** What commands in a session came to. */
export const sessionAnswer = v.strictObject({
  id: text('The device or gateway'),
  correlator,
  operations: outcomes,
});

export const sessionsAnswer = v.array(
  v.strictObject({
    party: text('The device or gateway that the session is with'),
    gateway: text('The gateway that it comes through'),
    session: text('SessionID, hexadecimal'),
  }),
);

export const alertsAnswer = v.array(
  v.strictObject({
    number: described(v.number(), 'Rises with each alert. `before` takes it'),
    at: time('When this server received it'),
    kind: text(
      `DeviceAttach, DeviceDetach, DevicePresence, LocationUpdate, GatewayFault, FirmwareUpdate, ${resultKinds.join(', ')}`,
    ),
    gateway: text(
      'The gateway that sent it, or through which it came. For a firmware update: the party that was updated',
    ),
    device: v.optional(deviceId),
    body: described(
      v.record(v.string(), v.unknown()),
      'Fields of the alert; each kind has its own (docs/gwmo.md)',
    ),
  }),
);

/** A value of a device. */
export const valueAnswer = v.strictObject({
  number: described(v.number(), 'Rises with each value. `before` takes it'),
  path: text('Path on the device, such as /3303/0/5700 or /Sensor/Temp'),
  type: described(
    v.picklist(valueTypes),
    'integer: one that a number of JSON does not hold exactly; its digits are a string. octets: the value is base64',
  ),
  value: described(v.union([v.string(), v.number(), v.boolean()]), 'The value'),
  at: time('When the device had it, as the device or its gateway says; not after `received`'),
  received: time('When this server received it'),
  gateway: text('The gateway that reported it'),
});

const observationFields = {
  gateway,
  name: text('Name of its node on the gateway'),
  state: described(
    v.picklist(observationStates),
    'running: the gateway has taken it. unknown: nobody can say whether the gateway has it. lost: the gateway has lost its state, so order it again',
  ),
  ordered: time('When it was ordered last'),
} as const;

/** An observation. */
export const observationAnswer = v.strictObject(observationFields);

/** An observation, and how it stands at its gateway. */
export const observationStatusAnswer = v.strictObject({
  ...observationFields,
  status: described(
    v.strictObject({
      state: described(v.number(), '0: idle, 1: running, 2: its lifetime is over, 3: stopped'),
      observed: described(v.number(), 'Devices that are observed'),
      waiting: described(v.number(), 'Devices that are not attached, asleep, silent or not asked yet'),
      refused: described(v.number(), 'Devices that cannot be observed'),
      refusals: text('Why, with some of the devices: JSON, as the gateway says'),
    }),
    'What the gateway says now',
  ),
});

/** A group that a gateway has taken. */
export const groupAnswer = v.strictObject({
  gateway,
  name: text('ID of the group'),
  status: dmStatus('DM status of the last command'),
});

/** An assignment, and the bootstrap of the device to its gateway. */
export const assignmentAnswer = v.strictObject({
  device: deviceId,
  gateway,
  bootstrap: v.exactOptional(
    described(
      v.strictObject(orderFields),
      'The bootstrap of the device to this gateway. Absent for an assignment of an earlier version',
    ),
  ),
});
export const assignmentsAnswer = v.array(assignmentAnswer);

/** What was removed. */
export const removedAnswer = v.strictObject({
  removed: text('Name of what was removed'),
});

/** Every error. */
export const failureAnswer = v.strictObject({
  error: text(
    'Code to go by: malformed, unauthorized, notFound, notAllowed, conflict, full, timeout, unavailable, storage, …',
  ),
  message: text('What was wrong, for a person'),
});
