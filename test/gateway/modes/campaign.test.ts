import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import type { Operation, OperationOutcome } from '../../../src/dm/server-session.ts';
import { Campaign } from '../../../src/gateway/modes/campaign.ts';
import { campaignLimits } from '../../../src/gateway/modes/campaign-parts.ts';
import { fanOutTo, isRepeatable } from '../../../src/gateway/modes/fan-out.ts';
import type { ManageOptions } from '../../../src/gateway/modes/waiting-work.ts';
import { Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { readResult } from '../../../src/mo/campaign-result.ts';
import { type FanoutOrder, operationsOf } from '../../../src/mo/fanout-order.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

const replace =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>x</Data></Item></Replace>';
const exec = '<Exec><CmdID>1</CmdID><Item><Target><LocURI>./Do</LocURI></Target></Item></Exec>';
const many = (count: number) => Array.from({ length: count }, (_, at) => `d${String(at).padStart(4, '0')}`);
const order = (devices: readonly string[], more: Partial<FanoutOrder> = {}): FanoutOrder => ({
  name: 'f',
  server: 'dm.example',
  command: replace,
  operations: operationsOf(replace),
  devices,
  returnFormat: 3,
  timeout: 60_000,
  patience: 3_600_000,
  deadline: 3_600_000,
  ...more,
});

interface Call {
  readonly device: string;
  readonly options: ManageOptions;
  readonly resolve: (status: number, results?: OperationOutcome['results']) => void;
  readonly reject: (error: PosternError) => void;
}

/** A fan-out whose devices answer when the test says so. */
function rig(
  database = openDatabase(':memory:', gatewaySchema),
  current: FanoutOrder = order([]),
  children: Readonly<Record<string, string>> = {},
  denied: ReadonlySet<string> = new Set(),
  /** Called when the state of a fan-out is read. */
  resumes = () => {},
) {
  const delegated: [string, readonly string[]][] = [];
  const clock = new HandClock();
  const events = new EventRecorder();
  const calls: Call[] = [];
  const results: [string | undefined, string][] = [];
  const manage = (device: string, operations: readonly Operation[], options: ManageOptions) => {
    const { promise, resolve, reject } = Promise.withResolvers<readonly OperationOutcome[]>();
    options.signal?.addEventListener('abort', () => reject(options.signal?.reason));
    const answer = (status: number, results: OperationOutcome['results'] = []) =>
      resolve(operations.map((operation) => ({ operation, status, results })));
    calls.push({ device, options, resolve: answer, reject });
    return promise;
  };
  const campaigns = new Campaigns(database, 'fanout');
  const targets = campaigns.targets.bind(campaigns);
  campaigns.targets = (name) => {
    resumes();
    return targets(name);
  };
  const fanOut = new Campaign<FanoutOrder>({
    kind: 'fanout',
    campaigns,
    clock,
    events,
    order: () => current,
    isRepeatable,
    mayActOn: (server, device) => !denied.has(`${server} ${device}`),
    childOf: (device) => children[device],
    attempt: (...args) => fanOutTo({ manage, adapt: (_, operations) => operations }, ...args),
    delegate: async (child, devices) => {
      delegated.push([child, devices]);
      return devices
        .slice(1)
        .map((device) => ({ device, status: 200, parts: [{ status: 200, results: [] }] }));
    },
    ended: ({ correlator }, result) => results.push([correlator, result]),
  });
  return { database, clock, events, calls, results, fanOut, delegated };
}

/** Waits until a fan-out has begun with so many devices. */
async function begun(calls: readonly Call[], count: number): Promise<void> {
  while (calls.length < count) await turn();
}

/** Starts a campaign as the tree does: admitted, stored, launched. */
function start(fanOut: Campaign<FanoutOrder>, order: FanoutOrder, correlator: string | undefined): number {
  const status = fanOut.admit(order);
  fanOut.record(order, correlator);
  fanOut.launch(order);
  return status;
}

describe('a fan-out', () => {
  // conforms: GW-11, GW-12
  test('a fan-out to 1000 devices keeps its bound of parallel sessions and groups identical outcomes', async () => {
    const { fanOut, calls, results, clock } = rig();
    assert.equal(start(fanOut, order(many(1000)), 'c-1'), 202);
    await begun(calls, campaignLimits.parallel);
    for (let at = 0; at < 8; at++) await turn();
    let most = 0;
    for (let at = 0; at < 1000; at++) {
      await begun(calls, at + 1);
      most = Math.max(most, calls.length - at);
      calls[at]?.resolve(200);
    }
    while (results.length === 0) await turn();
    assert.equal(most, campaignLimits.parallel);
    assert.deepEqual(results, [
      [
        'c-1',
        '<CampaignResult Total="1000" Done="1000" Failed="0" Pending="0"><Group Status="200" Commands="200" Count="1000"/></CampaignResult>',
      ],
    ]);
    assert.equal(clock.timers, 0);
  });

  test('one turn of the event loop begins with few devices, of all fan-outs together', async () => {
    const { fanOut, calls } = rig();
    start(fanOut, order(many(40)), undefined);
    start(fanOut, order(many(40), { name: 'g' }), undefined);
    let most = calls.length;
    while (calls.length < 80) {
      const before = calls.length;
      await turn();
      most = Math.max(most, calls.length - before);
    }
    assert.equal(most, campaignLimits.perTurn);
  });

  // conforms: GW-12
  test('the result names the devices that failed, with their statuses', async () => {
    const { fanOut, calls, results } = rig();
    start(fanOut, order(['a', 'b', 'c', '<d>']), undefined);
    await turn();
    const call = (device: string) => calls.find((each) => each.device === device);
    call('a')?.resolve(200);
    call('b')?.resolve(425);
    call('c')?.reject(new PosternError('timeout', 'no'));
    call('<d>')?.reject(new PosternError('notFound', 'no'));
    while (results.length === 0) await turn();
    assert.equal(
      results[0]?.[1],
      '<CampaignResult Total="4" Done="1" Failed="3" Pending="0"><Group Status="404" Commands="" Count="1"><Device ID="&lt;d&gt;"/></Group><Group Status="200" Commands="200" Count="1"/><Group Status="425" Commands="425" Count="1"><Device ID="b"/></Group><Group Status="408" Commands="" Count="1"><Device ID="c"/></Group></CampaignResult>',
    );
  });

  // conforms: GW-11
  test('after a cancellation the remaining devices are not contacted and get 214', async () => {
    const { fanOut, calls, results } = rig();
    start(fanOut, order(many(campaignLimits.parallel + 4)), undefined);
    await begun(calls, campaignLimits.parallel);
    assert.equal(fanOut.cancel('f'), 200);
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    const { state, done, failed } = fanOut.summary('f');
    assert.deepEqual(
      [state, done, failed, calls.length],
      [3, campaignLimits.parallel, 4, campaignLimits.parallel],
    );
    assert.match(results[0]?.[1] ?? '', /<Group Status="214" Commands="" Count="4">/);
    assert.equal(fanOut.cancel('f'), 404);
  });

  // conforms: GW-11
  test('at the deadline the result is reported, with 408 for a device that was not reached', async () => {
    const { fanOut, calls, clock, results } = rig();
    start(fanOut, order(many(campaignLimits.parallel + 1)), undefined);
    await begun(calls, campaignLimits.parallel);
    clock.advance(3_600_000);
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /<Group Status="408" Commands="" Count="1"><Device ID="d0064"\/>/);
  });

  test('a fan-out without devices gets 200 and no result; a second start and a fan-out beyond the bound are refused', async () => {
    const { fanOut, results } = rig();
    assert.equal(start(fanOut, order([]), 'c'), 200);
    for (let at = 0; at < campaignLimits.running; at++)
      start(fanOut, order(['a'], { name: `f${at}` }), undefined);
    assert.throws(() => start(fanOut, order(['a'], { name: 'f0' }), undefined), { code: 'conflict' });
    assert.throws(() => start(fanOut, order(['a'], { name: 'more' }), undefined), { code: 'full' });
    await fanOut[Symbol.asyncDispose]();
    assert.deepEqual(results, []);
  });
});

describe('devices that do not answer', () => {
  /** A fan-out to more devices than may be in progress. The first ones do not answer. */
  async function silent() {
    const found = rig();
    const { fanOut, calls } = found;
    start(fanOut, order(many(100), { timeout: 7_200_000 }), undefined);
    await begun(calls, campaignLimits.parallel);
    const away = calls.slice(0, campaignLimits.parallel);
    for (const { options } of away) options.away?.();
    // The others have their turn.
    await begun(calls, 100);
    for (const { resolve } of calls.slice(campaignLimits.parallel)) resolve(200);
    await turn();
    return { ...found, away };
  }
  const result = async ({ results }: ReturnType<typeof rig>) => {
    while (results.length === 0) await turn();
    return results[0]?.[1] ?? '';
  };

  test('keep no other device waiting, and are counted when they come', async () => {
    const found = await silent();
    assert.equal(found.results.length, 0);
    for (const { options, resolve } of found.away) {
      options.begun?.();
      resolve(200);
    }
    assert.match(await result(found), /Total="100" Done="100" Failed="0"/);
  });

  test('end at the deadline, but not those whose session has begun', async () => {
    const found = await silent();
    const [first] = found.away;
    first?.options.begun?.();
    found.clock.advance(3_600_000);
    await turn();
    assert.equal(found.results.length, 0, 'one is in progress');
    assert.equal(found.away.filter(({ options }) => options.signal?.aborted).length, 63);
    first?.resolve(200);
    assert.match(await result(found), /Total="100" Done="37" Failed="63"/);
  });

  test('accept the order after the deadline: nobody waits for their report, and the fan-out ends', async () => {
    const found = rig();
    start(found.fanOut, order(['a', 'b']), undefined);
    await begun(found.calls, 2);
    for (const { options } of found.calls) options.begun?.();
    found.clock.advance(3_600_000);
    assert.ok(found.calls.every(({ options }) => options.until?.aborted));
    found.calls[0]?.resolve(202);
    found.calls[1]?.resolve(200);
    assert.match(await result(found), /Total="2" Done="2" Failed="0" Pending="0"/);
  });

  test('end with the cancellation, and nothing is done on them later', async () => {
    const found = await silent();
    assert.equal(found.fanOut.cancel('f'), 200);
    assert.match(await result(found), /Total="100" Done="36" Failed="64" Pending="0"><Group Status="214"/);
    assert.ok(found.away.every(({ options }) => options.signal?.aborted));
  });

  test('keep the gateway from no stop', async () => {
    const found = await silent();
    await found.fanOut[Symbol.asyncDispose]();
    assert.equal(found.results.length, 0);
  });
});

describe('the targets of a fan-out', () => {
  // conforms: GW-16
  test('a device on which the DM server has no right is not contacted and gets 425', async () => {
    const { fanOut, calls, results } = rig(undefined, undefined, {}, new Set(['dm.example b']));
    start(fanOut, order(['a', 'b']), undefined);
    await turn();
    assert.deepEqual(
      calls.map(({ device }) => device),
      ['a'],
    );
    calls[0]?.resolve(200);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /<Group Status="425" Commands="" Count="1"><Device ID="b"\/>/);
  });

  // conforms: GW-16
  test('of the devices behind a child gateway, those on which the DM server has no right are not delegated', async () => {
    const { fanOut, results, delegated } = rig(
      undefined,
      undefined,
      { x: 'gw-2', y: 'gw-2', z: 'gw-2' },
      new Set(['dm.example y']),
    );
    start(fanOut, order(['x', 'y', 'z']), undefined);
    while (results.length === 0) await turn();
    assert.deepEqual(delegated, [['gw-2', ['x', 'z']]]);
    assert.match(results[0]?.[1] ?? '', /<Group Status="425" Commands="" Count="1"><Device ID="y"\/>/);
  });

  test('devices behind a child gateway are delegated to it in one order; a device without an outcome gets 500', async () => {
    const { fanOut, calls, results, delegated } = rig(undefined, undefined, { x: 'gw-2', y: 'gw-2' });
    start(fanOut, order(['a', 'x', 'y']), undefined);
    await turn();
    calls[0]?.resolve(200);
    while (results.length === 0) await turn();
    assert.deepEqual(delegated, [['gw-2', ['x', 'y']]]);
    assert.match(
      results[0]?.[1] ?? '',
      /Done="2" Failed="1".*<Group Status="500" Commands="" Count="1"><Device ID="x"\/>/,
    );
  });

  // conforms: GW-19
  test('a device that answers 202 is pending until its report or the deadline', async () => {
    const { fanOut, calls, results, clock } = rig();
    start(fanOut, order(['a', 'b'], { operations: operationsOf(exec) }), 'c');
    await turn();
    for (const call of calls) call.resolve(202);
    for (let i = 0; i < 4; i++) await turn();
    assert.equal(fanOut.counts('f').pending, 2);
    assert.equal(fanOut.reported('a', 'another', 200), false);
    assert.equal(fanOut.reported('a', 'f', 410), true);
    assert.equal(fanOut.reported('a', 'f', 410), false);
    clock.advance(3_600_000);
    assert.match(
      results[0]?.[1] ?? '',
      /<Group Status="410" Commands="202" Count="1"><Device ID="a"\/><\/Group><Group Status="200" Commands="202" Count="1"/,
    );
  });
});

describe('after a restart', () => {
  const restart = async (
    command: string,
    found: OperationOutcome['results'] = [],
    more: Partial<FanoutOrder> = {},
  ) => {
    const current = order(['a', 'b', 'c'], { operations: operationsOf(command), ...more });
    const before = rig(undefined, current);
    start(before.fanOut, current, 'c-9');
    await turn();
    before.calls[0]?.options.begun?.();
    before.calls[1]?.options.begun?.();
    before.calls[1]?.resolve(200, found);
    await turn();
    await before.fanOut[Symbol.asyncDispose]();
    assert.deepEqual(before.results, []);
    const after = rig(before.database, current);
    after.fanOut.resume();
    await turn();
    return after;
  };

  test('a report in a transaction that is not stored changes nothing; it counts when it comes again', async () => {
    const { database, fanOut, calls, results } = rig();
    const command = operationsOf(exec);
    start(fanOut, order(['a'], { command: exec, operations: command }), 'c-1');
    await begun(calls, 1);
    calls[0]?.resolve(202);
    while (fanOut.awaited.length === 0) await turn();
    const full = new PosternError('storage', 'full');
    assert.throws(
      () =>
        database.transaction(() => {
          fanOut.reported('a', 'f', 200);
          throw full;
        }),
      full,
    );
    await turn();
    assert.deepEqual([results, fanOut.awaited, fanOut.outcome('f', 'a')], [[], ['a'], undefined]);
    assert.equal(fanOut.reported('a', 'f', 200), true);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /Done="1"/);
  });

  test('a report that comes before its fan-out could be continued is refused, and not lost', async () => {
    const first = rig();
    const ordered = order(['a'], { command: exec, operations: operationsOf(exec) });
    start(first.fanOut, ordered, 'c-1');
    await begun(first.calls, 1);
    first.calls[0]?.resolve(202);
    while (first.fanOut.awaited.length === 0) await turn();
    await first.fanOut[Symbol.asyncDispose]();
    let isReadable = false;
    const { fanOut, clock, results } = rig(first.database, ordered, {}, new Set(), () => {
      if (!isReadable) throw new PosternError('storage', 'full');
    });
    fanOut.resume();
    assert.throws(() => fanOut.reported('a', 'f', 200), { code: 'unavailable' });
    isReadable = true;
    while (fanOut.awaited.length === 0) {
      clock.advance(1000);
      await turn();
    }
    assert.equal(fanOut.reported('a', 'f', 200), true);
    while (results.length === 0) await turn();
    assert.equal(fanOut.reported('a', 'f', 200), false, 'nobody waits for it any more');
  });

  // conforms: GW-13
  test('after a restart, pending devices continue, and started ones are retried if the command is repeatable', async () => {
    const { calls, results } = await restart(replace);
    assert.deepEqual(
      calls.map(({ device }) => device),
      ['a', 'c'],
    );
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    assert.deepEqual(results[0], [
      'c-9',
      '<CampaignResult Total="3" Done="3" Failed="0" Pending="0"><Group Status="200" Commands="200" Count="3"/></CampaignResult>',
    ]);
  });

  test('after a restart, the values that a device gave have their formats and types', async () => {
    const found = [
      { uri: './i', format: 'int', data: '5' },
      { uri: './o', format: 'bin', type: 'image/png', data: Buffer.of(0, 1) },
      { uri: './n', format: 'node', type: 'urn:x', data: 'a/b' },
    ];
    const { calls, results } = await restart(replace, found, { returnFormat: 0 });
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    assert.deepEqual(
      readResult(results[0]?.[1] ?? '').find(({ device }) => device === 'b')?.parts[0]?.results,
      [
        { uri: './i', data: '5', format: 'int' },
        { uri: './o', data: 'AAE=', format: 'b64', type: 'image/png' },
        { uri: './n', data: 'a/b', format: 'node', type: 'urn:x' },
      ],
    );
  });

  // conforms: GW-13
  test('after a restart, a started Exec is not sent again, and the device gets 500', async () => {
    const { calls, results } = await restart(exec);
    assert.deepEqual(
      calls.map(({ device }) => device),
      ['c'],
    );
    calls[0]?.resolve(200);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /<Group Status="500" Commands="" Count="1"><Device ID="a"\/>/);
  });
});

describe('the commands of a fan-out', () => {
  test('commands are read with and without SyncBody, alone and inside Atomic', () => {
    const atomic = `<SyncBody><Atomic><CmdID>1</CmdID>${replace}${exec}</Atomic></SyncBody>`;
    assert.deepEqual(
      operationsOf(atomic).map(
        (operation) => 'operations' in operation && operation.operations.map(({ name }) => name),
      ),
      [['Replace', 'Exec']],
    );
    assert.equal(operationsOf(replace + exec).length, 2);
  });

  for (const [what, command, code] of [
    ['an empty text', '', 'malformed'],
    ['a text that is not XML', '<Replace', 'malformed'],
    [
      'a Status',
      '<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>1</CmdRef><Cmd>Get</Cmd><Data>200</Data></Status>',
      'malformed',
    ],
    ['a command without a target', '<Get><CmdID>1</CmdID><Item/></Get>', 'malformed'],
    ['an alert that is no user interaction', '<Alert><CmdID>1</CmdID><Data>1223</Data></Alert>', 'malformed'],
    ['more commands than the bound', replace.repeat(65), 'tooLarge'],
  ] as const)
    test(`${what} is refused`, () => {
      assert.throws(() => operationsOf(command), { code });
    });
});
