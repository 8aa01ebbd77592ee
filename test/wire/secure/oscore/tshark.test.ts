import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { systemEntropy } from '../../../../src/base/entropy.ts';
import { Blockwise } from '../../../../src/wire/coap/blockwise.ts';
import { call } from '../../../../src/wire/coap/blockwise-client.ts';
import { encode, noBytes, Type } from '../../../../src/wire/coap/codec.ts';
import { Code } from '../../../../src/wire/coap/codes.ts';
import { reply } from '../../../../src/wire/coap/message.ts';
import { Observable } from '../../../../src/wire/coap/observe.ts';
import { Option, sorted, uint, uriOptions } from '../../../../src/wire/coap/options.ts';
import { OscoreKeys, type OscoreParameters } from '../../../../src/wire/secure/oscore/keys.ts';
import { protectRequest } from '../../../../src/wire/secure/oscore/messages.ts';
import { pivOf } from '../../../../src/wire/secure/oscore/option.ts';
import { without } from '../../../peers/foreign.ts';
import { writeCapture } from '../dtls/capture.ts';
import { ofDevice, ofGateway, Party, Wire } from './party.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-oscore-'));
after(() => rmSync(folder, { recursive: true }));

const hex = (octets: Uint8Array = noBytes) => Buffer.from(octets).toString('hex');

/** A context as Wireshark takes it: of the client of an exchange. */
const row = ({ senderId, recipientId, masterSecret, masterSalt, idContext }: OscoreParameters) =>
  `uat:oscore_contexts:${[senderId, recipientId, masterSecret, masterSalt, idContext].map((field) => `"${hex(field)}"`).join(',')},"AES-CCM-16-64-128 (CCM*)"`;

/** What a dissector that others wrote finds inside of the messages of a wire, and what it cannot open. */
function dissected(wire: Wire, contexts: readonly OscoreParameters[]) {
  const file = join(folder, 'capture.pcap');
  const at = ({ address }: Party) => ({ address, port: 5683 });
  writeCapture(
    file,
    wire.sent.map(({ from, to, bytes }) => ({ from: at(from), to: at(to), bytes })),
  );
  const options = contexts.flatMap((context) => ['-o', row(context)]);
  const fields = [
    'oscore.code',
    'oscore.opt.uri_path',
    'oscore.payload_length',
    'oscore.opt.block_number',
    'oscore.opt.observe',
  ];
  const seen = execFileSync(
    'tshark',
    [
      '-r',
      file,
      ...options,
      '-T',
      'fields',
      '-E',
      'separator=|',
      ...fields.flatMap((field) => ['-e', field]),
      '-e',
      '_ws.expert.message',
    ],
    { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 24 },
  ).toString();
  return seen.trimEnd().split('\n');
}

describe('tshark opens what our two sides say', { skip: without('tshark') }, () => {
  for (const [name, more] of [
    ['without salt and ID Context', {}],
    [
      'with both',
      { masterSalt: Buffer.from('9e7ca92223786340', 'hex'), idContext: Buffer.from('37cbf321', 'hex') },
    ],
  ] as const)
    test(name, async () => {
      const [gatewayHas, deviceHas] = [
        { ...ofGateway, ...more },
        { ...ofDevice, ...more },
      ];
      const wire = new Wire();
      const gateway = new Party(wire, '192.0.2.1', { device: gatewayHas });
      const device = new Party(wire, '192.0.2.2', { gateway: deviceHas });
      device.find('gateway', gateway);
      let state = 'first';
      const observable = new Observable(gateway.endpoint, wire.clock, () =>
        reply(Code.Content, { payload: state }),
      );
      const body = new Blockwise(({ payload }) => reply(Code.Changed, { payload }), wire.clock);
      gateway.handler = (request) =>
        request.path[0] === 'body' ? body.handle(request) : observable.handle(request);
      const answered = call(device.endpoint, systemEntropy, gateway.address, 5683, {
        method: Code.POST,
        path: ['body'],
        payload: Buffer.alloc(1500, 'b'),
        timeout: 10_000,
      });
      await wire.settle();
      await answered;

      const { message } = protectRequest(new OscoreKeys(deviceHas), pivOf(700), {
        code: Code.GET,
        options: sorted([...uriOptions(['state']), uint(Option.Observe, 0)]),
        payload: noBytes,
      });
      const token = Buffer.of(1, 2, 3);
      const bytes = encode({ ...message, type: Type.NON, messageId: 9, token });
      wire.send({ from: device, to: gateway, bytes });
      await wire.settle();
      state = 'second';
      observable.changed();
      await wire.settle();

      const asked = gateway.endpoint.request(device.address, 5683, {
        code: Code.PUT,
        options: uriOptions(['dmn']),
        timeout: 10_000,
      });
      await wire.settle();
      await asked;
      const found = dissected(wire, [deviceHas, gatewayHas]);
      // This version of Wireshark does not know Echo and Request-Tag (RFC 9175). It names them, and goes on.
      const all = found.join('\n').replaceAll(/Invalid Option Number (252|292)/g, '');
      assert.doesNotMatch(all, /[Ff]ailed|not set|[Ii]nvalid|[Mm]alformed|truncated/);
      // The first request is asked for an Echo, and repeated.
      const codes = found.map((line) => line.split('|')[0]).filter((code) => code !== '');
      assert.deepEqual(codes.slice(0, 4), ['2', '129', '2', '95']);
      for (const code of ['68', '1', '69', '3']) assert.ok(codes.includes(code), `${code} is in ${codes}`);
      assert.match(all, /body/);
      assert.match(all, /state/);
      assert.match(all, /dmn/);
      const opened = wire.sent.filter(({ bytes: datagram }) => datagram.length > 4).length;
      assert.equal(codes.length, opened, 'each message with a code is opened');
      // With another secret none is.
      const wrong = dissected(wire, [{ ...deviceHas, masterSecret: Buffer.from('another secret!!') }]);
      assert.ok(!wrong.some((line) => line.includes('body')));
    });
});
