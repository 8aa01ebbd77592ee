import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { type CoapRequest, refusal, reply } from '../../../src/wire/coap/message.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { parsePath, pathText } from '../../../src/wire/lwm2m/path.ts';
import type { Entry, Value } from '../../../src/wire/lwm2m/resource.ts';
import { adaptedRig, atomic, get, replace } from './adapted-rig.ts';

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

describe('several Gets on an LwM2M client', { timeout: 60_000 }, () => {
  const device: Readonly<Record<string, Value>> = {
    '/3/0/0': 'Maker',
    '/3/0/9': 77,
    '/3303/0/5700': 21.5,
    '/3303/0/5701': 'Cel',
  };
  const wanted = ['/3/0/0', '/3/0/9', '/3303/0/5700'];
  const senml = (entries: readonly Entry[]) =>
    reply(Code.Content, {
      payload: encodeContent(ContentFormat.SenmlCbor, entries, []),
      contentFormat: ContentFormat.SenmlCbor,
    });
  const entriesOf = (...paths: readonly string[]) =>
    paths.map((path) => ({ path: parsePath(path), value: device[path]! }));

  /** What comes of Gets when the client answers a FETCH so, and each Read rightly. */
  async function read(
    fetch: (request: CoapRequest) => ReturnType<typeof reply> | undefined,
    command = wanted.map((path) => get(`.${path}`)).join(''),
    version = '1.1',
    times = 1,
  ) {
    await using rig = await adaptedRig(
      (request) => {
        if (request.method === Code.FETCH) return fetch(request);
        if (request.method !== Code.GET) return reply(Code.Changed);
        return device[at(request)] === undefined ? refusal(Code.NotFound, '') : senml(entriesOf(at(request)));
      },
      { version },
    );
    for (let each = 1; each <= times; each++) {
      rig.start(`f${each}`, command);
      await rig.until(() => rig.results.length >= each);
    }
    const asked = rig.requests.filter(({ path }) => path.join('/') !== '1/0/8');
    return {
      statuses: statuses(rig.results[0]),
      data: [...(rig.results[0] ?? '').matchAll(/<Result URI="[^"]*"[^>]*>([^<]*)/g)].map(([, text]) => text),
      asked: asked.map((each) => (each.method === Code.FETCH ? 'FETCH' : at(each))),
    };
  }
  const all = { statuses: [200, 200, 200], data: ['Maker', '77', '21.5'] };

  test('are one Read-Composite, whatever order the client answers in, and of whatever it was not asked', async () => {
    const answers = entriesOf('/3303/0/5701', ...wanted.toReversed(), '/3/0/0');
    assert.deepEqual(await read(() => senml(answers)), { ...all, asked: ['FETCH'] });
  });

  test('are single Reads where the client leaves values out, or tells one path two values', async () => {
    assert.deepEqual(await read(() => senml(entriesOf('/3/0/9'))), {
      ...all,
      asked: ['FETCH', '/3/0/0', '/3303/0/5700'],
    });
    const twice = [...entriesOf(...wanted), { path: parsePath('/3/0/9'), value: 5 }];
    assert.deepEqual(await read(() => senml(twice)), { ...all, asked: ['FETCH', '/3/0/9'] });
    // A resource that has a value, and instances as well.
    const both = [...entriesOf(...wanted), { path: parsePath('/3/0/9/0'), value: 5 }];
    assert.deepEqual(await read(() => senml(both)), { ...all, asked: ['FETCH', '/3/0/9'] });
    assert.deepEqual(await read(() => senml([])), { ...all, asked: ['FETCH', ...wanted] });
  });

  test('have the values that the client says, whatever unit it gives them', async () => {
    const records = [
      { n: '/3/0/0', vs: 'Maker', u: 'm' },
      { bn: '/3/0/', n: '9', v: 77, u: 'Cel' },
      { bn: '/3303/0/', n: '5700', v: 21.5, u: '%' },
    ];
    const answer = reply(Code.Content, {
      payload: Buffer.from(JSON.stringify(records)),
      contentFormat: ContentFormat.SenmlJson,
    });
    assert.deepEqual(await read(() => answer), { ...all, asked: ['FETCH'] });
  });

  for (const [what, fetch, again] of [
    ['4.04', () => refusal(Code.NotFound, ''), 'FETCH'],
    ['4.05', () => refusal(Code.MethodNotAllowed, ''), undefined],
    ['4.15', () => refusal(Code.UnsupportedContentFormat, ''), undefined],
    ['5.01', () => refusal(Code.NotImplemented, ''), undefined],
    ['5.03', () => refusal(Code.ServiceUnavailable, ''), undefined],
    ['2.04', () => reply(Code.Changed), undefined],
    ['plain text', () => reply(Code.Content, { payload: 'Maker', contentFormat: 0 }), undefined],
    [
      'something else than SenML',
      () => reply(Code.Content, { payload: 'x', contentFormat: ContentFormat.SenmlCbor }),
      undefined,
    ],
    ['nothing', () => undefined, undefined],
  ] as const)
    test(`are single Reads where the client answers ${what} to a Read-Composite`, async () => {
      const found = await read(fetch, undefined, '1.1', 2);
      const second = again ? [again, ...wanted] : wanted;
      assert.deepEqual(found, { ...all, asked: ['FETCH', ...wanted, ...second] });
    });

  test('of LwM2M 1.0 are single Reads, and so is one Get, or one leaf twice', async () => {
    const fetch = () => senml(entriesOf(...wanted));
    assert.deepEqual((await read(fetch, undefined, '1.0')).asked, wanted);
    assert.deepEqual((await read(fetch, get('./3/0/9'))).asked, ['/3/0/9']);
    assert.deepEqual((await read(fetch, get('./3/0/9') + get('./3/0/9'))).asked, ['/3/0/9', '/3/0/9']);
  });

  test('do not go beyond a command between them: what was read before it is not told after it', async () => {
    let value = 77;
    const fetch = () => senml([...entriesOf('/3/0/0'), { path: [3, 0, 9], value: value++ }]);
    const two = get('./3/0/0') + get('./3/0/9');
    const exec = '<Exec><CmdID>1</CmdID><Item><Target><LocURI>./3/0/12</LocURI></Target></Item></Exec>';
    for (const command of [two + exec + two, `<Sequence><CmdID>1</CmdID>${two}${exec}${two}</Sequence>`]) {
      value = 77;
      const found = await read(fetch, command);
      assert.deepEqual(found.asked, ['FETCH', '/3/0/12', 'FETCH']);
      assert.deepEqual(found.data, ['Maker', '77', 'Maker', '78']);
    }
    const one = `<Sequence><CmdID>1</CmdID>${two}${exec}${get('./3/0/9')}</Sequence>`;
    assert.deepEqual((await read(fetch, one)).asked, ['FETCH', '/3/0/12', '/3/0/9']);
  });

  test('of other nodes among them keep their place and their status', async () => {
    const found = await read(
      () => senml(entriesOf('/3/0/0', '/3/0/9')),
      get('./3/0/0') + get('./DevInfo/DevId') + get('./3/0/9') + get('./odd') + get('./3/0/7'),
    );
    assert.deepEqual(found.statuses, [200, 200, 200, 404, 404]);
    assert.deepEqual(found.data, ['Maker', 'c', '77']);
    assert.deepEqual(found.asked, ['FETCH', '/3/0/7']);
  });
});
