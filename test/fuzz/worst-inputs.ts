import { parse as parseToml } from 'smol-toml';
import * as v from 'valibot';
import { toCbor } from '../../src/base/cbor.ts';
import { PosternError } from '../../src/base/errors.ts';
import { parseJson } from '../../src/base/json.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { parseAcl } from '../../src/dm/acl.ts';
import { parseHmac } from '../../src/dm/hmac-header.ts';
import { parseNodeUri } from '../../src/dm/uri.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { fanoutBody, imageBody, sessionBody } from '../../src/headend/api-schemas.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { readResult } from '../../src/mo/campaign-result.ts';
import { decode } from '../../src/wire/coap/codec.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { parseLinks } from '../../src/wire/coap/link-format.ts';
import { parseCoapUri } from '../../src/wire/coap/uri.ts';
import { decodeContent } from '../../src/wire/lwm2m/content.ts';
import { readRegistration } from '../../src/wire/lwm2m/registration.ts';
import { decodeProof } from '../../src/wire/syncml/bootstrap-proof.ts';
import { parseBootstrapSecurity } from '../../src/wire/syncml/bootstrap-security.ts';
import { decodeDocument, MediaType } from '../../src/wire/syncml/codec.ts';
import { decodeNotification } from '../../src/wire/syncml/notification.ts';
import { decodeProvisioning } from '../../src/wire/syncml/provisioning.ts';
import { decodeTnds } from '../../src/wire/syncml/tnds.ts';
import { decodeEnrolmentAnswer, decodeEnrolmentRequest } from '../../src/wire/tunnel/enrolment-message.ts';
import { decodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { decodeState } from '../../src/wire/tunnel/gateway-state.ts';

/** A decoder, its largest input, and inputs that are bad for it, each for any size in bytes. */
export interface WorstInputs {
  readonly name: string;
  readonly decode: (input: Buffer) => unknown;
  /** Bytes. */
  readonly bound: number;
  readonly inputs: Readonly<Record<string, (size: number) => Buffer>>;
}

const kilo = 1024;
/** `text` again and again between `before` and `after`, up to a size. */
const filled = (text: string, before = '', after = '') => {
  const [unit, start, end] = [text, before, after].map((one) => Buffer.from(one, 'latin1'));
  return (size: number): Buffer => {
    const count = Math.max(0, Math.floor((size - start!.length - end!.length) / unit!.length));
    return Buffer.concat([start!, Buffer.alloc(count * unit!.length, unit), end!]);
  };
};
/** Half of the size is one text, and the other half another one. */
const halves =
  (first: string, second: string, before = '', between = '', after = '') =>
  (size: number) =>
    Buffer.concat([filled(first, before, between)(size / 2), filled(second, '', after)(size / 2)]);

/** Head of a CBOR item with an argument of 32 bits. */
const head = (major: number, argument: number): string => {
  const octets = Buffer.alloc(5);
  octets[0] = (major << 5) | 26;
  octets.writeUInt32BE(argument, 1);
  return octets.toString('latin1');
};
const bignum = (size: number) =>
  Buffer.concat([Buffer.from(`\xc2${head(2, size - 6)}`, 'latin1'), Buffer.alloc(size - 6, 255)]);
const cborInputs = {
  'a bignum': bignum,
  'a bignum in an array': (size: number) => Buffer.concat([Buffer.from([0x81]), bignum(size - 1)]),
  'nested arrays': filled('\x81'),
  'nested indefinite arrays': filled('\x9f'),
  'nested indefinite maps': filled('\xbf\x00'),
  'tags of tags': filled('\xc1'),
  'many small arrays': filled('\x80', head(4, 16_384)),
  'an array that says that it is huge': filled('\x00', head(4, 0xffff_ffff)),
  'a map that says that it is huge': filled('\x00\x00', head(5, 0x7fff_ffff)),
  'a string that says that it is huge': filled('a', head(3, 0x7fff_ffff)),
  'an indefinite text of single characters': filled('\x61a', '\x7f', '\xff'),
  'an indefinite byte string of single octets': filled('\x41a', '\x5f', '\xff'),
  'indefinite empty texts': filled('\x7f\xff', '\x9f', '\xff'),
  'an indefinite array': filled('\x00', '\x9f', '\xff'),
  'an indefinite map': filled('\x00\x00', '\xbf', '\xff'),
  'one long text': (size: number) => toCbor('ä'.repeat(size / 2 - 4)),
  'a map of texts': (size: number) =>
    toCbor(
      new Map(Array.from({ length: Math.min(16_384, Math.floor(size / 12)) }, (_, n) => [`key-${n}`, 'x'])),
    ),
  'half floats': filled('\xf9\x7e\x00', '\x9f', '\xff'),
  'decimal fractions': filled('\xc4\x82\x1b\x00\xff\xff\xff\xff\xff\xff\xff\x00', '\x9f', '\xff'),
  'a long time': (size: number) =>
    Buffer.concat([Buffer.from(`\xc0${head(3, size - 6)}`, 'latin1'), Buffer.alloc(size - 6, '1')]),
  'integers of 64 bits': filled('\x1b\xff\xff\xff\xff\xff\xff\xff\xff', '\x9f', '\xff'),
};

const message = (inner: string, body = '') =>
  [`<SyncML><SyncHdr>${inner}</SyncHdr><SyncBody>${body}`, '</SyncBody></SyncML>'] as const;
const inData = [
  '<SyncML><SyncBody><Add><CmdID>1</CmdID><Item><Data>',
  '</Data></Item></Add></SyncBody></SyncML>',
] as const;
const xmlInputs = {
  'nested elements': filled('<a>'),
  'nested elements of SyncML': filled('<Atomic>', '<SyncML><SyncBody>'),
  'many elements': filled('<Final/>', ...message('')),
  'unknown elements': filled('<x y="1"/>', ...message('')),
  'elements in Data': filled('<x y="&lt;">a</x>', ...inData),
  'many attributes': (size: number) =>
    Buffer.from(`<SyncML ${Array.from({ length: size / 12 }, (_, n) => `a${n}="1"`).join(' ')}></SyncML>`),
  'a long attribute': filled('&amp;', '<SyncML a="', '"></SyncML>'),
  'a long name': filled('a', '<', '/>'),
  'a long name of an attribute': filled('a', '<SyncML ', '="1"/>'),
  'character references': filled('&#x61;', ...inData),
  'an unknown entity': filled('a', '<SyncML>&', ';</SyncML>'),
  'a comment that does not end': filled('-', '<SyncML><!--'),
  comments: filled('<!---->', '<SyncML>', '</SyncML>'),
  'processing instructions': filled('<?a?>', '<SyncML>', '</SyncML>'),
  CDATA: filled('<![CDATA[]]>', ...inData),
  'CDATA that does not end': filled(']', '<SyncML><![CDATA['),
  brackets: filled(']]', ...inData),
  'ends of lines': filled('\r', ...inData),
  'white space in tags': filled(' ', '<SyncML', '/>'),
  'a document type': filled('<!ENTITY a "aaaa">', '<!DOCTYPE a [', ']><SyncML/>'),
  'white space in base64': filled(' ', '<SyncML><SyncHdr><Cred><Data>', '</Data></Cred></SyncHdr></SyncML>'),
  'text alone': filled('<'),
};
/** Header of a SyncML document in WBXML: version, public identifier, character set. */
const wbxmlHead = '\x02\xa4\x01\x6a';
const multiByte = (value: number): string =>
  String.fromCharCode(...[21, 14, 7].map((shift) => 0x80 | ((value >> shift) & 0x7f)), value & 0x7f);
/** Half of the document is a string table of one string, and what follows refers to it. */
const withTable =
  (unit: string, before: string, header = wbxmlHead) =>
  (size: number) => {
    const table = Math.floor(size / 2);
    return Buffer.concat([
      Buffer.from(header + multiByte(table), 'latin1'),
      Buffer.alloc(table - 1, 'a'),
      Buffer.from(`\0${before}`, 'latin1'),
      filled(unit)(size / 2 - 16),
    ]);
  };
const wbxmlInputs = (header: string) => ({
  'literal tags from a long table': withTable('\x04\x00', '\x6d', header),
  'texts from a long table': withTable('\x83\x00', '\x6d', header),
  'texts from a long table in an unknown element': withTable('\x83\x00', '\x6d\x44\x00', header),
  'many elements with a text from a long table': withTable('\x4f\x83\x00\x01', '\x6d\x6b\x45\x54', header),
  'attributes from a long table': withTable('\x04\x00\x83\x00', '\x6d\xc5', header),
  'nested elements': filled('\x6d', `${header}\0`),
  entities: filled('\x02\x61', `${header}\0\x6d`),
  'empty strings': filled('\x03\0', `${header}\0\x6d`),
  'opaque data of one octet': filled('\xc3\x01a', `${header}\0\x6d`),
  pages: filled('\0\x01', `${header}\0\x6d`),
  'a string without an end': filled('a', `${header}\0\x6d\x03`),
});

const ddf = ['<MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName>', '</Node></MgmtTree>'] as const;
const provisioning = ['<wap-provisioningdoc>', '</wap-provisioningdoc>'] as const;
const result = ['<CampaignResult>', '</CampaignResult>'] as const;

const text = (decodeText: (input: string) => unknown) => (input: Buffer) =>
  decodeText(input.toString('latin1'));
const jsonInputs = {
  'nested arrays': filled('['),
  'nested objects': filled('{"a":'),
  'a long number': filled('9', '[{"n":"/3/0/0","v":', '}]'),
  'an array of numbers': filled('1,', '[', '1]'),
  'empty records': filled('{},', '[', '{}]'),
  'a long text': filled('\\u0061', '[{"n":"/3/0/0","vs":"', '"}]'),
  'records below a long base name': halves('/', '{"v":1},', '[{"bn":"/3/0', '"},', '{"v":1}]'),
  'records of a long base name that is wrong': halves('1', '{"v":1},', '[{"bn":"', '"},', '{"v":1}]'),
};
const oldJson = {
  ...jsonInputs,
  'elements below a long base name': halves('/', '{"v":1},', '{"bn":"/3/0', '","e":[', '{"v":1}]}'),
};

const ofMessages = (name: string, type: string, inputs: WorstInputs['inputs']): WorstInputs => ({
  name,
  decode: (input) => decodeDocument(input, type),
  bound: 256 * kilo,
  inputs,
});
const ofContent = (
  name: string,
  format: number | undefined,
  inputs: WorstInputs['inputs'],
  base = [3],
): WorstInputs => ({
  name,
  decode: (input) => decodeContent(format, input, base),
  bound: 64 * kilo,
  inputs,
});
const ofConfig = (name: string, schema: v.GenericSchema): WorstInputs => ({
  name,
  decode: (input) => v.safeParse(schema, parseToml(input.toString())),
  bound: 64 * kilo,
  inputs: {
    'nested arrays': filled('['),
    'many tables': (size) => Buffer.from(Array.from({ length: size / 10 }, (_, n) => `[a${n}]`).join('\n')),
    'many devices': filled('[[bootstrap.device]]\nid = "a"\n'),
    'a long key': filled('a.', '', 'a = 1'),
    'a long number': filled('9', 'a = '),
    'white space': filled(' ', 'a', '= 1'),
    'a text without an end': filled('a', 'a = "'),
    escapes: filled('\\u0061', 'a = "', '"'),
    comments: filled('#\n'),
  },
});

const ofApi = (name: string, schema: v.GenericSchema): WorstInputs => ({
  name,
  decode: (input) => v.safeParse(schema, readJson(input)),
  bound: 1536 * kilo,
  inputs: {
    ...jsonInputs,
    'many devices': filled('"urn:dev:1",', '{"gateway":"g","name":"n","devices":[', '"a"]}'),
    'many operations': filled(
      '{"name":"Get","uri":"./a"},',
      '{"operations":[',
      '{"name":"Get","uri":"./a"}]}',
    ),
    'wrong operations': filled('{"name":"Atomic","operations":[{"name":"x"}]},', '{"operations":[', '1]}'),
    'a long name': filled('a', '{"gateway":"g","name":"', '"}'),
  },
});

function readJson(input: Buffer): unknown {
  try {
    return parseJson(input);
  } catch (cause) {
    throw new PosternError('malformed', 'no JSON', { cause });
  }
}

const coapDatagram = (unit: string, before = '') => filled(unit, `\x40\x02\x00\x01${before}`);

export const worstInputs: readonly WorstInputs[] = [
  ofMessages('DM message, XML', MediaType.Xml, xmlInputs),
  ofMessages('DM message, WBXML', MediaType.Wbxml, wbxmlInputs(wbxmlHead)),
  ofMessages('DM message, CBOR', MediaType.Cbor, cborInputs),
  { name: 'envelope', decode: decodeEnvelope, bound: 512 * kilo, inputs: cborInputs },
  { name: 'enrolment request', decode: decodeEnrolmentRequest, bound: 16 * kilo, inputs: cborInputs },
  { name: 'enrolment answer', decode: decodeEnrolmentAnswer, bound: 16 * kilo, inputs: cborInputs },
  { name: 'gateway state', decode: decodeState, bound: 64 * kilo, inputs: cborInputs },
  { name: 'bootstrap proof', decode: decodeProof, bound: 64 * kilo, inputs: cborInputs },
  ofContent('LwM2M SenML CBOR', ContentFormat.SenmlCbor, {
    ...cborInputs,
    'records below a long base name': (size) =>
      toCbor([
        new Map<number, unknown>([[-2, `/3/0${'/'.repeat(size / 2)}`]]),
        ...Array.from({ length: size / 8 }, () => new Map([[2, 1]])),
      ]),
  }),
  ofContent('LwM2M SenML JSON', ContentFormat.SenmlJson, {
    ...jsonInputs,
    'records with all fields': filled('{"bn":"/3/0/","bt":1,"bv":1,"n":"9","t":1,"v":1},', '[', '{}]'),
  }),
  ofContent('LwM2M CBOR of 1.2', ContentFormat.LwM2mCbor, {
    ...cborInputs,
    'values with whole paths': (size) =>
      toCbor(new Map(Array.from({ length: size / 12 }, (_, id) => [[3, 0, 6, id % 65_000], 1]))),
  }),
  ofContent('LwM2M JSON of 1.0', ContentFormat.LwM2mJson, oldJson),
  ofContent('LwM2M TLV', ContentFormat.LwM2mTlv, {
    'nested object instances': (size) => {
      const levels = Math.floor(size / 6);
      const octets = Buffer.alloc(levels * 6);
      for (let level = 0; level < levels; level++) {
        octets.writeUInt8(0x38, level * 6);
        octets.writeUIntBE((levels - level - 1) * 6, level * 6 + 3, 3);
      }
      return octets;
    },
    'empty resources': filled('\xc0\x00'),
    'empty instances': filled('\x00\x00'),
    'multiple resources': filled('\x80\x00'),
    'integers of 64 bits': filled('\xc8\x0d\x08\xff\xff\xff\xff\xff\xff\xff\xff'),
    'one long resource': (size) =>
      Buffer.concat([Buffer.from([0xd8, 0, 0, size >> 8, size & 255]), Buffer.alloc(size, 0xc3)]),
  }),
  ...[
    [3, 0, 9],
    [3, 0, 0],
    [3, 0, 13],
    [3303, 0, 5700],
    [3, 0, 18],
  ].map((path) =>
    ofContent(
      `LwM2M text of /${path.join('/')}`,
      undefined,
      { digits: filled('9'), letters: filled('a'), spaces: filled(' ') },
      path,
    ),
  ),
  ofContent('LwM2M opaque', ContentFormat.OctetStream, { octets: filled('a') }),
  {
    name: 'CoAP message',
    decode,
    bound: 64 * kilo,
    inputs: {
      'empty options': coapDatagram('\x00'),
      'options of one octet': coapDatagram('\x11a', '\xd0\xff'),
      'extended options': coapDatagram('\xd0\x00'),
      'a payload': coapDatagram('a', '\xff'),
    },
  },
  {
    name: 'link format',
    decode: text(parseLinks),
    bound: 64 * kilo,
    inputs: {
      links: filled('<a>,', '', '<a>'),
      'links before white space': halves('<a>,', ' ', '', '<a>'),
      attributes: filled(';a', '<a>'),
      'an attribute without its end': filled('\\"', '<a>;a="'),
      quotes: filled(';a="', '<a>'),
      'white space': filled(' ', '<a>', ';'),
      'no end of a target': filled('<'),
      'white space alone': filled(' '),
      'the same attribute': filled(';rt="a b c"', '<a>'),
    },
  },
  {
    name: 'LwM2M registration',
    decode: (input) => readRegistration(['ep=a', 'lwm2m=1.1'], input),
    bound: 64 * kilo,
    inputs: {
      links: filled('</3/0>,', '', '</3/0>'),
      'a long root': halves('/a', '</a/a>,', '<', '>;rt="oma.lwm2m",', '</a>'),
      'links before white space': halves('</1/0>,', ' ', '', '</1/0>'),
      formats: filled('1 ', '</>;rt="oma.lwm2m";ct="', '"'),
    },
  },
  {
    name: 'CoAP URI',
    decode: text(parseCoapUri),
    bound: 64 * kilo,
    inputs: {
      segments: filled('/a', 'coap://a'),
      zone: filled(':', 'coap://[', '%a]'),
      escapes: filled('%61', 'coap://a/'),
      host: filled('a.', 'coap://'),
    },
  },
  {
    name: 'URI of a node',
    decode: text(parseNodeUri),
    bound: 64 * kilo,
    inputs: { segments: filled('/a', '.'), escapes: filled('%61', './') },
  },
  {
    name: 'ACL',
    decode: text(parseAcl),
    bound: 64 * kilo,
    inputs: {
      servers: filled('a+', 'Get='),
      rights: filled('&'),
      distinct: (size) => Buffer.from(`Get=${Array.from({ length: size / 6 }, (_, n) => n).join('+')}`),
    },
  },
  {
    name: 'header x-syncml-hmac',
    decode: text(parseHmac),
    bound: 64 * kilo,
    inputs: {
      letters: filled('a'),
      'white space': filled(' ', 'a'),
      fields: filled('a=b,'),
      'an open quote': filled('a="'),
    },
  },
  {
    name: 'security of a bootstrap',
    decode: text(parseBootstrapSecurity),
    bound: 64 * kilo,
    inputs: {
      spaces: filled(' ', ';SEC'),
      words: filled(' SEC'),
      macs: filled(';MAC='),
      digits: filled('0', ';MAC='),
    },
  },
  {
    name: 'Package #0',
    decode: decodeNotification,
    bound: 64 * kilo,
    inputs: { zeros: filled('\0'), ones: filled('\xff') },
  },
  {
    name: 'TNDS',
    decode: decodeTnds,
    bound: 128 * kilo,
    inputs: {
      ...xmlInputs,
      nodes: filled('<Node><NodeName>b</NodeName></Node>', ...ddf),
      'nested nodes': filled('<Node><NodeName>b</NodeName>', ddf[0]),
      ...wbxmlInputs('\x03\0\0\x6a'),
    },
  },
  {
    name: 'Client Provisioning',
    decode: decodeProvisioning,
    bound: 16 * kilo,
    inputs: {
      ...xmlInputs,
      parms: filled('<parm name="a" value="b"/>', ...provisioning),
      nested: filled('<characteristic type="a">', provisioning[0]),
      ...wbxmlInputs('\x03\x0b\x6a'),
    },
  },
  {
    name: 'result of a campaign',
    decode: text(readResult),
    bound: 1024 * kilo,
    inputs: {
      ...xmlInputs,
      groups: filled('<Group Status="1" Commands="1 1 1"/>', ...result),
      devices: filled('<Device ID="a"/>', ...result),
      commands: filled('1 ', '<CampaignResult><Group Commands="', '"/></CampaignResult>'),
    },
  },
  ofApi('JSON of sessions', sessionBody),
  ofApi('JSON of fan-outs', fanoutBody),
  ofApi('JSON of images', imageBody),
  ofConfig('TOML configuration of a gateway', gatewayConfigSchema),
  ofConfig('TOML configuration of a head-end', headendConfigSchema),
  ofConfig('TOML configuration of a device', deviceConfigSchema),
];
