import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { AlertHandler } from '../../src/headend/alert-handler.ts';
import { AlertSequences } from '../../src/headend/alert-sequences.ts';
import { ChildWays, childWayLimits } from '../../src/headend/child-ways.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { OrderBook } from '../../src/headend/order-book.ts';
import { Parties } from '../../src/headend/parties.ts';
import type { PendingDetaches } from '../../src/headend/pending-detaches.ts';
import { Reachability } from '../../src/headend/reachability.ts';
import { Records, recordLimits } from '../../src/headend/records.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { type SessionContext, Sessions } from '../../src/headend/sessions.ts';
import { UnreachableDevices } from '../../src/headend/unreachable-devices.ts';
import {
  deviceAttachAlert,
  deviceDetachAlert,
  devicePresenceAlert,
  gatewayFaultAlert,
} from '../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { EnvelopeKind } from '../../src/wire/tunnel/envelope.ts';
import { client, statusesOf } from '../dm/parties.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const id = 'urn:dev:1';
const secrets = { 'client-secret': 'client-secret', 'server-secret': 'server-secret' };

/** Instead of 100,000 devices. */
const newDevices = { rate: 1, burst: 100 };

/** A head-end without a broker: its gateways `gw-1` and `gw-2`, and the child `gw-3`. */
function rig(database = openDatabase(':memory:', headendSchema)) {
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:' },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      gateway: ['gw-1', 'gw-2', 'gw-3'].map((name) => ({ id: name, ...secrets })),
      device: [{ id, ...secrets }],
    },
    'test',
  );
  const clock = new HandClock();
  const events = new EventRecorder();
  const parties = new Parties(config, database);
  const unreachableDevices = new UnreachableDevices(database, parties);
  const reachability = new Reachability(parties, unreachableDevices);
  const records = new Records(database, clock);
  const detached: string[] = [];
  const asked: string[] = [];
  const pendingDetaches = {
    drop: () => {},
    add: (gateway: string, device: string) => detached.push(`${gateway} ${device}`),
  } as unknown as PendingDetaches;
  const handler = new AlertHandler({
    ...{ database, parties, reachability, pendingDetaches, unreachableDevices, events, clock },
    sequences: new AlertSequences(database),
    records,
    orders: new OrderBook(database, clock),
    telemetry: undefined as never,
    lost: () => {},
    vocabulary: ownVocabulary,
    newDevices,
    ask: (device, gateway) => asked.push(`${device} ${gateway}`),
  });
  const answers = Promise.withResolvers<void>();
  const read: string[] = [];
  /** What the inventories of gateways have, by the URI of the leaf. */
  const inventory = new Map<string, string>();
  const childWays = new ChildWays({
    ...{ database, parties, reachability, vocabulary: ownVocabulary, clock, events },
    notifier: {
      sendPackage0: async (child, gateway) => {
        asked.push(`${child} ${gateway}`);
        await answers.promise;
      },
    },
    sessionRequests: {
      run: async (gateway, operations) => {
        read.push(gateway);
        return operations.map((operation) => {
          const data = 'uri' in operation ? inventory.get(`${gateway} ${operation.uri}`) : undefined;
          return { status: data === undefined ? 404 : 200, results: data === undefined ? [] : [{ data }] };
        }) as never;
      },
    },
  });
  childWays.restore();
  const proofs: string[] = [];
  const alerts: string[] = [];
  const sessions = new Sessions({
    ...{ serverId: 'dm.example', parties, clock, events },
    entropy: seededEntropy(3),
    work: async function* () {},
    proved: ({ party, gateway }, broker) => {
      proofs.push(`${party.id} ${gateway} ${broker}`);
      if (party.kind === 'gateway') childWays.proved(party.id, broker);
      else reachability.prove(party.id, broker);
      handler.proved(party.id, gateway);
    },
    handleAlert: (_, { items: [item] }) => alerts.push(String(item?.data)) && 200,
    demandWay: (child, gateway) => childWays.demand(child, gateway),
  });
  let sequence = 0;
  const report = (gateway: string, alert: (number: number) => object) => {
    const context = { party: parties.get(gateway)!, gateway, sessionId: '1' } satisfies SessionContext;
    return handler.handle(context, {
      ...{ name: 'Alert' as const, cmdId: '1', data: 1226 },
      ...(alert(++sequence) as { items: [] }),
    });
  };
  const attach = (gateway: string, deviceId: string, via?: string) =>
    report(gateway, (number) =>
      deviceAttachAlert(ownVocabulary, {
        ...{ sequence: number, deviceId, mode: 0 as const, bootstrap: 'local' as const },
        ...(via !== undefined && { via }),
      }),
    );
  const send = async (
    message: SyncmlMessage,
    gateway: string,
    more: { device?: string; via?: string; peer?: string },
  ) => {
    const answer = await sessions.receive({
      gateway,
      envelope: {
        ...{ kind: EnvelopeKind.Request, correlation: Buffer.alloc(8), server: 'dm.example' },
        ...{ contentType: MediaType.Xml, body: encodeMessage(message, MediaType.Xml) },
        ...more,
      },
    });
    return decodeMessage(answer.body!, MediaType.Xml);
  };
  return {
    clock,
    events,
    parties,
    reachability,
    records,
    detached,
    asked,
    alerts,
    report,
    attach,
    send,
    proofs,
    sessions,
    childWays,
    answers,
    inventory,
    read,
  };
}

const empty = { own: new Uint8Array(), peer: new Uint8Array() };
const device = () => client({ ...empty }, { sessionId: '5' });
const gateway = (name: string) =>
  client(
    { ...empty },
    {
      sessionId: '7',
      ends: { local: name, remote: 'dm.example' },
      account: {
        own: { name, secret: 'client-secret', nonce: new Uint8Array() },
        peer: { name: 'dm.example', secret: 'server-secret', nonce: new Uint8Array() },
      },
    },
  );
const claim = (source: string, msgId = 1, cred?: string): SyncmlMessage => ({
  header: {
    ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '9', msgId },
    ...{ target: { locUri: 'dm.example' }, source: { locUri: source } },
    ...(cred !== undefined && { cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: cred } }),
  },
  commands: [{ name: 'Alert', cmdId: '1', data: 1201, items: [] }],
  final: true,
});

describe('ways to parties', () => {
  test('a child gateway of another gateway is no way, and none of its own until it has proved itself there', async () => {
    const { attach, send, reachability, parties, asked, clock } = rig();
    const via = { device: id, via: 'gw-3', peer: '192.0.2.66|1' };
    await assert.rejects(send(device().start(), 'gw-2', via), { code: 'unavailable' });
    attach('gw-2', 'gw-3');
    assert.equal(parties.gatewayOf('gw-3'), 'gw-2', 'that it says so is no proof');
    await assert.rejects(send(device().start(), 'gw-2', via), { code: 'unavailable' });
    assert.deepEqual(asked, ['gw-3 gw-2', 'gw-3 gw-2'], 'by the package, and by the report');
    clock.advance(10_000);
    await send(gateway('gw-3').start(), 'gw-2', { device: 'gw-3', peer: '192.0.2.7|1' });
    const answer = await send(device().start(), 'gw-2', via);
    assert.ok(statusesOf(answer).includes('SyncHdr 212'));
    await assert.rejects(send(device().start(), 'gw-1', via), { code: 'unavailable' });
    assert.deepEqual([reachability.wayTo(id), reachability.wayTo('gw-3')], ['gw-2', 'gw-2']);
    assert.deepEqual(asked.slice(2), ['gw-3 gw-1'], 'it may have moved');
  });

  test('neither a device nor a gateway with a connection of its own is a way', async () => {
    const { attach, send, reachability } = rig();
    reachability.setState('gw-3', { online: true, software: '1' } as never);
    attach('gw-1', id);
    for (const via of ['gw-3', id])
      await assert.rejects(send(claim('x'), 'gw-1', { device: 'x', via, peer: '192.0.2.66|1' }), {
        code: 'forbidden',
      });
  });

  test('the proof of a child survives a restart; it ends with a proof elsewhere, a connection of its own, its account', async () => {
    const database = openDatabase(':memory:', headendSchema);
    const first = rig(database);
    await first.send(gateway('gw-3').start(), 'gw-1', { device: 'gw-3', peer: '192.0.2.7|1' });
    const second = rig(database);
    second.childWays.demand('gw-3', 'gw-1');
    // It comes behind another one.
    second.childWays.proved('gw-3', 'gw-2');
    const third = rig(database);
    assert.throws(() => third.childWays.demand('gw-3', 'gw-1'), { code: 'unavailable' });
    third.childWays.demand('gw-3', 'gw-2');
    third.childWays.proved('gw-3', 'gw-3');
    assert.throws(() => rig(database).childWays.demand('gw-3', 'gw-2'), { code: 'unavailable' });
    database.prepare("INSERT INTO proved_way VALUES ('gone', 'gw-1')").run();
    rig(database);
    assert.deepEqual(database.prepare('SELECT * FROM proved_way').all(), []);
  });

  test('a proof that the disk does not take counts until the restart', () => {
    const database = openDatabase(':memory:', headendSchema);
    const { childWays } = rig(database);
    database.prepare('PRAGMA query_only = 1').run();
    childWays.proved('gw-3', 'gw-1');
    childWays.demand('gw-3', 'gw-1');
    database.prepare('PRAGMA query_only = 0').run();
    assert.throws(() => rig(database).childWays.demand('gw-3', 'gw-1'), { code: 'unavailable' });
  });

  test('a child without an account is a way where its parent reports it, also behind a child that has proved itself', async () => {
    const { attach, childWays, read } = rig();
    attach('gw-2', 'plain-1');
    childWays.demand('plain-1', 'gw-2');
    assert.throws(() => childWays.demand('plain-1', 'gw-1'), { code: 'forbidden' });
    attach('gw-1', 'gw-3');
    attach('gw-1', 'plain-2', 'gw-3');
    assert.throws(() => childWays.demand('plain-2', 'gw-1'), { code: 'unavailable' });
    childWays.proved('gw-3', 'gw-1');
    childWays.demand('plain-2', 'gw-1');
    assert.deepEqual(read, ['gw-1'], 'its record');
  });

  test('after the head-end has lost its state, the record of a child without an account is read at its parent', async () => {
    const { childWays, inventory, parties, read, clock } = rig();
    const at = (child: string, leaf: string) =>
      `gw-1 ./GwDeviceInventory/Records/${hashedName(child)}/${leaf}`;
    inventory.set(at('plain-1', 'ComponentType'), '1');
    inventory.set(at('plain-2', 'ComponentType'), '1').set(at('plain-2', 'Gateway'), 'plain-0/plain-1');
    inventory.set(at('device', 'ComponentType'), '0');
    for (const child of ['plain-1', 'plain-2', 'device', 'unknown'])
      assert.throws(() => childWays.demand(child, 'gw-1'), { code: 'unavailable' });
    await turn();
    childWays.demand('plain-1', 'gw-1');
    childWays.demand('plain-2', 'gw-1');
    assert.equal(parties.gatewayOf('plain-2'), 'plain-1');
    for (const child of ['device', 'unknown'])
      assert.throws(() => childWays.demand(child, 'gw-1'), { code: 'unavailable' });
    assert.equal(read.length, 4, 'each is asked once in ten seconds');
    clock.advance(10_000);
    assert.throws(() => childWays.demand('unknown', 'gw-1'), { code: 'unavailable' });
    assert.equal(read.length, 5);
  });

  test('a gateway that names ever new ways has few of them asked at a time, and takes the turns of no other gateway', async () => {
    const { childWays, asked, answers, read } = rig();
    assert.throws(() => childWays.demand('gw-3', 'gw-1'));
    for (let at = 0; at < 2 * childWayLimits.asked; at++)
      assert.throws(() => childWays.demand(`invented-${at}`, 'gw-1'), { code: 'unavailable' });
    assert.deepEqual([asked.length, read.length], [1, childWayLimits.asking - 1]);
    assert.throws(() => childWays.demand('gw-3', 'gw-2'));
    assert.equal(asked.at(-1), 'gw-3 gw-2');
    answers.resolve();
    await turn();
    assert.throws(() => childWays.demand('invented-9999', 'gw-1'));
    assert.equal(read.length, childWayLimits.asking);
  });

  test('what a new parent tells of a child waits until the child has proved its move, and a minute at most', async () => {
    const { attach, parties, send, clock, events } = rig();
    attach('gw-1', 'gw-3');
    attach('gw-2', 'gw-3');
    assert.equal(attach('gw-2', 'x', 'gw-3'), 503);
    assert.equal(parties.gatewayOf('x'), undefined);
    await send(gateway('gw-3').start(), 'gw-2', { device: 'gw-3', peer: '192.0.2.7|1' });
    assert.equal(attach('gw-2', 'x', 'gw-3'), 200);
    assert.equal(parties.gatewayOf('x'), 'gw-3');
    attach('gw-1', 'gw-3');
    assert.equal(attach('gw-1', 'y', 'gw-3'), 503);
    clock.advance(60_000);
    assert.equal(attach('gw-1', 'y', 'gw-3'), 200, 'it is not repeated for ever');
    assert.deepEqual([parties.gatewayOf('y'), events.count('alert.foreign-gateway')], [undefined, 1]);
  });

  test('an anonymous package moves nothing: not its device, not the gateway that it names as its way', async () => {
    const { reachability, send, proofs } = rig();
    reachability.setState('gw-2', { online: true } as never);
    await assert.rejects(send(claim(id), 'gw-1', { device: id, via: 'gw-2', peer: '192.0.2.66|1' }), {
      code: 'forbidden',
    });
    await assert.rejects(send(claim(id), 'gw-1', { device: id, via: 'gw-3', peer: '192.0.2.66|1' }), {
      code: 'unavailable',
    });
    await send(claim('gw-2'), 'gw-1', { device: 'gw-2', peer: '192.0.2.66|1' });
    assert.deepEqual(
      [reachability.wayTo(id), reachability.brokerGatewayOf('gw-2'), proofs.length],
      [undefined, 'gw-2', 0],
    );
  });

  test('a device that proves itself is reached where it did so', async () => {
    const { reachability, send } = rig();
    const message = await send(device().start(), 'gw-1', { device: id, peer: '192.0.2.7|1' });
    assert.ok(statusesOf(message).includes('SyncHdr 212'));
    assert.equal(reachability.wayTo(id), 'gw-1');
    await send(claim(id), 'gw-2', { device: id, peer: '192.0.2.66|1' });
    assert.equal(reachability.wayTo(id), 'gw-1');
  });

  test('a hostile child that tells of another gateway behind it does not move that gateway', () => {
    const { attach, reachability } = rig();
    reachability.setState('gw-2', { online: true } as never);
    attach('gw-1', 'x', 'gw-3/gw-2');
    assert.equal(reachability.brokerGatewayOf('gw-2'), 'gw-2');
    attach('gw-1', 'y', 'gw-3');
    assert.equal(reachability.brokerGatewayOf('gw-3'), 'gw-1', 'a gateway without a connection of its own');
  });
});

describe('associations', () => {
  test('what a child tells does not take a device from another gateway; the own session of the device does', async () => {
    const { attach, parties, detached, events, send } = rig();
    attach('gw-2', id);
    assert.equal(attach('gw-1', id, 'gw-3'), 200, 'the alert is taken, so it is not repeated for ever');
    assert.deepEqual([parties.gatewayOf(id), detached], ['gw-2', []]);
    assert.equal(events.count('alert.attach-contested'), 1);
    await send(gateway('gw-3').start(), 'gw-1', { device: 'gw-3', peer: '192.0.2.8|1' });
    await send(device().start(), 'gw-1', { device: id, via: 'gw-3', peer: '192.0.2.7|1' });
    assert.deepEqual([parties.gatewayOf(id), detached], ['gw-3', [`gw-2 ${id}`]]);
  });

  test('the device passes when its gateway says that it is gone, or that it misses it', () => {
    for (const leave of [
      (number: number) =>
        deviceDetachAlert(ownVocabulary, { sequence: number, deviceId: id, reason: 'left' }),
      (number: number) =>
        devicePresenceAlert(ownVocabulary, {
          ...{ sequence: number, deviceId: id, state: 'unreachable', reason: 'off', lastSeen: 1 },
        }),
    ]) {
      const { attach, parties, report } = rig();
      attach('gw-2', id);
      attach('gw-1', id, 'gw-3');
      report('gw-2', leave);
      assert.equal(parties.gatewayOf(id), 'gw-3');
    }
  });

  test('a gateway that tells that it has a device gets it with the own session of the device, for which it is asked', async () => {
    const { attach, parties, detached, asked, reachability, send } = rig();
    attach('gw-2', id);
    attach('gw-1', id);
    assert.deepEqual([parties.gatewayOf(id), detached, asked], ['gw-2', [], [`${id} gw-1`]]);
    await send(device().start(), 'gw-1', { device: id, peer: '192.0.2.7|1' });
    assert.deepEqual([parties.gatewayOf(id), detached], ['gw-1', [`gw-2 ${id}`]]);
    assert.equal(reachability.wayTo(id), 'gw-1');
  });

  test('a device that has proved itself before its gateway tells of it passes at once, and so does one without an account', async () => {
    const { attach, parties, detached, asked, send } = rig();
    attach('gw-2', id);
    await send(device().start(), 'gw-1', { device: id, peer: '192.0.2.7|1' });
    attach('gw-1', id);
    attach('gw-2', 'x');
    attach('gw-1', 'x');
    assert.deepEqual([parties.gatewayOf(id), parties.gatewayOf('x'), asked], ['gw-1', 'gw-1', []]);
    assert.deepEqual(detached, [`gw-2 ${id}`, 'gw-2 x']);
  });

  test('a device that has proved itself and is attached nowhere is not taken by a gateway that tells of it', async () => {
    const { attach, parties, reachability, send } = rig();
    await send(device().start(), 'gw-2', { device: id, peer: '192.0.2.7|1' });
    attach('gw-1', id);
    assert.deepEqual([parties.gatewayOf(id), reachability.wayTo(id)], [undefined, 'gw-2']);
  });

  test('what a gateway says of a gateway that is not behind it changes nothing: attach, detach, presence, fault', () => {
    const { attach, parties, reachability, report, events } = rig();
    reachability.setState('gw-2', { online: true, software: '1' } as never);
    attach('gw-2', id);
    const lies = [
      (number: number) =>
        deviceDetachAlert(ownVocabulary, { sequence: number, deviceId: id, reason: 'left', via: 'gw-2' }),
      (number: number) =>
        devicePresenceAlert(ownVocabulary, {
          ...{ sequence: number, deviceId: id, state: 'unreachable', reason: 'a lie', lastSeen: 1 },
          via: 'gw-2',
        }),
      (number: number) =>
        gatewayFaultAlert(ownVocabulary, { sequence: number, kind: 'state', reason: 'a lie', via: 'gw-2' }),
    ];
    for (const lie of lies) assert.equal(report('gw-1', lie), 200);
    attach('gw-1', 'x', 'gw-2');
    attach('gw-1', 'gw-2');
    assert.deepEqual(
      [parties.gatewayOf(id), parties.gatewayOf('x'), parties.gatewayOf('gw-2')],
      ['gw-2', undefined, undefined],
    );
    assert.deepEqual([reachability.wayTo(id), reachability.brokerGatewayOf('gw-2')], ['gw-2', 'gw-2']);
    assert.equal(reachability.devices().find((each) => each.id === id)?.unreachable, undefined);
    assert.deepEqual([events.count('alert.foreign-gateway'), events.count('alert.gateway-fault')], [4, 0]);
  });

  test('a gateway that invents as many devices as are remembered displaces the way to no party with an account', async () => {
    const { attach, parties, reachability, send } = rig();
    await send(device().start(), 'gw-2', { device: id, peer: '192.0.2.7|1' });
    attach('gw-1', 'invented:0');
    for (let at = 0; at < 65_536; at++) reachability.report(`invented:${at}`, 'gw-1');
    assert.equal(reachability.wayTo('invented:0'), 'gw-1');
    assert.equal(reachability.wayTo(id), 'gw-2');
    attach('gw-1', id);
    assert.deepEqual([parties.gatewayOf(id), reachability.wayTo(id)], [undefined, 'gw-2']);
  });

  test('a gateway that invents devices is refused at last, and no other gateway is', () => {
    const { attach, parties, clock } = rig();
    const before = parties.associations().length;
    const statuses = new Map<number, number>();
    for (let at = 0; at < newDevices.burst + 100; at++) {
      const status = attach('gw-1', `invented:${at}`);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    assert.deepEqual(
      [...statuses],
      [
        [200, newDevices.burst],
        [420, 100],
      ],
    );
    assert.equal(parties.associations().length - before, newDevices.burst);
    assert.equal(attach('gw-1', 'invented:5'), 200, 'one that is known');
    assert.equal(attach('gw-1', id), 200, 'one with an account');
    assert.equal(attach('gw-2', 'honest'), 200);
    clock.advance(1000);
    assert.equal(attach('gw-1', 'another'), 200);
  });

  test('a child gateway moves like a device: with its own session, for which it is asked', async () => {
    const { attach, parties, asked, send } = rig();
    attach('gw-1', 'gw-3');
    attach('gw-2', 'gw-3');
    assert.deepEqual([parties.gatewayOf('gw-3'), asked], ['gw-1', ['gw-3 gw-1', 'gw-3 gw-2']]);
    await send(gateway('gw-3').start(), 'gw-2', { device: 'gw-3', peer: '192.0.2.7|1' });
    assert.equal(parties.gatewayOf('gw-3'), 'gw-2');
  });

  test('what was told of a gateway ends when that gateway connects to the broker itself', () => {
    const { attach, reachability } = rig();
    attach('gw-1', 'x', 'gw-3');
    assert.equal(reachability.brokerGatewayOf('gw-3'), 'gw-1');
    reachability.setState('gw-3', { online: true, software: '1' } as never);
    assert.equal(reachability.brokerGatewayOf('gw-3'), 'gw-3');
  });
});

describe('sessions', () => {
  test('a broker gateway cannot send a message into a session that runs through another one', async () => {
    const { send, alerts, proofs, reachability } = rig();
    const honest = device();
    const peer = '192.0.2.7|5683';
    const answer = await send(honest.start(), 'gw-1', { device: id, peer });
    assert.ok(statusesOf(answer).includes('SyncHdr 212'));
    const { sessionId, msgId } = honest.start().header;
    const lie: SyncmlMessage = {
      header: { ...claim(id).header, sessionId, msgId },
      commands: [{ ...{ name: 'Alert', cmdId: '1', data: 1226 }, items: [{ data: 'a lie' }] }],
      final: true,
    };
    assert.ok(statusesOf(await send(lie, 'gw-2', { device: id, peer })).includes('SyncHdr 407'));
    await assert.rejects(send(lie, 'gw-2', { device: id, peer, via: 'gw-1' }), { code: 'unavailable' });
    assert.deepEqual([alerts, proofs.length, reachability.wayTo(id)], [[], 1, 'gw-1']);
  });
});

describe('proofs', () => {
  const wrong = 'AAAAAAAAAAAAAAAAAAAAAA==';

  test('packages with bad credentials in the name of a gateway do not lock it out, and none is named like its own gateway', async () => {
    const { send } = rig();
    await assert.rejects(send(claim('gw-1'), 'gw-1', { device: 'gw-1', peer: '192.0.2.66|1' }), {
      code: 'forbidden',
    });
    for (let times = 0; times < 50; times++)
      for (const gateway of ['gw-1', 'gw-2'])
        await send(claim('gw-2', 2, wrong), gateway, { device: 'gw-2', peer: `192.0.2.66|${times}` }).catch(
          () => {},
        );
    const own = gateway('gw-2');
    const answer = await send(own.start(), 'gw-2', {});
    assert.ok(statusesOf(answer).includes('SyncHdr 212'));
  });

  test('a party that is not known here is challenged like one that is', async () => {
    const { send } = rig();
    const shapes: unknown[] = [];
    for (const source of [id, 'urn:dev:2']) {
      const shape: unknown[] = [];
      for (const message of [claim(source), claim(source, 2, wrong), claim(source, 77)]) {
        const answer = await send(message, 'gw-1', { device: source, peer: '192.0.2.66|1' });
        shape.push([statusesOf(answer), answer.header.cred?.data.length]);
      }
      shapes.push(shape);
    }
    assert.deepEqual(shapes[0], shapes[1]);
  });
});

describe('a gateway, or a child behind one, that reports without end', () => {
  const presence = (deviceId: string, via?: string) => (sequence: number) =>
    devicePresenceAlert(ownVocabulary, {
      ...{ sequence, deviceId, state: 'unreachable', reason: 'off', lastSeen: 1 },
      ...(via !== undefined && { via }),
    });
  const fault = (kind: 'problem' | 'problem-ended', via?: string) => (sequence: number) =>
    gatewayFaultAlert(ownVocabulary, { sequence, kind, reason: 'full', ...(via !== undefined && { via }) });

  test('displaces its own alerts, results and problems, and those of no other', () => {
    const { report, records, attach } = rig();
    attach('gw-2', 'x');
    attach('gw-2', 'gw-3');
    report('gw-2', presence('x'));
    report('gw-2', fault('problem', 'gw-3'));
    const result = { kind: 'CommandFanout', correlator: undefined, result: '' } as const;
    records.putResult({ ...result, gateway: 'gw-2', name: 'honest' });
    // Its own names, names of its children that it invents, and ever new gateways in trouble behind it.
    const { alerts, results, problems } = recordLimits;
    for (let at = 0; at < 1.1 * alerts; at++)
      report('gw-1', presence(`y${at}`, at % 2 === 0 ? undefined : `child-${at}`));
    for (let at = 0; at < 1.1 * problems; at++) report('gw-1', fault('problem', `child-${at}`));
    for (let at = 0; at < 1.1 * results; at++)
      records.putResult({ ...result, gateway: 'gw-1', name: `r${at}` });

    const stored = records.alerts(alerts + 1);
    assert.ok(stored.length <= alerts && stored.length > 0.95 * alerts, String(stored.length));
    const honest = stored.filter(({ gateway }) => gateway === 'gw-2' || gateway === 'gw-3');
    assert.deepEqual(
      honest.map(({ kind }) => kind),
      ['GatewayFault', 'DevicePresence', 'DeviceAttach', 'DeviceAttach'],
    );
    assert.equal(records.problems().get('gw-3'), 'full');
    assert.ok(records.problems().size <= problems);
    assert.equal(records.result('CommandFanout', 'gw-2', 'honest')?.name, 'honest');
    assert.ok(records.results('CommandFanout').length <= results);
    // The latest ones of the gateway are there.
    assert.equal(records.results('CommandFanout').at(-1)?.name, `r${1.1 * results - 1}`);

    report('gw-2', fault('problem-ended', 'gw-3'));
    assert.equal(records.hasProblem('gw-3'), false);
  });

  test('displaces alerts of no other child of its parent', () => {
    const { report, records, attach } = rig();
    attach('gw-1', 'gw-3');
    report('gw-1', presence('x', 'gw-3'));
    for (let at = 0; at < 1.1 * recordLimits.alerts; at++)
      report('gw-1', presence(`y${at}`, `hostile/invented-${at}`));
    const kept = records.alerts(recordLimits.alerts).filter(({ device }) => device === 'x');
    assert.equal(kept.length, 1);
  });

  test('a transaction that fails leaves the bound where it is', () => {
    const database = openDatabase(':memory:', headendSchema);
    const records = new Records(database, new HandClock());
    const fill = (gateway: string, count: number) => {
      for (let at = 0; at < count; at++) records.addAlert('DeviceDetach', gateway, 'x', {});
    };
    fill('gw-1', recordLimits.alerts);
    for (let round = 0; round < 3; round++)
      assert.throws(() =>
        database.transaction(() => {
          fill('gw-1', 100);
          throw new Error('the disk takes no writes');
        }),
      );
    fill('gw-1', 400);
    assert.ok(records.alerts(2 * recordLimits.alerts).length <= recordLimits.alerts);
    assert.equal(
      database
        .prepare(
          'SELECT count(*) AS n FROM alert_sender WHERE number NOT IN (SELECT number FROM received_alert)',
        )
        .get()?.n,
      0,
    );
  });
});
