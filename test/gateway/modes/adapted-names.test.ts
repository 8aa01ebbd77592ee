import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readResult } from '../../../src/mo/campaign-result.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { type CoapRequest, refusal, reply } from '../../../src/wire/coap/message.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { typeOf } from '../../../src/wire/lwm2m/objects.ts';
import { isBelow, type Path } from '../../../src/wire/lwm2m/path.ts';
import type { Entry, ResourceType, Value } from '../../../src/wire/lwm2m/resource.ts';
import { decodeTlv } from '../../../src/wire/lwm2m/tlv.ts';
import { adaptedRig, add, atomic, get, replace } from './adapted-rig.ts';

/** A client with these values. It knows TLV alone, unless it has another format. */
async function client(
  values: Readonly<Record<string, readonly [ResourceType, Value]>>,
  { format = ContentFormat.LwM2mTlv, paths }: { format?: number; paths?: readonly Path[] } = {},
) {
  const types = (path: Path) => values[path.join('/')]?.[0];
  const entries = Object.entries(values).map(
    ([path, [, value]]): Entry => ({ path: path.split('/').map(Number), value }),
  );
  const written: Entry[] = [];
  const requests: CoapRequest[] = [];
  const rig = await adaptedRig(
    (request) => {
      requests.push(request);
      const path = request.path.map(Number);
      if (request.method === Code.GET) {
        if (request.accept === ContentFormat.LinkFormat) return refusal(Code.NotAcceptable, '');
        const found = entries.filter((entry) => isBelow(entry.path, path));
        if (found.length === 0) return refusal(Code.NotFound, '');
        const payload = encodeContent(format, found, path, types);
        return reply(Code.Content, { payload, contentFormat: format });
      }
      if (request.contentFormat !== format && format === ContentFormat.LwM2mTlv)
        return refusal(Code.UnsupportedContentFormat, '');
      written.push(
        ...(request.contentFormat === ContentFormat.LwM2mTlv
          ? decodeTlv(
              request.payload,
              path,
              ([object, , resource]) => types([object!, 0, resource!]) ?? 'string',
            )
          : decodeContent(request.contentFormat ?? 0, request.payload, path)),
      );
      return reply(request.method === Code.POST ? Code.Created : Code.Changed);
    },
    { version: '1.0', ...(paths && { paths }) },
  );
  let count = 0;
  return {
    written,
    requests,
    /** Statuses of the commands, and format and value of what each found. */
    async done(...commands: readonly string[]) {
      rig.start(`f${count++}`, commands.join(''), { returnFormat: 0 });
      await rig.until(() => rig.results.length === count);
      const [{ parts } = { parts: [] }] = readResult(rig.results.at(-1) ?? '');
      return {
        statuses: parts.map(({ status }) => status).join(' '),
        found: parts.map(({ results: [first] }) => first && [first.uri, first.format ?? 'chr', first.data]),
      };
    },
    [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose](),
  };
}

describe('objects and resources by name', { timeout: 60_000 }, () => {
  const thermometer = { '3303/0/5700': ['float', 21.5], '3303/0/5518': ['time', 1_700_000_000] } as const;

  // conforms: GW-26
  test('a node has the name of the registry as well as its number', async () => {
    await using device = await client(thermometer);
    const { statuses, found } = await device.done(
      get('./3303/0/5700'),
      get('./Temperature/0/Sensor%20Value'),
      get('./temperature/0/SensorValue'),
      get('./Temperature/0'),
      get('./3303/0/Timestamp'),
      get('./Temperature?prop=Title'),
      get('./3303/0/5700?prop=Title'),
    );
    assert.equal(statuses, '200 200 200 200 200 200 200');
    assert.deepEqual(found, [
      ['./3303/0/5700', 'float', '21.5'],
      ['./Temperature/0/Sensor Value', 'float', '21.5'],
      ['./temperature/0/SensorValue', 'float', '21.5'],
      ['./Temperature/0', 'node', '5700/5518'],
      ['./3303/0/Timestamp', 'int', '1700000000'],
      ['./Temperature?prop=Title', 'chr', 'Temperature'],
      ['./3303/0/5700?prop=Title', 'chr', 'Sensor Value'],
    ]);
  });

  test('a name that no object or resource has is not there, and neither is one of an instance', async () => {
    await using device = await client(thermometer);
    const { statuses } = await device.done(
      get('./Thermometer/0'),
      get('./Temperature/first/5700'),
      get('./Temperature/0/Warmth'),
      get('./Temperature/0/5700/Sensor'),
      get('./__proto__/0/constructor'),
    );
    assert.equal(statuses, '404 404 404 404 404');
    assert.deepEqual(device.requests, []);
  });

  test('a name that two objects have is the one that the client has; if it has both, or none, it is not there', async () => {
    const values = { '6/0/0': ['float', 52], '3336/0/5513': ['string', '52.0'] } as const;
    const of = async (...paths: readonly Path[]) => {
      await using device = await client(values, { paths: [[1, 0], ...paths] });
      return (await device.done(get('./Location/0'))).found[0]?.[2];
    };
    assert.equal(await of([6, 0]), '0');
    assert.equal(await of([3336, 0]), '5513');
    assert.equal(await of([6, 0], [3336, 0]), undefined);
    assert.equal(await of(), undefined);
  });

  test('Adds by name and by number are of one instance', async () => {
    await using device = await client(thermometer);
    const { statuses } = await device.done(
      atomic(add('./Temperature/4/SensorValue', '20'), add('./3303/4/5701', 'Cel')),
    );
    assert.equal(statuses, '200 200 200');
    assert.equal(device.requests.filter(({ path }) => path.join('/') === '3303').length, 1);
  });
});

describe('types of the registry', { timeout: 60_000 }, () => {
  /** Values of the object Cellular Connectivity, and of uCIFI's Outdoor lamp controller. */
  const values = {
    '10/0/1': ['integer', 200],
    '10/0/3': ['integer', 5],
    '10/0/14': ['opaque', Buffer.of(0, 200)],
    '3417/0/1': ['string', 'hall'],
  } as const;
  const paths = [
    [1, 0],
    [10, 0],
    [3417, 0],
  ];

  // conforms: GW-26
  test('a client that knows TLV alone, which says no types, is read and written without a Format', async () => {
    await using device = await client(values, { paths });
    const { statuses, found } = await device.done(
      get('./10/0/1'),
      get('./3417/0/1'),
      replace('./10/0/1', '300'),
    );
    assert.equal(statuses, '200 200 200');
    assert.deepEqual(found.slice(0, 2), [
      ['./10/0/1', 'int', '200'],
      ['./3417/0/1', 'chr', 'hall'],
    ]);
    assert.deepEqual(device.written, [{ path: [10, 0, 1], value: 300 }]);
    // No question for the type: two reads and one write.
    assert.deepEqual(
      device.requests.filter(({ method, path }) => method === Code.GET && path[2] === '1').length <= 4,
      true,
    );
  });

  test('what may be a string or octets is text where it is UTF-8, else octets; a text without a Format is a string', async () => {
    await using device = await client(
      { ...values, '3441/0/150': ['opaque', Buffer.of(0, 1, 0xff)], '3441/0/110': ['string', 'ä'] },
      {
        paths: [
          [1, 0],
          [3441, 0],
        ],
      },
    );
    const { found } = await device.done(get('./3441/0/150'), get('./3441/0/110'));
    assert.deepEqual(found, [
      ['./3441/0/150', 'b64', 'AAH/'],
      ['./3441/0/110', 'chr', 'ä'],
    ]);
    assert.equal((await device.done(replace('./3441/0/110', 'b'))).statuses, '200');
    assert.equal(device.written.at(-1)?.value, 'b');
  });

  test('a client that has another resource in the place of the registered one is believed, where it says the type', async () => {
    const other = { '10/0/1': ['string', 'on'], '10/0/3': ['float', 2.5] } as const;
    await using device = await client(other, { paths, format: ContentFormat.SenmlJson });
    const { statuses, found } = await device.done(
      get('./10/0/1'),
      get('./10/0/3'),
      replace('./10/0/1', 'off'),
      replace('./10/0/3', '3.5', 'float'),
    );
    assert.equal(statuses, '200 200 200 200');
    assert.deepEqual(found.slice(0, 2), [
      ['./10/0/1', 'chr', 'on'],
      ['./10/0/3', 'float', '2.5'],
    ]);
    assert.deepEqual(
      device.written.map(({ value }) => value),
      ['off', 3.5],
    );
  });

  test('an integer that is not negative is written so that a signed and an unsigned reader have the same value', async () => {
    assert.equal(typeOf([10, 0, 1]), 'unsigned');
    await using device = await client(values, { paths });
    await device.done(replace('./10/0/1', '200'));
    assert.deepEqual([...(device.requests.at(-1)?.payload ?? [])], [0xc2, 1, 0, 200]);
  });
});
