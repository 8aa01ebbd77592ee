import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Operation } from '../../src/dm/server-session.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { client, converse, manage, noncePair, server, siteTree, small, statusesOf } from './parties.ts';

const alertsOf = (message: SyncmlMessage) =>
  message.commands.flatMap((command) => (command.name === 'Alert' ? [command.data] : []));
const get: Operation = { name: 'Get', uri: './Site/Name' };

describe('large objects', () => {
  const long = 'Zählerstand <17> & "mehr"; '.repeat(400);

  // conforms: PRO-12
  test('a value that fits into no message goes to the client in chunks, and each chunk is answered with 213', async () => {
    const { outcomes, said, stored } = await manage(
      [{ name: 'Replace', uri: './Site/Name', data: long }, get],
      small(2500),
    );
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200],
    );
    assert.equal(stored.nodes.get('Site/Name')?.value, long);
    assert.equal(outcomes[1]?.results[0]?.data, long, 'and comes back in chunks');
    const chunks = said.flatMap(({ commands }) => commands.filter(({ name }) => name === 'Replace')).slice(1);
    const sizes = chunks.map((command) => 'items' in command && command.items[0]?.meta?.size);
    assert.deepEqual(
      [sizes[0], sizes[1]],
      [Buffer.byteLength(long), undefined],
      'only the first chunk tells the size',
    );
    assert.ok(said.some((message) => statusesOf(message).includes('Replace 213')));
  });

  // conforms: PRO-12
  test('a value of octets goes in chunks as well, with the size of its base64', async () => {
    const blob = Buffer.from(Array.from({ length: 9000 }, (_, at) => at & 255));
    const { outcomes, stored, said } = await manage(
      [
        { name: 'Replace', uri: './Site/Blob', format: 'bin', data: blob },
        { name: 'Get', uri: './Site/Blob' },
      ],
      small(2000),
    );
    assert.deepEqual(Buffer.from(stored.nodes.get('Site/Blob')?.value ?? ''), blob);
    assert.deepEqual(Buffer.from(outcomes[1]?.results[0]?.data ?? ''), blob);
    const sizes = said.flatMap(({ commands }) =>
      commands.flatMap((command) => ('items' in command ? (command.items[0]?.meta?.size ?? []) : [])),
    );
    assert.deepEqual(sizes, [12_000, 12_000]);
  });

  // conforms: PRO-12
  test('the data of an alert of a client go in chunks as well', async () => {
    const { device, dm } = noncePair();
    const heard: string[] = [];
    const settled: number[] = [];
    const alert = (data: string) => ({
      code: 1226,
      items: [{ source: { locUri: './Site' }, meta: { type: 'urn:x', format: 'chr' }, data }],
      settled: (status: number) => settled.push(status),
    });
    const long = ['a', 'b'].map((letter) => letter.repeat(150_000));
    const clientSide = client(device, { alerts: long.map(alert) });
    await converse(
      clientSide,
      server(dm, {
        alerted: ({ items }) => {
          heard.push(String(items[0]?.data));
          return 200;
        },
      }),
    );
    assert.deepEqual(heard, long);
    assert.deepEqual(settled, [200, 200]);
  });

  const chunk = (data: string, more: boolean, size?: number, uri = './Site/Name') =>
    ({
      name: 'Replace',
      cmdId: '9',
      items: [
        {
          target: { locUri: uri },
          meta: { format: 'chr', ...(size !== undefined && { size }) },
          data,
          ...(more && { moreData: true as const }),
        },
      ],
    }) as const;

  /** A client that has been greeted, and what it says to further messages. */
  async function talk(mediaType: string = MediaType.Cbor) {
    const { device, dm } = noncePair();
    const site = siteTree();
    const clientSide = client(device, { tree: site.tree });
    const hello = await server(dm, {
      work: async function* () {
        yield [get];
      },
    }).receive(clientSide.start());
    let msgId = 1;
    const say = async (commands: SyncmlMessage['commands'], final = false) => {
      const { header } = hello;
      const status = {
        ...hello.commands[0]!,
        cmdId: '1',
        msgRef: msgId,
      } as SyncmlMessage['commands'][number];
      const { cred: _, ...bare } = header;
      const message = {
        header: msgId === 1 ? header : { ...bare, msgId },
        commands: [status, ...commands],
        final,
      };
      const answer = await clientSide.receive(decodeMessage(encodeMessage(message, mediaType), mediaType));
      msgId++;
      return answer!;
    };
    return { ...site, say };
  }

  // conforms: PRO-13
  for (const [what, chunks, statuses] of [
    ['without a size', [chunk('a', true)], ['Replace 411']],
    ['larger than is taken', [chunk('a', true, 2_000_000)], ['Replace 413']],
    ['longer than it said', [chunk('abc', true, 4), chunk('de', false)], ['Replace 213', 'Replace 424']],
    ['shorter than it said', [chunk('abc', true, 9), chunk('de', false)], ['Replace 213', 'Replace 424']],
  ] as const)
    test(`an object ${what}: ${statuses.at(-1)}`, async () => {
      const { say, stored } = await talk();
      const heard: string[] = [];
      for (const one of chunks)
        heard.push(...statusesOf(await say([one])).filter((status) => status.startsWith('Replace')));
      assert.deepEqual(heard, statuses);
      assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
    });

  test('the rest of an object that was refused is no value of its own, until the package is over', async () => {
    const { say, stored } = await talk();
    const heard: string[] = [];
    const saying = async (one: ReturnType<typeof chunk>, final = false) =>
      heard.push(...statusesOf(await say([one], final)).filter((status) => status.startsWith('Replace')));
    await saying(chunk('abcd', true));
    await saying(chunk('efgh', true));
    await saying(chunk('ij', false));
    assert.deepEqual(heard, ['Replace 411', 'Replace 411', 'Replace 411']);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
    await saying(chunk('klmn', true, 99_000_000));
    await saying(chunk('op', true, 4));
    await saying(chunk('qr', false));
    assert.deepEqual(heard.slice(3), ['Replace 413', 'Replace 213', 'Replace 200'], 'a size begins it anew');
    assert.equal(stored.nodes.get('Site/Name')?.value, 'opqr');
    await saying(chunk('st', true), true);
    await saying(chunk('uv', false));
    assert.deepEqual(heard.slice(6), ['Replace 411', 'Replace 200']);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'uv');
  });

  test('the size may stand in the Meta of the command, as in the example of MoreData, and so may the format', async () => {
    const { say, stored } = await talk();
    const bare = (data: string, more: boolean, meta?: object) => ({
      name: 'Replace' as const,
      cmdId: '9',
      ...(meta && { meta }),
      items: [{ target: { locUri: './Site/Blob' }, data, ...(more && { moreData: true as const }) }],
    });
    const [first, last] = [bare('AQID', true, { format: 'b64', size: 8 }), bare('BAUG', false)];
    assert.deepEqual(statusesOf(await say([first])).slice(1), ['Replace 213']);
    assert.deepEqual(statusesOf(await say([last])).slice(1), ['Replace 200']);
    assert.deepEqual(
      Buffer.from(stored.nodes.get('Site/Blob')?.value ?? ''),
      Buffer.from([1, 2, 3, 4, 5, 6]),
    );
  });

  for (const mediaType of Object.values(MediaType))
    test(`base64 that is cut anywhere, with a size of its characters or of its octets, in ${mediaType}`, async () => {
      const octets = Buffer.from([1, 2, 3, 4, 5, 6, 7]);
      const plain = octets.toString('base64');
      const lines = plain.replace(/.{4}/g, '$&\r\n');
      for (const [coded, size, format] of [
        [plain, plain.length, 'b64'],
        [plain, octets.length, 'b64'],
        [plain, octets.length, 'bin'],
        [lines, lines.length, 'b64'],
        [lines, plain.length, 'b64'],
        [`${plain}\n`, octets.length, 'b64'],
      ] as const)
        for (let at = 1; at < coded.length; at++) {
          const { say, stored } = await talk(mediaType);
          const part = (data: string, more: boolean, fields = {}) => ({
            ...chunk(data, more, undefined, './Site/Blob'),
            items: [{ ...chunk(data, more, undefined, './Site/Blob').items[0], meta: { format, ...fields } }],
          });
          await say([part(coded.slice(0, at), true, { size })]);
          const said = await say([part(coded.slice(at), false)]);
          assert.deepEqual(statusesOf(said).slice(1), ['Replace 200'], `${size}, cut at ${at}`);
          assert.deepEqual(Buffer.from(stored.nodes.get('Site/Blob')?.value ?? ''), octets);
        }
    });

  // conforms: REP-22
  test('a value that is not base64, though its format says so, gets 400, and the other commands count', async () => {
    const { say, stored } = await talk(MediaType.Xml);
    const wrong = {
      ...chunk('x', false),
      items: [{ target: { locUri: './Site/Blob' }, meta: { format: 'b64' }, data: '!?' }],
    };
    const said = await say([wrong, { ...chunk('7', false, undefined, './Site/Count'), cmdId: '10' }]);
    assert.deepEqual(statusesOf(said).slice(1), ['Replace 400', 'Replace 200']);
    assert.equal(stored.nodes.get('Site/Count')?.value, '7');
  });

  // conforms: PRO-14
  test('another command before the last chunk causes alert 1225, and the object is dropped', async () => {
    const { say, stored } = await talk();
    await say([chunk('abc', true, 6)]);
    const other = await say([chunk('7', false, undefined, './Site/Count')]);
    assert.deepEqual(alertsOf(other), [1225, 1222]);
    assert.deepEqual(statusesOf(other).slice(1), ['Replace 200']);
    const late = await say([chunk('def', false)], true);
    assert.deepEqual(statusesOf(late).slice(1), ['Replace 200']);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'def', 'what comes late is a value of its own');
  });

  // conforms: PRO-16
  test('after a client has refused an object, the server sends no further chunk of it', async () => {
    const { outcomes, said } = await manage(
      [{ name: 'Replace', uri: './Site/Name', data: 'x'.repeat(9000) }, get],
      (message, from) => {
        const { header, commands, final } = small(2000)(message, from);
        const swollen = commands.map((command) =>
          command.name === 'Replace' && command.items[0]?.moreData
            ? {
                ...command,
                items: [{ ...command.items[0], meta: { ...command.items[0].meta, size: 2_000_000 } }],
              }
            : command,
        );
        return { header, commands: from === 'server' ? swollen : commands, final };
      },
    );
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [413, 200],
    );
    assert.equal(
      said.filter(({ commands }) => commands.some((command) => command.name === 'Replace')).length,
      2,
    );
  });

  // conforms: PRO-15
  test('a result larger than MaxObjSize of the server is not sent, and its status is 413', async () => {
    const { outcomes } = await manage([get], ({ header, ...rest }, from) => ({
      header: from === 'server' ? { ...header, meta: { maxObjSize: 3 } } : header,
      ...rest,
    }));
    assert.deepEqual([outcomes[0]?.status, outcomes[0]?.results], [413, []]);
  });

  // conforms: PRO-28
  test('an order above the MaxObjSize of the client is not sent; the rest of the round is', async () => {
    const big: Operation = { name: 'Replace', uri: './Site/Name', data: 'x'.repeat(50) };
    const inside: Operation = { name: 'Sequence', operations: [{ ...big, uri: './Site/Count' }] };
    const limited = (message: SyncmlMessage, from: 'client' | 'server') =>
      from === 'client'
        ? { ...message, header: { ...message.header, meta: { ...message.header.meta, maxObjSize: 49 } } }
        : message;
    const { outcomes, said } = await manage([big, inside, get], limited);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [413, 413, 200],
    );
    assert.ok(!JSON.stringify(said).includes('xxxxx'));
    const { outcomes: none } = await manage([big], limited);
    assert.deepEqual(
      none.map(({ status }) => status),
      [413],
      'a round of which nothing is sent',
    );
  });

  // conforms: PRO-28
  for (const [says, statuses, chunks] of [
    ['true', [200, 200], true],
    ['false', [413, 200], false],
    [undefined, [200, 200], true],
  ] as const)
    test(`a value that may need chunks waits for DevDetail/LrgObj, which is ${says ?? 'not there'}`, async () => {
      const asked: string[] = [];
      const { outcomes, said } = await manage(
        [{ name: 'Replace', uri: './Site/Name', data: 'y'.repeat(9000) }, get],
        small(2000),
        {
          DevDetail: {
            view: (path) => {
              if (path.length === 0) return { format: 'node', access: ['Get'], children: ['LrgObj'] };
              asked.push(path.join('/'));
              return says === undefined ? undefined : { format: 'bool', access: ['Get'], value: says };
            },
          },
        },
      );
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        statuses,
      );
      assert.ok(asked.includes('LrgObj'));
      assert.equal(JSON.stringify(said).includes('yyyyy'), chunks);
    });

  test('a list with a value above the MaxObjSize of the server gets 413, and no part of it is sent', async () => {
    for (const [query, status] of [
      ['list=StructData', 413],
      ['list=Struct', 200],
    ] as const) {
      const { outcomes } = await manage(
        [{ name: 'Get', uri: `./Site?${query}` }],
        ({ header, ...rest }, from) => ({
          header: from === 'server' ? { ...header, meta: { maxObjSize: 3 } } : header,
          ...rest,
        }),
      );
      assert.deepEqual(
        [outcomes[0]?.status, (outcomes[0]?.results.length ?? 0) > 0],
        [status, status === 200],
      );
    }
  });

  test('a MaxObjSize and MaxMsgSize of 4294967295 are numbers', async () => {
    const { outcomes } = await manage([get], ({ header, ...rest }) => ({
      header: { ...header, meta: { maxObjSize: 4294967295, maxMsgSize: 4294967295 } },
      ...rest,
    }));
    assert.equal(outcomes[0]?.status, 200);
  });
});
