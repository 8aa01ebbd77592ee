import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { runClientSession } from '../../src/dm/client-session.ts';
import type { Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import type { Alert, SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { client, converse, manage, noncePair, server, siteTree, small, statusesOf } from './parties.ts';

const alertsOf = (message: SyncmlMessage) =>
  message.commands.flatMap((command) => (command.name === 'Alert' ? [command.data] : []));
const finals = (said: readonly SyncmlMessage[]) => said.map(({ final }) => (final ? 'F' : '-')).join('');
const get: Operation = { name: 'Get', uri: './Site/Name' };

describe('packages of several messages', () => {
  // conforms: PRO-8, PRO-9
  test('commands of a server that do not fit into one message follow in the next one, after alert 1222', async () => {
    const operations = Array.from(
      { length: 12 },
      (_, at): Operation => ({
        name: 'Replace',
        uri: './Site/Name',
        data: `${at}`.padEnd(120, 'x'),
      }),
    );
    const { outcomes, said, stored } = await manage(operations, small(600));
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      operations.map(() => 200),
    );
    assert.match(String(stored.nodes.get('Site/Name')?.value), /^11x/);
    const asking = said.filter((message) => alertsOf(message).includes(1222));
    assert.ok(asking.length >= 3, `${asking.length}`);
    assert.ok(
      asking.every(({ final }) => !final),
      'who asks for more has not ended',
    );
  });

  // conforms: PRO-8, PRO-9
  test('alerts of a client that do not fit into one message follow in the next one, and each gets its status', async () => {
    const { device, dm } = noncePair();
    const heard: string[] = [];
    const settled: number[] = [];
    const alerts = Array.from({ length: 10 }, (_, at) => ({
      code: 1226,
      items: [{ meta: { type: 'urn:x', format: 'chr' }, data: `${at}`.padEnd(20_000, '.') }],
      settled: (status: number) => settled.push(status),
    }));
    const serverSide = server(dm, {
      alerted: (alert: Alert) => {
        heard.push(String(alert.items[0]?.data).replaceAll('.', ''));
        return 200;
      },
    });
    const said = await converse(client(device, { alerts }), serverSide);
    assert.deepEqual(heard, ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    assert.deepEqual(
      settled,
      heard.map(() => 200),
    );
    assert.equal(finals(said), '------FF', 'four messages of at most 64 KB');
  });

  test('statuses that do not fit go into the next message, and then the session ends', async () => {
    const { device, dm } = noncePair();
    const settled: number[] = [];
    const alerts = Array.from({ length: 30 }, () => ({
      code: 1226,
      items: [{ meta: { type: 'urn:x', format: 'chr' }, data: '.' }],
      settled: (status: number) => settled.push(status),
    }));
    const clientSide = client(device, { alerts });
    const said = await converse(clientSide, server(dm), small(500));
    assert.equal(settled.length, 30);
    assert.equal(clientSide.outcome?.status, 200);
    assert.ok(said.length > 4);
  });

  // conforms: PRO-10
  test('the work of the server begins only when the last message of package 1 has arrived', async () => {
    const { device, dm } = noncePair();
    let begun = 0;
    const alerts = Array.from({ length: 6 }, () => ({
      code: 1226,
      items: [{ meta: { type: 'urn:x', format: 'chr' }, data: '.'.repeat(30_000) }],
    }));
    const serverSide = server(dm, {
      work: async function* () {
        begun++;
        yield [get];
      },
    });
    const said = await converse(client(device, { alerts }), serverSide);
    assert.equal(begun, 1);
    assert.ok(said.length > 6);
  });
});

describe('transport errors and wrong messages', () => {
  // conforms: PRO-17
  test('a message that is repeated because its answer was lost gets the same answer and is executed once', async () => {
    const { device, dm } = noncePair();
    const { tree, done } = siteTree();
    const clientSide = client(device, { tree });
    const serverSide = server(dm, {
      work: async function* () {
        yield [{ name: 'Exec', uri: './Do', data: 'x' }];
      },
    });
    const first = await serverSide.receive(clientSide.start());
    const [one, again] = [await clientSide.receive(first), await clientSide.receive(first)];
    assert.deepEqual(one, again);
    assert.equal(done.length, 1);
    const [end, endAgain] = await Promise.all([serverSide.receive(one!), serverSide.receive(one!)]);
    assert.equal(end, endAgain);
  });

  // conforms: PRO-17
  test('a session continues when one answer is lost, and fails when no answer arrives at all', async () => {
    const { device, dm } = noncePair();
    const { tree, done } = siteTree();
    const serverSide = server(dm, {
      work: async function* () {
        yield [{ name: 'Exec', uri: './Do', data: 'x' }];
        yield [get];
      },
    });
    let sent = 0;
    const outcome = await runClientSession(client(device, { tree }), async (message) => {
      const answer = await serverSide.receive(message);
      if (++sent === 2) throw new PosternError('timeout', 'lost');
      return { message: answer };
    });
    assert.deepEqual([outcome.status, sent, done.length], [200, 4, 1]);
    const deaf = runClientSession(client(noncePair().device), async () => {
      throw new PosternError('timeout', 'lost');
    });
    await assert.rejects(deaf, { code: 'timeout' });
  });

  // conforms: PRO-18
  test('an older MsgID is answered with 400 and changes nothing', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const serverSide = server(dm, {
      work: async function* () {
        yield [get];
        yield [get];
      },
    });
    const first = clientSide.start();
    const second = await clientSide.receive(await serverSide.receive(first));
    await serverSide.receive(second!);
    assert.deepEqual(statusesOf(await serverSide.receive(first)), ['SyncHdr 400']);
  });

  // conforms: REP-13
  test('the second of two commands with the same CmdID is answered with 400 and not executed', async () => {
    const { device, dm } = noncePair();
    const { tree, done } = siteTree();
    const clientSide = client(device, { tree });
    const answer = await server(dm, {
      work: async function* () {
        yield [{ name: 'Exec', uri: './Do', data: 'x' }];
      },
    }).receive(clientSide.start());
    const exec = answer.commands.at(-1)!;
    const next = await clientSide.receive({ ...answer, commands: [...answer.commands, exec] });
    assert.deepEqual(statusesOf(next!).slice(1), ['Exec 202', 'Exec 400']);
    assert.equal(done.length, 1);
  });

  // conforms: REP-12
  test('NoResp in a command suppresses its status; NoResp in the header suppresses all statuses', async () => {
    const { device, dm } = noncePair();
    const { tree, stored } = siteTree();
    const clientSide = client(device, { tree });
    const quiet: Operation = { name: 'Replace', uri: './Site/Name', data: 'east' };
    const answer = await server(dm, {
      work: async function* () {
        yield [quiet];
      },
    }).receive(clientSide.start());
    const commands = answer.commands.map((command) =>
      command.name === 'Replace' ? { ...command, noResp: true as const } : command,
    );
    const next = await clientSide.receive({ ...answer, commands });
    assert.deepEqual(statusesOf(next!), ['SyncHdr 212']);
    assert.equal(stored.nodes.get('Site/Name')?.value, 'east');
  });

  // conforms: PRO-11
  test('alert 1223 of the server ends the session at the client, and the work of the server', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const serverSide = server(dm, {
      // biome-ignore lint/correctness/useYield: it fails before it has something to do
      work: async function* () {
        throw new Error('no');
      },
    });
    const said = await converse(clientSide, serverSide);
    assert.deepEqual(alertsOf(said[1]!), [1223]);
    assert.equal(finals(said), 'FF', 'who aborts has no more to say');
    assert.equal(clientSide.outcome?.status, 514);
    assert.equal(serverSide.outcome?.status, 500);
  });

  const abort: Alert = { name: 'Alert', cmdId: '90', data: 1223, items: [] };
  const rename = (cmdId: string, data: string) =>
    ({
      name: 'Replace',
      cmdId,
      items: [{ target: { locUri: './Site/Name' }, meta: { format: 'chr' }, data }],
    }) as const;

  // conforms: PRO-11
  test('a client does not answer alert 1223: what came before it is done and stored, what comes after it is not', async () => {
    const { device, dm } = noncePair();
    const site = siteTree();
    const told: string[] = [];
    const settled: number[] = [];
    const clientSide = client(device, {
      tree: site.tree,
      executed: (command, uri, status) => told.push(`${command} ${uri} ${status}`),
      alerts: [{ code: 1226, items: [{ data: 'x' }], settled: (status) => settled.push(status) }],
    });
    const serverSide = server(dm, {
      work: async function* () {
        yield [get];
      },
    });
    const aborting = (message: SyncmlMessage, from: string): SyncmlMessage =>
      from === 'client'
        ? message
        : { ...message, commands: [...message.commands, rename('80', 'east'), abort, rename('91', 'west')] };
    // The Get of the server, and what is put behind it.
    const said = await converse(clientSide, serverSide, aborting);
    assert.equal(said.length, 2, 'nothing follows the message with the alert');
    assert.deepEqual(clientSide.outcome, { status: 514, reason: 'the other side aborted the session' });
    assert.equal(site.stored.nodes.get('Site/Name')?.value, 'east');
    assert.deepEqual(told, ['Get ./Site/Name 200', 'Replace ./Site/Name 200']);
    assert.deepEqual(settled, [200], 'the statuses beside it count');
    assert.equal(
      await clientSide.receive({ ...said[1]!, header: { ...said[1]!.header, msgId: 2 } }),
      undefined,
    );
    assert.equal(site.stored.nodes.get('Site/Name')?.value, 'east');
  });

  // conforms: PRO-11
  test('alert 1223 of a server that has not proved itself does not end the session', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    const answer = await server(dm).receive(clientSide.start());
    const forged = {
      ...answer,
      header: { ...answer.header, cred: undefined },
      commands: [...answer.commands.filter(({ name }) => name === 'Status'), abort],
    } as unknown as SyncmlMessage;
    const next = await clientSide.receive(forged);
    assert.equal(clientSide.outcome, undefined);
    assert.deepEqual(statusesOf(next!), ['SyncHdr 407', 'Alert 407']);
  });

  // conforms: PRO-11
  test('the answer of a server to alert 1223 has statuses alone and is final, and its work ends', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    let rounds = 0;
    let isEnded = false;
    const serverSide = server(dm, {
      work: async function* () {
        try {
          for (; ; rounds++) yield [get];
        } finally {
          isEnded = true;
        }
      },
    });
    const first = await serverSide.receive(clientSide.start());
    const second = await clientSide.receive(first);
    const answer = await serverSide.receive({ ...second!, commands: [...second!.commands, abort] });
    assert.deepEqual(
      answer.commands.map(({ name }) => name),
      ['Status', 'Status'],
    );
    assert.deepEqual(statusesOf(answer), ['SyncHdr 212', 'Alert 200']);
    assert.ok(answer.final);
    assert.deepEqual([serverSide.outcome?.status, rounds, isEnded], [514, 0, true]);
  });

  // conforms: PRO-11
  test('alert 1223 of the client ends the session at the server', async () => {
    const { device, dm } = noncePair();
    const serverSide = server(dm);
    const start = client(device).start();
    const abort = { name: 'Alert', cmdId: '9', data: 1223, items: [] } as const;
    const answer = await serverSide.receive({ ...start, commands: [...start.commands, abort] });
    assert.equal(serverSide.outcome?.status, 514);
    assert.deepEqual(statusesOf(answer), ['SyncHdr 212', 'Alert 200'], 'and it has a status of its own');
  });
});

describe('protocol versions and addresses', () => {
  // conforms: PRO-6
  for (const version of ['DM/1.1', 'DM/1.2', 'DM/1.3'] as const)
    test(`a server answers a client of ${version} in that version`, async () => {
      const { device, dm } = noncePair();
      const said = await converse(client(device, { version }), server(dm));
      assert.deepEqual(
        said.map(({ header }) => [header.verProto, header.verDtd]),
        said.map(() => [version, version === 'DM/1.1' ? '1.1' : '1.2']),
      );
    });

  // conforms: PRO-22
  test('the next message goes to the RespURI of the server', async () => {
    const { device, dm } = noncePair();
    const clientSide = client(device);
    await converse(clientSide, server(dm), ({ header, ...rest }, from) => ({
      header: from === 'server' ? { ...header, respUri: 'coap://192.0.2.9/dm?s=1' } : header,
      ...rest,
    }));
    assert.equal(clientSide.respUri, 'coap://192.0.2.9/dm?s=1');
  });
});

// conforms: REP-7
test('Sequence, Copy and Exec are reported with the outcome of each part', async () => {
  const outcomes: OperationOutcome[] = (
    await manage([
      {
        name: 'Sequence',
        operations: [
          { name: 'Add', uri: './Site/Rooms/hall', format: 'node' },
          { name: 'Add', uri: './Site/Rooms/hall/Floor', format: 'int', data: '2' },
          { name: 'Copy', uri: './Site/Rooms/copy', from: './Site/Rooms/hall' },
          { name: 'Get', uri: './Site/Rooms/copy/Floor' },
          { name: 'Exec', uri: './Do', data: 'go', correlator: 'c' },
        ],
      },
    ])
  ).outcomes;
  assert.deepEqual(
    outcomes[0]?.parts?.map(({ status }) => status),
    [200, 200, 200, 200, 202],
  );
  assert.equal(outcomes[0]?.parts?.[3]?.results[0]?.data, '2');
});
