import type { Requirement } from './requirements.ts';

type Row = readonly [number: string, text: string, where: string];

const calls = 'gateway/southbound/lwm2m-calls.ts';
const reader = `gateway/modes/adapted-reader.ts ${calls}`;
const fetched = 'gateway/modes/adapted-reader.ts gateway/southbound/lwm2m-reporting.ts';
const writer = `gateway/modes/adapted-writer.ts ${calls}`;
const registration = 'gateway/southbound/registration-server.ts';
const bootstrap = 'gateway/southbound/lwm2m-bootstrap-server.ts';
const reporting = 'gateway/southbound/lwm2m-reporting.ts';
const composite = `gateway/modes/adapted-composite.ts ${reporting}`;
const observed = `gateway/southbound/lwm2m-observer.ts gateway/southbound/observed-client.ts ${reporting}`;
const sent = 'gateway/southbound/send-resource.ts';

/** Test cases that a test with the same number shows. */
const shown: readonly Row[] = [
  ['0', 'Client-initiated bootstrap', bootstrap],
  ['1', 'Client-initiated bootstrap with a pre-shared key', bootstrap],
  ['4', 'Deletes in a bootstrap, which leave the account of the bootstrap server', bootstrap],
  ['5', 'Server-initiated bootstrap', `${writer} ${bootstrap}`],
  ['9', 'A Finish that is refused with 4.06', bootstrap],
  ['101', 'Initial registration', registration],
  ['102', 'Registration Update', `${writer} ${registration}`],
  ['103', 'Deregistration after Disable', `${writer} ${registration}`],
  ['104', 'Registration Update Trigger', `${writer} ${registration}`],
  ['105', 'Update of a registration that is over', registration],
  ['107', 'A longer lifetime', `${writer} ${registration}`],
  ['108', 'Registration in Queue Mode', registration],
  ['109', 'Operations in Queue Mode', 'gateway/modes/adaptation.ts'],
  ['201', 'Reads in plain text', reader],
  ['203', 'Reads in TLV', reader],
  ['204', 'Reads in the JSON of LwM2M 1.0', reader],
  ['205', 'Writes in plain text', writer],
  ['211', 'Reads in CBOR', reader],
  ['212', 'Writes in CBOR', writer],
  ['215', 'Writes in TLV', writer],
  ['221', 'Operations on the object Security', reader],
  ['222', 'Read of an object', reader],
  ['223', 'Read of an object instance', reader],
  ['224', 'Read of a resource', reader],
  ['225', 'Read of a resource instance', reader],
  ['227', 'Write of a resource', writer],
  ['228', 'Write of a resource instance', writer],
  ['229', 'Read-Composite: several Gets', fetched],
  ['230', 'Write-Composite: an Atomic of Replaces', composite],
  ['231', 'Reads in SenML JSON', reader],
  ['232', 'Reads in SenML CBOR', reader],
  ['233', 'Writes in SenML CBOR', writer],
  ['234', 'Writes in SenML JSON', writer],
  ['235', 'Read-Composite of the root: a list of all data', fetched],
  ['236', 'Read-Composite of paths that are partly missing', fetched],
  ['237', 'Read without a wanted format', reader],
  ['241', 'Reboot, and the registration after it', `${writer} ${registration}`],
  ['256', 'Write of a resource that is read-only', writer],
  ['257', 'Write-Composite of two objects', composite],
  ['260', 'Discover. The attributes in its answer are passed over: see 261', reader],
  ['261', 'Write-Attributes of pmin, pmax, gt, lt and st; epmin and epmax are not written', observed],
  ['270', 'Create of an object instance (the case refers to 1630)', writer],
  ['280', 'Read-Composite that succeeds', fetched],
  ['281', 'Read-Composite that succeeds in part', fetched],
  ['290', 'Delete of an object instance (the case refers to 1635)', writer],
  ['301', 'Observation and notifications', observed],
  ['302', 'End of an observation by Reset', observed],
  ['303', 'End of an observation by the option Observe', observed],
  ['304', 'Observe-Composite. The conditions are set at each of its paths', observed],
  ['305', 'End of Observe-Composite', observed],
  ['306', 'Send', sent],
  ['307', 'Muted Send', `${writer} ${sent}`],
  ['308', 'Observe-Composite and a new instance, without conditions', observed],
  ['309', 'Observe-Composite and a deleted instance, without conditions', observed],
  ['310', 'Observe-Composite and changed attributes', observed],
  ['311', 'Send of given values', sent],
  ['401', 'Registration and Read over DTLS with a pre-shared key', 'gateway/southbound/pre-shared-keys.ts'],
];

const empty = 'the test specification gives only its title';
/** Test cases without a test, each with the reason. */
const others: readonly Row[] = [
  [
    '2',
    'Client-initiated bootstrap with certificates',
    'the accounts that the gateway gives to LwM2M clients have pre-shared keys or OSCORE',
  ],
  ['3', 'Bootstrap from a smart card', 'a matter of the client'],
  ['6', 'Order of the ways of bootstrap', 'a matter of the client'],
  ['7', 'Fallback to bootstrap', 'a matter of the client; for the server it is case 0'],
  ['8', 'Bootstrap-Read', 'a server need not send it; the gateway uses Bootstrap-Discover'],
  ['106', 'Registration over TCP', 'the gateway serves UDP'],
  ['202', 'Reads of opaque values', empty],
  ['210', 'Writes of opaque values', empty],
  [
    '220',
    'Writes in the JSON of LwM2M 1.0',
    'the gateway writes TLV, which LwM2M 1.0 demands of clients, and SenML, plain text, octets and CBOR',
  ],
  [
    '226',
    'Partial update of several resources',
    'a Replace of DM is a Write of one resource (227); several in an Atomic are a Write-Composite (230); 228 shows a partial update',
  ],
  ['271', 'Create of several instances', empty],
];

/**
 * Interoperability test cases of OMA's enabler test specification for LwM2M 1.1, on bootstrap, registration, device management,
 * reporting, and security by pre-shared keys. Titles are in Postern's words.
 */
export const enablerTests: readonly Requirement[] = [
  ...shown.map(([number, text, where]) => ({ number, text, where, notApplicable: undefined })),
  ...others.map(([number, text, notApplicable]) => ({ number, text, where: '', notApplicable })),
]
  .toSorted((a, b) => Number(a.number) - Number(b.number))
  .map(({ number, text, where, notApplicable }) => ({
    id: `ETS-${number}`,
    spec: 'OMA LwM2M 1.1 enabler test cases',
    section: `int-${number}`,
    side: 'S',
    text,
    where: where.split(' ').filter((file) => file !== ''),
    ...(notApplicable !== undefined && { notApplicable }),
  }));
