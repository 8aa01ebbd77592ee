import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runClientSession } from '../../src/dm/client-session.ts';
import type { NodeOperation, Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import { messageBound } from '../../src/dm/session-bounds.ts';
import type { Alert, SyncmlMessage } from '../../src/wire/syncml/message.ts';
import {
  client,
  clientAccount,
  converse,
  manage,
  noncePair,
  server,
  serverAccount,
  siteTree,
  statusesOf,
} from './parties.ts';

const hex = (octets: Uint8Array) => Buffer.from(octets).toString('hex');

async function run(operations: readonly Operation[]) {
  const { clientSide, serverSide, ...rest } = await manage(operations);
  assert.equal(clientSide.outcome?.status, 200);
  assert.equal(serverSide.outcome?.status, 200);
  return rest;
}

describe('authentication', () => {
  // conforms: PRO-1, PRO-2, SEC-2, OBJ-2
  test('both sides prove themselves in packages 1 and 2, and both nonces change', async () => {
    const { device, dm } = noncePair();
    const before = { ...device };
    const said = await converse(client(device), server(dm));
    assert.equal(said.length, 2, 'one package each way');
    assert.deepEqual(statusesOf(said[1]!), ['SyncHdr 212', 'Alert 200', 'Replace 200']);
    assert.notDeepEqual(device.own, before.own);
    assert.deepEqual(Buffer.from(device.own), Buffer.from(dm.peer));
    const again = await converse(client(device), server(dm));
    assert.deepEqual(statusesOf(again[1]!)[0], 'SyncHdr 212', 'and the next session starts from the new one');
  });

  // conforms: PRO-2
  test('a server that did not learn its next nonce is not challenged while it has nothing to do, and once when it has', async () => {
    const { device, dm } = noncePair();
    await converse(client(device), server(dm));
    const verdicts = (said: readonly SyncmlMessage[]) => said.map((message) => statusesOf(message)[0]);
    const idle = client(device);
    assert.deepEqual(verdicts(await converse(idle, server(dm))), [undefined, 'SyncHdr 212']);
    assert.equal(idle.outcome?.status, 200);
    const reporting = client(device, { alerts: [{ code: 1226, items: [], settled: () => {} }] });
    assert.deepEqual(
      verdicts(await converse(reporting, server(dm))),
      [undefined, 'SyncHdr 212', 'SyncHdr 401', 'SyncHdr 212'],
      'the status of an alert counts only from the server itself',
    );
    const busy = server(dm, {
      work: async function* () {
        yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    await converse(client(device), server(dm));
    assert.deepEqual(verdicts(await converse(client(device), busy)).slice(0, 3), [
      undefined,
      'SyncHdr 212',
      'SyncHdr 401',
    ]);
  });

  test('the leaves of DevInfo are learned, whether a client names them as sources or targets, with ./ or without', async () => {
    for (const [end, prefix] of [
      ['source', './DevInfo/'],
      ['source', 'DevInfo/'],
      ['target', './DevInfo/'],
      ['target', 'DevInfo/'],
    ] as const) {
      const { device, dm } = noncePair();
      const seen: unknown[] = [];
      const serverSide = server(dm, {
        // biome-ignore lint/correctness/useYield: it only looks at what the session has learned
        work: async function* ({ devInfo }) {
          seen.push(devInfo.Man, Object.keys(devInfo).length);
        },
      });
      await converse(client(device), serverSide, (message) => ({
        ...message,
        commands: message.commands.map((command) =>
          command.name === 'Replace'
            ? {
                ...command,
                items: command.items.map(({ source, ...item }) => ({
                  ...item,
                  [end]: { locUri: String(source?.locUri).replace('./DevInfo/', prefix) },
                })),
              }
            : command,
        ),
      }));
      assert.deepEqual(seen, ['Maker', 5], `${end} ${prefix}`);
    }
  });

  test('a later message that opens no session, as after a restart of the server, does not end well on either side', async () => {
    const { device, dm } = noncePair();
    const [clientSide, serverSide] = [client(device), server(dm, { firstMsgId: 2 })];
    const [first] = await converse(clientSide, serverSide, (message, from) =>
      from === 'client'
        ? { ...message, commands: message.commands.filter(({ name }) => name !== 'Alert') }
        : message,
    );
    assert.equal(first?.commands.length, 1);
    assert.equal(serverSide.outcome?.status, 404);
    assert.notEqual(clientSide.outcome?.status, 200);
  });

  // conforms: SEC-7
  test('two sides with different nonces agree again after one challenge in each direction', async () => {
    const { device, dm } = noncePair();
    dm.own = Buffer.from('elsewhere');
    dm.peer = Buffer.from('lost');
    const done: OperationOutcome[] = [];
    const serverSide = server(dm, {
      work: async function* () {
        done.push(...(yield [{ name: 'Get', uri: './Site/Name' }]));
      },
    });
    const said = await converse(client(device), serverSide);
    assert.deepEqual(statusesOf(said[1]!), ['SyncHdr 401', 'Alert 401', 'Replace 401']);
    assert.deepEqual(statusesOf(said[4]!), ['SyncHdr 401', 'Get 401']);
    assert.equal(done[0]?.status, 200);
    assert.deepEqual([device.own, device.peer].map(hex), [dm.peer, dm.own].map(hex));
  });

  // conforms: SEC-5, SEC-7
  test('a client with the wrong secret gets 401 twice, and the work never starts', async () => {
    const { device, dm } = noncePair();
    let started = false;
    const serverSide = server(dm, {
      work: async function* () {
        started = true;
        yield [];
      },
    });
    const clientSide = client(device, { account: clientAccount(device, 'wrong') });
    const said = await converse(clientSide, serverSide);
    assert.equal(said.length, 4);
    assert.equal(clientSide.outcome?.status, 401);
    assert.equal(serverSide.outcome?.status, 401);
    assert.equal(started, false);
    assert.deepEqual(
      dm,
      { own: device.peer, peer: device.own },
      'no nonce was overwritten by one without the secret',
    );
  });

  // conforms: SEC-6, SEC-7
  test('no command of a server with the wrong secret is executed, and it changes no nonce of the client', async () => {
    const { device, dm } = noncePair();
    const before = { ...device };
    const { tree, stored } = siteTree();
    const serverSide = server(dm, {
      account: serverAccount(dm, 'wrong'),
      work: async function* () {
        yield [{ name: 'Replace', uri: './Site/Name', data: 'taken' }];
      },
    });
    const clientSide = client(device, { tree });
    await converse(clientSide, serverSide);
    assert.equal(clientSide.outcome?.status, 401);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'north');
    assert.deepEqual(device, before);
  });

  // conforms: SEC-7
  test('a replayed first package opens no session', async () => {
    const { device, dm } = noncePair();
    const [first] = await converse(client(device), server(dm));
    const replayed = server(dm);
    const answer = await replayed.receive(first!);
    assert.deepEqual(statusesOf(answer), ['SyncHdr 401', 'Alert 401', 'Replace 401']);
    assert.equal(replayed.authenticated, false);
  });

  // conforms: SEC-5
  test('without a credential the status is 407', async () => {
    const { device, dm } = noncePair();
    const { header, ...rest } = client(device).start();
    const { cred: _, ...bare } = header;
    assert.equal(statusesOf(await server(dm).receive({ header: bare, ...rest }))[0], 'SyncHdr 407');
  });
});

// conforms: REP-1, REP-8, REP-9, REP-11, TND-4
describe('commands', () => {
  const cases: [NodeOperation, number, string?][] = [
    [{ name: 'Get', uri: './Site/Name' }, 200, 'north'],
    [{ name: 'Get', uri: './Site' }, 200, 'Name/Count/Serial/Secret/Blob/Rooms'],
    [{ name: 'Get', uri: './Site/Name?prop=ACL' }, 200, ''],
    [{ name: 'Get', uri: './Site/Count?prop=Format' }, 200, 'int'],
    [{ name: 'Get', uri: './Site/Name?prop=Size' }, 200, '5'],
    [{ name: 'Get', uri: './DevInfo/Man?prop=TStamp' }, 406],
    [{ name: 'Get', uri: './Site/Name?prop=Colour' }, 406],
    [{ name: 'Get', uri: './Site/Nobody' }, 404],
    [{ name: 'Get', uri: './Site/Secret' }, 405],
    [{ name: 'Get', uri: `./${'x/'.repeat(40)}x` }, 414],
    [{ name: 'Get', uri: './Site/../DevInfo' }, 404],
    [{ name: 'Get', uri: './__proto__' }, 404],
    [{ name: 'Replace', uri: './Site/Name', data: 'south' }, 200],
    [{ name: 'Replace', uri: './Site/Count', format: 'int', data: 'many' }, 400],
    [{ name: 'Replace', uri: './Site/Serial', data: 'x' }, 405],
    [{ name: 'Replace', uri: './Site/Name', data: 'x'.repeat(70_000) }, 413],
    [{ name: 'Replace', uri: './DevInfo/Man', data: 'x' }, 405],
    [{ name: 'Replace', uri: './Site/Blob', format: 'bin', data: Buffer.from([9]) }, 200],
    [{ name: 'Replace', uri: './Site/Name', format: 'odd', data: 'x' }, 415],
    [{ name: 'Add', uri: './Site/Rooms/hall', format: 'node' }, 200],
    [{ name: 'Add', uri: './Site/Name', data: 'x' }, 418],
    [{ name: 'Add', uri: './Site/Extra', data: 'x' }, 405],
    [{ name: 'Add', uri: './Site/Nowhere/hall', format: 'node' }, 404],
    [{ name: 'Delete', uri: './Site/Name' }, 405],
    [{ name: 'Delete', uri: './Site/Rooms/none' }, 404],
    [{ name: 'Exec', uri: './Site/Name' }, 405],
    [{ name: 'Replace', uri: './Site?prop=ACL', data: 'Get=*&Sing=*' }, 400],
    [{ name: 'Replace', uri: '.?prop=ACL', data: 'Get=evil' }, 425],
  ];
  for (const [operation, status, data] of cases)
    test(`${operation.name} ${operation.uri.slice(0, 40)} gets ${status}`, async () => {
      const { outcomes } = await run([operation]);
      assert.equal(outcomes[0]?.status, status);
      if (data !== undefined) assert.equal(String(outcomes[0]?.results[0]?.data), data);
    });

  // conforms: REP-6
  test('an interior node is added with its leaf, read, and deleted with its subtree', async () => {
    const { outcomes, stored } = await run([
      { name: 'Add', uri: './Site/Rooms/hall', format: 'node' },
      { name: 'Add', uri: './Site/Rooms/hall/Floor', format: 'int', data: '2' },
      { name: 'Get', uri: './Site/Rooms/hall/Floor' },
      { name: 'Delete', uri: './Site/Rooms/hall' },
      { name: 'Get', uri: './Site/Rooms' },
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 200, 200, 200],
    );
    assert.equal(outcomes[2]?.results[0]?.data, '2');
    assert.equal(outcomes[4]?.results[0]?.data, '');
    assert.equal(
      [...stored.nodes.keys()].some((path) => path.includes('hall')),
      false,
    );
  });

  // conforms: TND-3
  test('a server without the right gets 425', async () => {
    const { device, dm } = noncePair();
    const ends = { local: 'urn:dev:1', remote: 'other.example' };
    const outcomes: OperationOutcome[] = [];
    const serverSide = server(dm, {
      ends: { local: ends.remote, remote: ends.local },
      work: async function* () {
        outcomes.push(...(yield [{ name: 'Replace', uri: './Site/Name', data: 'x' }]));
      },
    });
    await converse(client(device, { ends }), serverSide);
    assert.equal(outcomes[0]?.status, 425);
  });

  // conforms: TND-4
  test('a server can give its right to another server by an ACL', async () => {
    const { outcomes } = await run([
      { name: 'Replace', uri: './Site?prop=ACL', data: 'Get=*&Replace=dm.example+other.example' },
      { name: 'Get', uri: './Site?prop=ACL' },
    ]);
    assert.equal(outcomes[1]?.results[0]?.data, 'Get=*&Replace=dm.example+other.example');
  });
});

describe('the course of a session', () => {
  // conforms: PRO-19
  test('alerts are delivered, and their statuses return to the reporter', async () => {
    const { device, dm } = noncePair();
    const heard: Alert[] = [];
    const settled: number[] = [];
    const clientSide = client(device, {
      alerts: [
        {
          code: 1226,
          items: [{ meta: { type: 'urn:x', format: 'chr' }, data: 'one' }],
          settled: (status) => settled.push(status),
        },
        {
          code: 1226,
          items: [{ meta: { type: 'urn:y', format: 'chr' }, data: 'two' }],
          settled: (status) => settled.push(status),
        },
      ],
    });
    const serverSide = server(dm, {
      alerted: (alert) => {
        heard.push(alert);
        return heard.length === 1 ? 200 : 415;
      },
    });
    await converse(clientSide, serverSide);
    assert.deepEqual(
      heard.map(({ items }) => items[0]?.data),
      ['one', 'two'],
    );
    assert.deepEqual(settled, [200, 415]);
  });

  test('the status of an alert counts if the server proves itself later in the session', async () => {
    const { device, dm } = noncePair();
    dm.own = Buffer.from('elsewhere');
    const settled: number[] = [];
    const items = [{ meta: { type: 'urn:x', format: 'chr' }, data: 'one' }];
    const clientSide = client(device, {
      alerts: [{ code: 1226, items, settled: (status) => settled.push(status) }],
    });
    const said = await converse(clientSide, server(dm));
    assert.equal(said.length, 4);
    assert.deepEqual(settled, [200]);
  });

  test('the status of an alert does not count if the server never proves itself', async () => {
    const { device, dm } = noncePair();
    const settled: number[] = [];
    const items = [{ meta: { type: 'urn:x', format: 'chr' }, data: 'one' }];
    const clientSide = client(device, {
      alerts: [{ code: 1226, items, settled: (status) => settled.push(status) }],
    });
    await converse(clientSide, server(dm, { account: serverAccount(dm, 'wrong') }));
    assert.deepEqual(settled, []);
  });

  // conforms: PRO-3, PRO-4
  test('work of several rounds, between which the server waits for other things', async () => {
    const { device, dm } = noncePair();
    const seen: unknown[] = [];
    const serverSide = server(dm, {
      work: async function* ({ devInfo, notified }) {
        seen.push(devInfo.Man, notified);
        const [first] = yield [{ name: 'Get', uri: './Site/Name' }];
        seen.push(first?.results[0]?.data);
        await Promise.resolve();
        const [second] = yield [{ name: 'Replace', uri: './Site/Name', data: 'west' }];
        seen.push(second?.status);
      },
    });
    const said = await converse(client(device), serverSide);
    assert.deepEqual(seen, ['Maker', false, 'north', 200]);
    assert.equal(said.length, 6);
  });

  // conforms: PRO-17
  test('a package that arrives twice is answered twice and executed once', async () => {
    const { device, dm } = noncePair();
    let rounds = 0;
    const serverSide = server(dm, {
      work: async function* () {
        rounds++;
        yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    const first = client(device).start();
    const [one, two] = [await serverSide.receive(first), await serverSide.receive(first)];
    assert.equal(one, two);
    assert.equal(rounds, 1);
  });

  test('when a session breaks off, its work can clean up', async () => {
    const { device, dm } = noncePair();
    let cleaned = false;
    const serverSide = server(dm, {
      work: async function* () {
        try {
          yield [{ name: 'Get', uri: './Site/Name' }];
        } finally {
          cleaned = true;
        }
      },
    });
    await serverSide.receive(client(device).start());
    await serverSide.abandon(408, 'gone');
    assert.equal(cleaned, true);
    assert.deepEqual(serverSide.outcome, { status: 408, reason: 'gone' });
  });

  // conforms: REP-14
  test('an unknown command is answered with 406', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const answer = await server(dm).receive(clientSide.start());
    const copy = {
      name: 'Unknown',
      cmdId: '9',
      element: { name: 'Copy', content: [{ name: 'CmdID', content: '9' }] },
    } as const;
    const next = await clientSide.receive({ ...answer, commands: [...answer.commands, copy] });
    assert.deepEqual(statusesOf(next!).at(-1), 'Copy 406');
  });

  // conforms: PRO-5
  test('an answer of another session or another server ends the session', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const answer = await server(dm).receive(clientSide.start());
    assert.equal(
      await clientSide.receive({ ...answer, header: { ...answer.header, sessionId: '2' } }),
      undefined,
    );
    assert.equal(clientSide.outcome?.status, 400);
  });

  // conforms: PRO-7
  for (const [fields, status] of [
    [{ verProto: 'DM/9' }, 513],
    [{ verProto: 'DM/9', verDtd: '9.9' }, 513],
    [{ verDtd: '9.9' }, 505],
  ] as const)
    test(`a message of ${JSON.stringify(fields)} is answered with ${status}, and the session ends`, async () => {
      const { device, dm } = noncePair();
      const first = client(device).start();
      const serverSide = server(dm);
      const answer = await serverSide.receive({ ...first, header: { ...first.header, ...fields } });
      assert.deepEqual(statusesOf(answer), [`SyncHdr ${status}`]);
      assert.equal(serverSide.outcome?.status, status);
    });

  // conforms: REP-21
  test('the Status of a header names the target as it was sent', async () => {
    const { device, dm } = noncePair();
    const first = client(device).start();
    const target = { locUri: 'http://dm.example:8080/dm?x=1' };
    const answer = await server(dm).receive({ ...first, header: { ...first.header, target } });
    const [verdict] = answer.commands;
    assert.deepEqual(verdict?.name === 'Status' && verdict.targetRefs, [target.locUri]);
  });

  // conforms: PRO-25
  test('a client that never ends its session has it aborted', async () => {
    const { device, dm } = noncePair();
    const serverSide = server(dm, {
      work: async function* () {
        for (;;) yield [{ name: 'Get', uri: './Site/Name' }];
      },
    });
    const said = await converse(client(device), serverSide);
    assert.ok(said.length <= 2 * (messageBound + 1), `${said.length}`);
  });

  test('a client ends a session that its server has lost, and does not repeat its message forever', async () => {
    const { device, dm } = noncePair();
    const work = async function* () {
      for (;;) yield [{ name: 'Get', uri: './Site/Name' } as const];
    };
    const clientSide = client(device);
    let serverSide = server(dm, { work });
    let exchanges = 0;
    const outcome = await runClientSession(clientSide, async (message) => {
      if (++exchanges === 3) serverSide = server(dm, { work });
      return { message: await serverSide.receive(message) };
    });
    assert.deepEqual([outcome.status, exchanges], [514, 3]);
  });
});
