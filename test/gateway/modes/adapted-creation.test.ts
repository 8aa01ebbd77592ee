import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isRepeatable } from '../../../src/gateway/modes/fan-out.ts';
import { operationsOf } from '../../../src/mo/fanout-order.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { type CoapRequest, type Reply, refusal, reply } from '../../../src/wire/coap/message.ts';
import { Option, text } from '../../../src/wire/coap/options.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { typeOf } from '../../../src/wire/lwm2m/objects.ts';
import type { Entry, ResourceType, Value } from '../../../src/wire/lwm2m/resource.ts';
import { decodeTlv, instancesIn } from '../../../src/wire/lwm2m/tlv.ts';
import { encodeTnds, type TndsNode } from '../../../src/wire/syncml/tnds.ts';
import { adaptedRig, add, atomic, replace } from './adapted-rig.ts';

const decode = (format: number, payload: Uint8Array, base: readonly number[]) =>
  format === ContentFormat.LwM2mTlv ? decodeTlv(payload, base, types) : decodeContent(format, payload, base);

/** Resources that the client demands in each Create. */
const demanded: Readonly<Record<number, readonly number[]>> = { 3303: [5700, 5701], 26241: [1] };
/** Types of the resources that Postern does not know, as the client has them. */
const own: Readonly<Record<string, ResourceType>> = { '26241/1': 'integer', '26241/4': 'objlnk' };
const types = ([object, , resource]: readonly number[]) =>
  own[`${object}/${resource}`] ?? typeOf([object!, 0, resource!]);

interface Habits {
  /** Answers a request in its own way, before or after it is done; undefined for no answer, null for as usual. */
  readonly before?: (request: CoapRequest) => Reply | undefined | null;
  readonly after?: (request: CoapRequest) => Reply | undefined | null;
  readonly format?: number;
}

/**
 * A client that refuses a Create that lacks a resource, and one of an instance that it has. It chooses the ID 7 where
 * none is given.
 */
async function strictClient({ before, after, format = ContentFormat.LwM2mTlv }: Habits = {}) {
  const has = new Map<string, Map<string, Value>>([
    ['3303/0', new Map<string, Value>([['5700', 20]])],
    ['1/0', new Map<string, Value>([['1', 600]])],
  ]);
  const requests: CoapRequest[] = [];
  const rig = await adaptedRig((request) => {
    requests.push(request);
    const own = before?.(request);
    if (own !== null && before) return own;
    const usual = answer(request);
    const late = after?.(request);
    return after && late !== null ? late : usual;
  });
  function answer({ method, path, payload, contentFormat = 0 }: CoapRequest): Reply {
    const ids = path.map(Number);
    const at = ids.slice(0, 2).join('/');
    if (method === Code.POST && ids.length === 1) return create(ids[0]!, contentFormat, payload);
    const instance = has.get(at);
    if (!instance) return refusal(Code.NotFound, '');
    if (method === Code.DELETE) {
      has.delete(at);
      return reply(Code.Deleted);
    }
    const below = (resource: string) => ids.length === 2 || path.slice(2).join('/') === resource;
    if (method === Code.PUT) {
      for (const { path: to, value } of decode(contentFormat, payload, ids))
        instance.set(to.slice(2).join('/'), value);
      return reply(Code.Changed);
    }
    const entries = [...instance]
      .filter(([name]) => below(name))
      .map(([name, value]): Entry => ({ path: [...ids.slice(0, 2), ...name.split('/').map(Number)], value }));
    if (entries.length === 0) return refusal(Code.NotFound, '');
    return reply(Code.Content, {
      payload: encodeContent(format, entries, ids, types),
      contentFormat: format,
    });
  }
  function create(object: number, contentFormat: number, payload: Uint8Array): Reply {
    const isTlv = contentFormat === ContentFormat.LwM2mTlv;
    if (!isTlv && format === ContentFormat.LwM2mTlv) return refusal(Code.UnsupportedContentFormat, '');
    const isNamed = !isTlv || instancesIn(payload).length > 0;
    const entries = decode(contentFormat, payload, isNamed ? [object] : [object, 7]);
    const id = entries[0]?.path[1] ?? instancesIn(payload)[0] ?? 7;
    const instance = new Map(entries.map(({ path, value }) => [path.slice(2).join('/'), value]));
    if (has.has(`${object}/${id}`)) return refusal(Code.BadRequest, 'Target already exists');
    if (!demanded[object]?.every((each) => instance.has(String(each))))
      return refusal(Code.BadRequest, 'mandatory resources');
    has.set(`${object}/${id}`, instance);
    const options = [text(Option.LocationPath, String(object)), text(Option.LocationPath, String(id))];
    return reply(Code.Created, { options });
  }
  let count = 0;
  return {
    rig,
    has,
    requests,
    creates: () => requests.filter(({ method, path }) => method === Code.POST && path.length === 1),
    /** Statuses of the commands, and the result. */
    async done(...commands: readonly string[]) {
      rig.start(`f${count++}`, commands.join(''));
      await rig.until(() => rig.results.length === count);
      const result = rig.results.at(-1) ?? '';
      return [/Commands="([^"]*)"/.exec(result)?.[1] ?? '', result] as const;
    },
    [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose](),
  };
}

const isCreate = ({ method, path }: CoapRequest) => method === Code.POST && path.length === 1;
const thermometer = (id: string) =>
  atomic(
    add(`./3303/${id}`),
    add(`./3303/${id}/5700`, '21.5', 'float'),
    add(`./3303/${id}/5701`, 'Cel', 'chr'),
  );

describe('an instance that an LwM2M client creates', { timeout: 60_000 }, () => {
  // conforms: GW-26
  test('has all resources that the Atomic adds, in one Create', async () => {
    await using client = await strictClient();
    assert.deepEqual((await client.done(thermometer('4')))[0], '200 200 200 200');
    assert.equal(client.creates().length, 1);
    assert.deepEqual(
      [...(client.has.get('3303/4') ?? [])],
      [
        ['5700', 21.5],
        ['5701', 'Cel'],
      ],
    );
    assert.equal((await client.done(add('./3303/5')))[0], '400', 'one without resources is refused');
  });

  test('need not be added itself: Adds of its resources, among other commands, create it', async () => {
    await using client = await strictClient();
    const [statuses] = await client.done(
      atomic(
        add('./3303/4/5700', '1'),
        replace('./1/0/1', '900'),
        add('./3303/4/5701', 'Cel'),
        add('./26241/0/1', '5', 'int'),
      ),
    );
    assert.equal(statuses, '200 200 200 200 200');
    assert.equal(client.creates().filter(({ path }) => path[0] === '3303').length, 1);
    assert.deepEqual([...client.has.keys()], ['3303/0', '1/0', '3303/4', '26241/0']);
    assert.equal(client.has.get('1/0')?.get('1'), 900);
  });

  /** One Add of an instance with its resources in TNDS. */
  const tree = (uri: string, children: readonly TndsNode[], format: TndsNode['format'] = 'node') => {
    const xml = encodeTnds({ root: { name: 'any', format, children } }).replaceAll('<', '&lt;');
    return `<Add><CmdID>1</CmdID><Meta><Format xmlns="syncml:metinf">xml</Format><Type xmlns="syncml:metinf">application/vnd.syncml.dmtnds+xml</Type></Meta><Item><Target><LocURI>${uri}</LocURI></Target><Data>${xml}</Data></Item></Add>`;
  };
  const value: TndsNode = { name: '5700', format: 'float', value: '21.5' };
  const unit: TndsNode = { name: 'SensorUnits', format: 'chr', value: 'Cel' };

  // conforms: GW-26
  test('may come as a TNDS object in one Add, alone or in an Atomic, with numbers or names', async () => {
    await using client = await strictClient();
    assert.equal((await client.done(tree('./3303/4', [value, unit])))[0], '200');
    assert.deepEqual(client.creates().length, 1);
    assert.deepEqual(
      [...(client.has.get('3303/4') ?? [])],
      [
        ['5700', 21.5],
        ['5701', 'Cel'],
      ],
    );
    const [statuses, result] = await client.done(
      atomic(replace('./1/0/1', '900'), tree('./Temperature/x', [value, unit])),
    );
    assert.equal(statuses, '200 200 200');
    assert.match(result, /URI="\.\/3303\/7"/);
    // A resource of several instances, octets, and what Postern does not know.
    const octets: TndsNode = { name: '0', format: 'bin', value: Buffer.of(1, 2) };
    const several: TndsNode = { name: '2', format: 'node', children: [octets, { ...octets, name: '9' }] };
    const count: TndsNode = { name: '1', format: 'int', value: '9007199254740993' };
    assert.equal((await client.done(tree('./26241/3', [count, several])))[0], '200');
    assert.equal(client.has.get('26241/3')?.get('1'), '9007199254740993');
    assert.deepEqual(client.has.get('26241/3')?.get('2/9'), Buffer.of(1, 2));
  });

  test('is not created by a TNDS object that is wrong, or that is added to what is there', async () => {
    await using client = await strictClient();
    const one = async (command: string) => (await client.done(command))[0];
    assert.equal(await one(tree('./3303/0', [value, unit])), '418');
    assert.equal(await one(tree('./3303/4', [value, { ...unit, name: 'None such' }])), '404');
    assert.equal(await one(tree('./3303/4', [value, unit, unit])), '418', 'a resource twice');
    assert.equal(await one(tree('./3303/4', [{ ...value, value: 'warm', format: 'chr' }, unit])), '400');
    assert.equal(await one(tree('./3303/4', [value, unit]).replaceAll('MgmtTree', 'Tree')), '400');
    assert.equal(await one(tree('./3303', [value, unit])), '406', 'no instance');
    assert.equal(await one(tree('./3303/0/5700', [])), '406');
    assert.equal(await one(tree('./3303/0', [value]).replaceAll('Add>', 'Replace>')), '406');
    assert.equal(client.requests.filter(({ method }) => method !== Code.GET).length, 0);
    assert.equal(client.has.get('3303/0')?.get('5700'), 20);
  });

  test('has the ID that the client chooses where the command names none, and the result tells it', async () => {
    await using client = await strictClient();
    const [statuses, result] = await client.done(thermometer('x'));
    assert.equal(statuses, '200 200 200 200');
    assert.match(result, /URI="\.\/3303\/7"/);
    assert.equal(client.has.get('3303/7')?.get('5701'), 'Cel');
    await using free = await strictClient({
      before: (each) => (isCreate(each) ? reply(Code.Created) : null),
    });
    const [unsaid, nothing] = await free.done(thermometer('x2'));
    assert.equal(unsaid, '200 200 200 200');
    assert.doesNotMatch(nothing, /<Result/, 'a client that does not say the ID');
  });

  test('is made once: an order that is repeated after a restart gets 418, and one without an ID is not repeated', async () => {
    await using client = await strictClient();
    await client.done(thermometer('4'));
    assert.equal((await client.done(thermometer('4')))[0], '507 418 215 215');
    assert.equal(client.creates().length, 1);
    const may = (command: string) => isRepeatable({ operations: operationsOf(command) });
    assert.deepEqual(
      [may(thermometer('4')), may(thermometer('x')), may(add('./3303/x'))],
      [true, false, false],
    );
  });

  test('takes values of any kind: an instance of a resource, octets, what Postern does not know', async () => {
    for (const format of [ContentFormat.LwM2mTlv, ContentFormat.SenmlJson, ContentFormat.SenmlCbor]) {
      await using client = await strictClient({ format });
      const [statuses] = await client.done(
        atomic(
          add('./26241/3/1', '9007199254740993', 'int'),
          add('./26241/3/2'),
          add('./26241/3/2/0', 'AQI=', 'b64'),
          add('./26241/3/2/9', 'AwQ=', 'b64'),
        ),
      );
      assert.equal(statuses, '200 200 200 200 200');
      const found = client.has.get('26241/3');
      assert.equal(found?.get('1'), '9007199254740993');
      assert.deepEqual(found?.get('2/9'), Buffer.of(3, 4));
    }
  });

  test('is not created when one of the Adds is wrong', async () => {
    await using client = await strictClient();
    const wrong = (...commands: readonly string[]) =>
      client.done(atomic(add('./3303/4/5701', 'Cel'), ...commands)).then(([statuses]) => statuses);
    assert.equal(await wrong(add('./3303/4/5700', 'warm')), '507 215 400');
    assert.equal(await wrong(add('./3303/4/5701', 'K')), '507 215 418');
    assert.equal(await wrong(add('./3303/4/5701/1', 'K')), '507 215 418');
    assert.equal(await wrong(add('./3303/4/6', '1')), '507 215 415', 'neither a type nor a Format');
    assert.equal(await wrong(add('./3303/4', 'x', 'chr')), '507 215 405', 'a value for an interior node');
    assert.equal(await wrong(replace('./1/0/1', '1').replaceAll('Replace', 'Delete')), '507 215 406');
    assert.equal(client.requests.filter(({ method }) => method !== Code.GET).length, 0);
  });

  test('that is there gets 418 by what the client says, and 406 where resources are added to it', async () => {
    await using client = await strictClient();
    // The client has registered 3303/0, and has deleted it since; it has not registered 10/5.
    client.has.delete('3303/0');
    client.has.set('26241/5', new Map([['1', 1]]));
    assert.equal((await client.done(thermometer('0')))[0], '200 200 200 200');
    assert.equal((await client.done(add('./26241/5')))[0], '418');
    assert.equal(
      (await client.done(atomic(add('./26241/5'), add('./26241/5/1', '2', 'int'))))[0],
      '507 418 215',
    );
    assert.equal((await client.done(atomic(add('./26241/5/2', '2', 'int'))))[0], '507 406');
    assert.equal(client.has.get('26241/5')?.get('1'), 1);
  });

  // conforms: GW-26
  test('that is there without a resource, and is not registered, gets 418 as well', async () => {
    await using client = await strictClient({
      before: ({ method, path }) =>
        method === Code.GET && path.join('/') === '26241/6'
          ? reply(Code.Content, { payload: new Uint8Array(), contentFormat: ContentFormat.LwM2mTlv })
          : null,
    });
    client.has.set('26241/6', new Map());
    const [statuses] = await client.done(atomic(add('./26241/6'), add('./26241/6/1', '2', 'int')));
    assert.equal(statuses, '507 418 215');
    assert.deepEqual(client.creates(), []);
    assert.deepEqual(client.has.get('26241/6'), new Map());
  });
});

describe('an Atomic with a Create that fails', { timeout: 60_000 }, () => {
  const two = atomic(
    replace('./1/0/1', '900'),
    add('./3303/4/5700', '1'),
    add('./3303/4/5701', 'Cel'),
    add('./3303/5/5700', '2'),
  );

  // conforms: GW-26
  test('deletes what it has created, and writes earlier values back', async () => {
    await using client = await strictClient();
    assert.equal((await client.done(two))[0], '507 216 216 216 400');
    assert.deepEqual([...client.has.keys()], ['3303/0', '1/0']);
    assert.equal(client.has.get('1/0')?.get('1'), 600);
  });

  test('leaves nothing of an instance that a client refuses half-way, after it has made it', async () => {
    await using client = await strictClient({
      after: (request) => (isCreate(request) ? refusal(Code.BadRequest, 'the last resource') : null),
    });
    assert.equal((await client.done(thermometer('4')))[0], '507 400 215 215');
    assert.deepEqual([...client.has.keys()], ['3303/0', '1/0']);
  });

  test('leaves nothing when the answer is lost, unless the client falls silent: then the outcome says so', async () => {
    let isSilent = false;
    const habits: Habits = {
      after: (request) => (isCreate(request) ? undefined : null),
      before: (request) => {
        if (isSilent) return undefined;
        return request.path.join('/') === '1/0/8' ? reply(Code.Changed) : null;
      },
    };
    await using client = await strictClient(habits);
    assert.equal((await client.done(thermometer('4')))[0], '507 408 215 215');
    assert.deepEqual([...client.has.keys()], ['3303/0', '1/0']);

    await using silent = await strictClient({
      ...habits,
      after: (request) => {
        isSilent = isCreate(request);
        return isSilent ? undefined : null;
      },
    });
    assert.equal((await silent.done(thermometer('4')))[0], '516 408 215 215');
    assert.ok(silent.has.has('3303/4'));
  });

  test('with an ID that the client chooses: a refusal leaves nothing, of a lost answer nobody knows', async () => {
    await using refusing = await strictClient();
    assert.equal((await refusing.done(atomic(add('./3303/x'))))[0], '507 400');
    await using lost = await strictClient({
      after: (request) => (isCreate(request) ? undefined : null),
      before: (request) => (request.path.join('/') === '1/0/8' ? reply(Code.Changed) : null),
    });
    assert.equal((await lost.done(thermometer('x')))[0], '516 408 215 215');
    await using later = await strictClient({
      before: (request) => (request.method === Code.PUT ? refusal(Code.Forbidden, '') : null),
    });
    const [statuses] = await later.done(
      atomic(add('./3303/x/5700', '1'), add('./3303/x/5701', 'Cel'), replace('./1/0/1', '5')),
    );
    assert.equal(statuses, '507 216 216 403');
    assert.deepEqual([...later.has.keys()], ['3303/0', '1/0'], 'the client said the ID, which is deleted');
  });

  test('deletes no instance that may have been there before, and none that a lying client names', async () => {
    // It does not say whether it has 3303/4, which it has.
    await using mute = await strictClient({
      before: ({ method, path }) =>
        method === Code.GET && path[0] === '3303' ? refusal(Code.MethodNotAllowed, '') : null,
    });
    mute.has.set('3303/4', new Map([['5700', 30]]));
    assert.equal((await mute.done(thermometer('4')))[0], '516 400 215 215');
    assert.equal(mute.has.get('3303/4')?.get('5700'), 30);

    const location = (id: string) => [text(Option.LocationPath, '3303'), text(Option.LocationPath, id)];
    await using lying = await strictClient({
      after: (request) => (isCreate(request) ? reply(Code.Created, { options: location('0') }) : null),
    });
    assert.equal(
      (await lying.done(thermometer('4')))[0],
      '516 500 215 215',
      'it made another one than asked',
    );
    const [statuses] = await lying.done(
      atomic(add('./3303/x/5700', '1'), add('./3303/x/5701', 'Cel'), replace('./1/0/1', 'soon')),
    );
    assert.equal(statuses, '516 516 516 400', 'an instance that it had registered before is not new');
    assert.ok(lying.has.has('3303/0'));
  });

  test('writes a value back also when only the answer of its Replace was lost', async () => {
    let writes = 0;
    await using client = await strictClient({
      after: ({ method }) => (method === Code.PUT && writes++ < 1 ? undefined : null),
      before: (request) => (request.path.join('/') === '1/0/8' ? reply(Code.Changed) : null),
    });
    assert.equal((await client.done(atomic(replace('./1/0/1', '900'))))[0], '507 408');
    assert.equal(client.has.get('1/0')?.get('1'), 600);
  });
});
