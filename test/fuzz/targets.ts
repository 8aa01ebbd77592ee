import { readdirSync, readFileSync } from 'node:fs';
import { readResult, summaryXml } from '../../src/mo/campaign-result.ts';
import { accountNodes } from '../../src/mo/dm-acc.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { decodeContent, encodeContent } from '../../src/wire/lwm2m/content.ts';
import { readRegistration } from '../../src/wire/lwm2m/registration.ts';
import { decodePaths, encodePaths } from '../../src/wire/lwm2m/senml.ts';
import { decodeDocument, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { decodeNotification, encodeNotification } from '../../src/wire/syncml/notification.ts';
import { decodeProvisioning } from '../../src/wire/syncml/provisioning.ts';
import { decodeTnds, encodeTnds, encodeTndsWbxml } from '../../src/wire/syncml/tnds.ts';
import {
  decodeEnrolmentAnswer,
  decodeEnrolmentRequest,
  encodeEnrolmentAnswer,
  encodeEnrolmentRequest,
} from '../../src/wire/tunnel/enrolment-message.ts';
import { decodeEnvelope, EnvelopeKind, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';

/** A decoder, and valid inputs that mutations start from. */
export interface Target {
  readonly name: string;
  readonly decode: (input: Uint8Array) => unknown;
  readonly corpus: readonly Uint8Array[];
}

const folder = new URL('../vectors/messages/', import.meta.url);
const messages: readonly SyncmlMessage[] = readdirSync(folder).map((file) =>
  decodeDocument(readFileSync(new URL(file, folder)), MediaType.Xml),
);
const credential = { name: 'n', secret: 'secret', nonce: Buffer.from([1, 2, 3]) };
const account = {
  path: './Inbox',
  root: accountNodes('x', {
    serverId: 's',
    address: 'coap://192.0.2.1/dm',
    own: credential,
    peer: credential,
  }),
};
const provisioning =
  '<wap-provisioningdoc version="1.1"><characteristic type="APPLICATION"><parm name="APPID" value="w7"/><parm name="PROVIDER-ID" value="s"/><characteristic type="APPAUTH"><parm name="AAUTHLEVEL" value="APPSRV"/></characteristic></characteristic></wap-provisioningdoc>';
const packedProvisioning = Buffer.from(
  '030b6a0b646d2e6578616d706c6500c54503312e310001c65501871106034e310001871006ab01870706034973700001870906890101c60001550187360000060377370001870001380000068300018707060353000101c6000157018730000006000 18d0101c6530187230603343433000101010101'.replace(
    /\s/g,
    '',
  ),
  'hex',
);
const notification = { uiMode: 1, serverInitiated: true, sessionId: 0x1234, serverId: 'dm.example' } as const;

const envelope = encodeEnvelope({
  kind: EnvelopeKind.Request,
  correlation: Buffer.alloc(12, 7),
  device: 'urn:dev:1',
  server: 'dm.example',
  via: 'gw-2',
  timeToLive: 60,
  headers: { 'x-syncml-hmac': 'algorithm=MD5' },
  body: Buffer.from('<a/>'),
});
const outcome = (device: string, status: number) => ({
  device,
  status,
  parts: [{ status, results: [{ uri: './DevDetail/FwV', data: '1 & 2' }] }],
});
const result = summaryXml(
  { state: 2, total: 2, done: 1, failed: 1, pending: 0, outcomes: [outcome('a', 200), outcome('b', 405)] },
  0,
);

const resources = [
  { path: [3, 0, 0], value: 'Maker' },
  { path: [3, 0, 6, 0], value: 1 },
  { path: [3, 0, 6, 1], value: 500 },
  { path: [3, 0, 22, 0], value: '3303:1' },
];

/** Packs with all the base fields of SenML. */
const packs = [
  Buffer.from(
    '[{"bn":"/3303/0/","bt":1700000000,"bv":20,"bu":"Cel","n":"5700","v":1.5},{"n":"5601","t":-5,"v":-1}]',
  ),
];

const ofMessages = (name: string, mediaType: string): Target => ({
  name,
  decode: (input) => decodeDocument(input, mediaType),
  corpus: messages.map((message) => encodeMessage(message, mediaType)),
});

export const targets: readonly Target[] = [
  ofMessages('XML', MediaType.Xml),
  ofMessages('WBXML', MediaType.Wbxml),
  ofMessages('CBOR', MediaType.Cbor),
  {
    name: 'TNDS',
    decode: decodeTnds,
    corpus: [Buffer.from(encodeTnds(account)), encodeTndsWbxml(account)],
  },
  {
    name: 'Package #0',
    decode: decodeNotification,
    corpus: [encodeNotification(notification, 'secret', Buffer.from('nonce'))],
  },
  {
    name: 'Provisioning',
    decode: decodeProvisioning,
    corpus: [Buffer.from(provisioning), packedProvisioning],
  },
  {
    name: 'Envelope',
    decode: decodeEnvelope,
    corpus: [envelope],
  },
  {
    name: 'Enrolment request',
    decode: decodeEnrolmentRequest,
    corpus: [
      encodeEnrolmentRequest({
        request: Buffer.from('3003020100', 'hex'),
        code: 'c',
        serial: 's',
        server: 'd',
      }),
    ],
  },
  {
    name: 'Enrolment answer',
    decode: decodeEnrolmentAnswer,
    corpus: [
      encodeEnrolmentAnswer({ state: 'granted', sealed: Buffer.alloc(90) }),
      encodeEnrolmentAnswer({ state: 'waiting', reason: 'a person must approve it', again: 60 }),
    ],
  },
  ...[ContentFormat.LwM2mTlv, ContentFormat.SenmlCbor, ContentFormat.SenmlJson, ContentFormat.LwM2mCbor].map(
    (format) => ({
      name: `LwM2M ${format}`,
      decode: (input: Uint8Array) => decodeContent(format, input, [3]),
      corpus: [encodeContent(format, resources, [3]), ...(format === ContentFormat.SenmlJson ? packs : [])],
    }),
  ),
  {
    name: 'LwM2M paths',
    decode: (input) => decodePaths(ContentFormat.SenmlCbor, input),
    corpus: [encodePaths(resources.map(({ path }) => path))],
  },
  {
    name: 'Registration',
    decode: (input) => readRegistration(['ep=a', 'lwm2m=1.1'], input),
    corpus: [Buffer.from('</>;rt="oma.lwm2m";ct="112 110",</1/0>,</3/0>,</3303/10>')],
  },
  {
    name: 'Result',
    decode: (input) => readResult(Buffer.from(input).toString()),
    corpus: [Buffer.from(result)],
  },
];
