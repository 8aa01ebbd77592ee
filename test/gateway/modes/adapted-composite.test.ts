import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { type CoapRequest, refusal, reply } from '../../../src/wire/coap/message.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { parsePath, pathText } from '../../../src/wire/lwm2m/path.ts';
import { adaptedRig, atomic, replace } from './adapted-rig.ts';

const two = atomic(replace('./3/0/14', '+01:00'), replace('./3303/0/5700', '22.5'));
const at = ({ path }: CoapRequest) => `/${path.join('/')}`;

/** The status of the Atomic, and of each command in it. */
const statuses = (result = '') => /Commands="([^"]*)"/.exec(result)?.[1]?.split(' ').map(Number) ?? [];

/** A client with values. What it does with an iPATCH is the test's. */
function client(
  patch: (request: CoapRequest, values: Map<string, unknown>) => ReturnType<typeof reply> | undefined,
) {
  const values = new Map<string, string | number>([
    ['/3/0/14', '+00:00'],
    ['/3303/0/5700', 21],
  ]);
  const answer = (request: CoapRequest) => {
    if (request.method === Code.iPATCH) return patch(request, values);
    const path = at(request);
    const value = values.get(path);
    if (request.method === Code.PUT) {
      const [entry] = decodeContent(request.contentFormat, request.payload, parsePath(path));
      values.set(path, entry!.value as string);
      return reply(Code.Changed);
    }
    if (value === undefined) return refusal(Code.NotFound, '');
    const contentFormat = ContentFormat.SenmlCbor;
    return reply(Code.Content, {
      payload: encodeContent(contentFormat, [{ path: parsePath(path), value }], []),
      contentFormat,
    });
  };
  return { values, answer };
}
const write = (request: CoapRequest, values: Map<string, unknown>) => {
  for (const { path, value } of decodeContent(request.contentFormat, request.payload, []))
    values.set(pathText(path), value);
  return reply(Code.Changed);
};

async function outcome(
  answer: (request: CoapRequest) => ReturnType<typeof reply> | undefined,
  command: string,
  version = '1.1',
) {
  await using rig = await adaptedRig(answer, { version });
  rig.start('f', command);
  await rig.until(() => rig.results.length > 0);
  return {
    statuses: statuses(rig.results[0]),
    methods: rig.requests.map(({ method }) => method),
    paths: rig.heard,
  };
}

describe('an Atomic of Replaces on an LwM2M client', { timeout: 60_000 }, () => {
  test('is one Write-Composite from LwM2M 1.1 on', async () => {
    const { values, answer } = client(write);
    const done = await outcome(answer, two);
    assert.deepEqual(done.statuses, [200, 200, 200]);
    assert.deepEqual(done.methods, [Code.iPATCH]);
    assert.deepEqual(
      [...values],
      [
        ['/3/0/14', '+01:00'],
        ['/3303/0/5700', 22.5],
      ],
    );
  });

  for (const code of [
    Code.MethodNotAllowed,
    Code.NotImplemented,
    Code.BadOption,
    Code.UnsupportedContentFormat,
    Code.NotFound,
    Code.BadRequest,
  ])
    test(`is done value by value when the client answers ${code >> 5}.${code & 31}`, async () => {
      const { values, answer } = client(() => refusal(code, ''));
      const done = await outcome(answer, two);
      assert.deepEqual(done.statuses, [200, 200, 200]);
      assert.deepEqual(done.methods, [Code.iPATCH, Code.GET, Code.PUT, Code.GET, Code.PUT]);
      assert.equal(values.get('/3303/0/5700'), 22.5);
    });

  test('is done value by value by a client of LwM2M 1.0, and with anything but resources in it', async () => {
    const { answer } = client(write);
    assert.ok(!(await outcome(answer, two, '1.0')).methods.includes(Code.iPATCH));
    for (const other of ['./FwUpdate/PkgName', './3/0', './3/0/14?prop=Name']) {
      const mixed = await outcome(answer, atomic(replace('./3/0/14', 'x'), replace(other, 'x', 'chr')));
      assert.ok(!mixed.methods.includes(Code.iPATCH), other);
    }
  });

  test('has an unknown outcome when the answer is lost, and nothing else is asked', async () => {
    const { values, answer } = client((request, all) => {
      write(request, all);
      return undefined;
    });
    const done = await outcome(answer, two);
    assert.deepEqual(done.statuses, [516, 408, 408]);
    assert.deepEqual(done.methods, [Code.iPATCH]);
    assert.equal(values.get('/3303/0/5700'), 22.5);
  });

  test('with a value of a wrong type is not sent', async () => {
    const { answer } = client(write);
    const done = await outcome(answer, atomic(replace('./3/0/14', 'x'), replace('./3303/0/5700', 'warm')));
    assert.deepEqual(done.statuses, [507, 216, 400]);
    assert.ok(!done.methods.includes(Code.iPATCH));
  });
});
