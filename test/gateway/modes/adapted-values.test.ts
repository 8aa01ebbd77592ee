import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import type { CoapRequest } from '../../../src/wire/coap/message.ts';
import { refusal, reply } from '../../../src/wire/coap/message.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import type { ResourceType, Value } from '../../../src/wire/lwm2m/resource.ts';
import { adaptedRig, atomic, get, replace } from './adapted-rig.ts';

const object = 26241;
const at = (resource: number) => `./${object}/0/${resource}`;

/** Resources of an object that nobody has registered. */
const resources: Readonly<Record<number, { readonly type: ResourceType; readonly value: Value }>> = {
  0: { type: 'integer', value: 5 },
  1: { type: 'float', value: 21 },
  2: { type: 'boolean', value: true },
  3: { type: 'string', value: 'hall' },
  4: { type: 'objlnk', value: '3303:0' },
  5: { type: 'opaque', value: Buffer.of(1, 2) },
  6: { type: 'time', value: '9007199254740993' },
  7: { type: 'float', value: -1e300 },
};

/** A client that has these resources. `refuse` answers some requests otherwise; undefined for none, null for as usual. */
async function rig(
  refuse: (request: CoapRequest, resource: number) => ReturnType<typeof refusal> | undefined | null = () =>
    null,
  format: number = ContentFormat.SenmlJson,
) {
  const written: [number, Value, number | undefined][] = [];
  const found = await adaptedRig((request) => {
    const path = request.path.map(Number);
    const resource = path[2] ?? -1;
    const refused = refuse(request, resource);
    if (refused !== null) return refused;
    const { type, value } = resources[resource] ?? { type: 'string', value: '' };
    if (request.method === Code.GET) {
      const entries = [{ path, value }];
      const isPlain = format === ContentFormat.TextPlain;
      if (isPlain && request.accept !== undefined) return refusal(Code.NotAcceptable, '');
      return reply(Code.Content, {
        payload: encodeContent(format, entries, path, () => type),
        contentFormat: format,
      });
    }
    const [entry] = decodeContent(request.contentFormat ?? 0, request.payload, path);
    written.push([resource, entry?.value ?? '', request.contentFormat]);
    return reply(Code.Changed);
  });
  let count = 0;
  return {
    found,
    written,
    /** Statuses of commands, and the result. */
    async done(...commands: readonly string[]) {
      found.start(`f${count++}`, commands.join(''));
      await found.until(() => found.results.length === count);
      const result = found.results.at(-1) ?? '';
      return [/Commands="([^"]*)"/.exec(result)?.[1] ?? '', result] as const;
    },
    [Symbol.asyncDispose]: () => found[Symbol.asyncDispose](),
  };
}

describe('values of resources that nobody has registered', { timeout: 60_000 }, () => {
  // conforms: GW-26
  test('a Replace without a Format is written with the type that the client says', async () => {
    await using client = await rig();
    const [statuses] = await client.done(
      replace(at(0), '17'),
      replace(at(0), '9223372036854775807'),
      replace(at(1), '22'),
      replace(at(1), '22.5'),
      replace(at(2), '0'),
      replace(at(3), '17'),
      replace(at(4), '3311:2'),
      replace(at(5), 'AwQ='),
      replace(at(6), '-9223372036854775808'),
    );
    assert.equal(statuses, Array(9).fill(200).join(' '));
    assert.deepEqual(
      client.written.map(([resource, value]) => [resource, value instanceof Uint8Array ? [...value] : value]),
      [
        [0, 17],
        [0, '9223372036854775807'],
        [1, 22],
        [1, 22.5],
        [2, false],
        [3, '17'],
        [4, '3311:2'],
        [5, [3, 4]],
        [6, '-9223372036854775808'],
      ],
    );
    assert.ok(client.written.every(([, , format]) => format === ContentFormat.SenmlCbor));
    const link = client.found.requests.findLast(
      ({ method, path }) => method === Code.PUT && path.join('/') === '26241/0/4',
    );
    assert.ok(Buffer.from(link?.payload ?? []).includes('vlo'), 'an object link, no string');
  });

  test('a Format is believed without a question; a text that looks like an object link is one where the client says so', async () => {
    await using client = await rig();
    const [statuses] = await client.done(replace(at(0), '17', 'int'), replace(at(3), '17', 'chr'));
    assert.equal(statuses, '200 200');
    assert.ok(client.found.requests.every(({ method }) => method === Code.PUT));
    await client.done(replace(at(4), '1:2', 'chr'), replace(at(3), '1:2', 'chr'));
    const isLink = client.found.requests
      .filter(({ method }) => method === Code.PUT)
      .slice(2)
      .map(({ payload }) => Buffer.from(payload).includes('vlo'));
    assert.deepEqual(isLink, [true, false]);
  });

  test('of a client that does not say the type a Replace without a Format is refused with 415, and nothing is written', async () => {
    for (const format of [ContentFormat.LwM2mTlv, ContentFormat.TextPlain]) {
      await using client = await rig(undefined, format);
      const [statuses] = await client.done(replace(at(0), '17'), replace(at(3), '17'));
      assert.equal(statuses, '415 415');
      assert.deepEqual(client.written, []);
      assert.equal((await client.done(replace(at(3), 'x', 'chr')))[0], '200', 'with a Format it is written');
    }
  });

  test('a client that has no SenML, and says so by another code than 4.15, gets TLV', async () => {
    await using client = await rig(
      ({ method, contentFormat }) =>
        method === Code.PUT && contentFormat !== ContentFormat.LwM2mTlv ? refusal(Code.BadRequest, '') : null,
      ContentFormat.LwM2mTlv,
    );
    assert.equal((await client.done(replace(at(0), '300', 'int')))[0], '200');
    const { payload } = client.found.requests.at(-1) ?? {};
    assert.deepEqual([...(payload ?? [])], [0xc2, 0, 1, 44]);
  });

  test('a resource that is missing, cannot be read, or is not answered for; a value that does not fit', async () => {
    await using client = await rig(({ method }, resource) =>
      method !== Code.GET || resource < 7
        ? null
        : [refusal(Code.NotFound, ''), refusal(Code.MethodNotAllowed, ''), undefined][resource - 7],
    );
    const [statuses] = await client.done(
      replace(at(7), '17'),
      replace(at(8), '17'),
      replace(at(9), '17'),
      replace(at(0), 'warm'),
      replace(at(0), '9223372036854775808'),
      replace(at(2), '2'),
      replace(at(7), '17').replaceAll('Replace', 'Add'),
    );
    assert.equal(statuses, '404 415 408 400 400 400 415');
    assert.deepEqual(client.written, []);
  });

  test('a value that an Atomic writes back has the type that it had', async () => {
    await using client = await rig(({ method }, resource) => {
      if (method === Code.iPATCH) return refusal(Code.MethodNotAllowed, '');
      return method === Code.PUT && resource === 3 ? refusal(Code.Forbidden, '') : null;
    });
    const [statuses] = await client.done(
      atomic(
        replace(at(1), '22.5'),
        replace(at(4), '1:2'),
        replace(at(5), 'AwQ='),
        replace(at(6), '7'),
        replace(at(7), '0.5', 'float'),
        replace(at(3), 'x'),
      ),
    );
    assert.equal(statuses, '507 216 216 216 216 216 403');
    assert.deepEqual(
      client.written
        .slice(5)
        .map(([resource, value]) => [resource, value instanceof Uint8Array ? [...value] : value]),
      [
        [7, -1e300],
        [6, '9007199254740993'],
        [5, [1, 2]],
        [4, '3303:0'],
        [1, 21],
      ],
    );
  });

  test('integers and times of 64 bits reach the DM server whole', async () => {
    await using client = await rig();
    const [, result] = await client.done(get(at(6)), get(at(0)));
    assert.match(result, />9007199254740993<.*>5</);
  });
});
