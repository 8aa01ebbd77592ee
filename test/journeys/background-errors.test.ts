import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connectAsync } from 'mqtt';
import { Admission } from '../../src/base/admission.ts';
import { type BackgroundWork, failed } from '../../src/base/background.ts';
import { pause, SystemClock } from '../../src/base/clock.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { watchState } from '../../src/base/watch-state.ts';
import { CoapStack } from '../../src/device/coap-stack.ts';
import { Jobs } from '../../src/dm/jobs.ts';
import type { ServerSession } from '../../src/dm/server-session.ts';
import { SessionTable } from '../../src/dm/session-table.ts';
import { AdminApi, askGateway } from '../../src/gateway/console/admin-api.ts';
import { DeviceSignals } from '../../src/gateway/device-signals.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { AdaptedFirmware } from '../../src/gateway/modes/adapted-firmware.ts';
import { pollLimits, ValuePoller } from '../../src/gateway/modes/value-poller.ts';
import { Upstream } from '../../src/gateway/northbound/upstream.ts';
import { CoapNetwork } from '../../src/gateway/southbound/coap-network.ts';
import { HttpBinding } from '../../src/gateway/southbound/http-binding.ts';
import { PresenceWatch } from '../../src/gateway/southbound/presence-watch.ts';
import type { GatewayStatus } from '../../src/gateway/status.ts';
import { ClientUpdates } from '../../src/gateway/store/client-updates.ts';
import { Outbox } from '../../src/gateway/store/outbox.ts';
import type { Registration } from '../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { Updater } from '../../src/gateway/update/updater.ts';
import { Watchdog } from '../../src/gateway/update/watchdog.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Notifier } from '../../src/headend/notifier.ts';
import type { Parties } from '../../src/headend/parties.ts';
import { PendingDetaches } from '../../src/headend/pending-detaches.ts';
import type { Reachability } from '../../src/headend/reachability.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { TriggeredSessions } from '../../src/headend/triggered-sessions.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { encode, noBytes, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { Observable } from '../../src/wire/coap/observe.ts';
import { Option, uint } from '../../src/wire/coap/options.ts';
import { gatewayTopics } from '../../src/wire/tunnel/topics.ts';
import { EventRecorder } from '../event-recorder.ts';
import { imageRig } from '../gateway/modes/image-rig.ts';
import { HandClock } from '../hand-clock.ts';
import { authorization, startApi } from '../headend/api-client.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { EnrolmentSite } from './enrolment-site.ts';
import { serves } from './lying-server.ts';
import { childTables, loopback, Site } from './site.ts';

const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-background-'));
after(() => rmSync(folder, { recursive: true }));
const id = 'urn:dev:ops:1';
const client = 'urn:dev:ops:client';
const lwm2m = { device: [{ id: client }], 'insecure-no-security': true };
const noBroker = 'mqtt://127.0.0.1:1';
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const broken = (): never => {
  throw new Error('broken');
};

/** A site with a broker, a head-end and a gateway. */
interface Whole {
  readonly site: Site;
  readonly headend: Headend;
  readonly gateway: Gateway;
  readonly broker: string;
}

/** Runs `work` on a whole site. After it the gateway still serves. */
async function onSite(work: (whole: Whole) => Promise<void>, changes = { lwm2m }): Promise<void> {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const headend = await site.headend([id]);
  const gateway = await site.gateway([id], changes);
  await work({ site, headend, gateway, broker: broker.url });
  await using peer = await CoapPeer.open();
  const found = await peer.call(gateway.coapPort, { method: Code.GET, path: ['.well-known', 'core'] });
  assert.equal(found.name, '2.05');
}

async function attached({ site, gateway }: Pick<Whole, 'site' | 'gateway'>): Promise<void> {
  const device = site.device(id, gateway, { factory: true });
  await device.start();
  await device.attached;
}

const named = async (events: EventRecorder, work: BackgroundWork): Promise<void> =>
  void (await events.until('background.failed', { work }));

/**
 * What throws in each kind of work. Each ends when the failure was named, and what comes after it has happened. An error that
 * no part caught needs a process of its own: test/cli/service.test.ts.
 */
const cases: Readonly<Record<Exclude<BackgroundWork, 'uncaught'>, () => Promise<void>>> = {
  'admin-api': async () => {
    const events = new EventRecorder();
    const socket = join(folder, 'admin.sock');
    await using api = new AdminApi(socket, events, { '/broken': broken, '/fine': () => ({ fine: true }) });
    await api.start();
    await assert.rejects(askGateway(socket, '/broken'), /broken/);
    await named(events, 'admin-api');
    assert.deepEqual(await askGateway(socket, '/fine'), { fine: true });
  },

  // The session with the DM server is begun again.
  alerts: () =>
    onSite(async (whole) => {
      whole.site.gatewayEvents.breakAt('dm.session-started');
      await attached(whole);
      await named(whole.site.gatewayEvents, 'alerts');
      await whole.site.headendEvents.until('alert.device-attach', { device: id });
    }),

  api: async () => {
    const events = new EventRecorder();
    events.breakAt('api.failed');
    const headend = { devices: broken, gateways: () => [], settled: async () => {} } as unknown as Headend;
    await using api = await startApi(headend, events);
    const gaveUp = new AbortController();
    const asked = fetch(`${api.url}/devices`, { signal: gaveUp.signal, headers: authorization }).catch(
      () => {},
    );
    await named(events, 'api');
    gaveUp.abort();
    await asked;
    assert.equal((await fetch(`${api.url}/gateways`, { headers: authorization })).status, 200);
  },

  // The client asks again when its bootstrap does not end.
  bootstrap: () =>
    onSite(async ({ site, gateway }) => {
      site.gatewayEvents.breakAt('lwm2m.bootstrapped', 'lwm2m.bootstrap-failed');
      await site.client(client, gateway, { bootstrap: true }).start();
      await named(site.gatewayEvents, 'bootstrap');
    }),

  // The end of the fan-out is stored again.
  campaign: () =>
    onSite(async (whole) => {
      const { site, headend } = whole;
      await attached(whole);
      site.gatewayEvents.breakAt('fanout.ended');
      const command =
        '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Man</LocURI></Target></Item></Get>';
      await headend.fanOut('gw-1', { name: 'f', targets: {}, command });
      await named(site.gatewayEvents, 'campaign');
      await site.headendEvents.until('alert.command-fanout', { name: 'f' });
      await site.gatewayEvents.next('fanout.ended');
    }),

  // The status goes on to tell.
  certificate: async () => {
    await using site = await EnrolmentSite.open();
    const board = await site.lateBoard();
    board.events.breakAt('certificate.expiring');
    const gateway = site.use(await board.start());
    await named(board.events, 'certificate');
    assert.match(gateway.status().certificate?.problem ?? '', /was not renewed/);
  },

  'coap-datagram': () =>
    onSite(async ({ site, gateway }) => {
      site.gatewayEvents.breakAt('coap.malformed');
      const socket = createSocket('udp4');
      // A CON with a token that is longer than the message.
      socket.send(Buffer.of(0x48, 1, 0, 1), gateway.coapPort, '127.0.0.1');
      await named(site.gatewayEvents, 'coap-datagram');
      socket.close();
    }),

  'coap-response': async () => {
    const events = new EventRecorder();
    let isBroken = true;
    const endpoint = new CoapEndpoint({
      clock: new HandClock(),
      entropy: seededEntropy(1),
      events,
      handler: async () => reply(Code.Content),
      send: () => {
        if (isBroken) throw new Error('no buffer');
      },
    });
    const get = (messageId: number) =>
      encode({ type: Type.CON, code: Code.GET, messageId, token: noBytes, options: [], payload: noBytes });
    endpoint.receive(get(1), '192.0.2.1', 5683);
    await named(events, 'coap-response');
    isBroken = false;
    endpoint.receive(get(2), '192.0.2.1', 5683);
    endpoint.stop();
  },

  device: async () => {
    await using site = new Site(noBroker);
    site.deviceEvents.breakAt('device.attach-failed');
    await site.client(client, { coapPort: 1 }).start();
    await named(site.deviceEvents, 'device');
  },

  'device-coap': async () => {
    const events = new EventRecorder();
    const thrown = [Object.create(null), undefined];
    const answering = () => {
      const error = thrown.shift();
      // Even String() of it throws.
      if (error) throw error;
      return { code: '2.05' };
    };
    const machine = [new SystemClock(), '127.0.0.1'] as const;
    await using stack = new CoapStack(...machine, answering, events);
    await stack.open();
    await using other = new CoapStack(...machine, answering, events);
    await other.open();
    const base = stack.addressTowards('coap://127.0.0.1:1')!;
    const ask = (timeout: number) => other.request({ method: 'GET', base, path: '/x', timeout });
    const unanswered = assert.rejects(ask(500), { code: 'timeout' });
    await named(events, 'device-coap');
    await unanswered;
    assert.equal((await ask(5000)).code, '2.05');
  },

  'device-firmware': () =>
    onSite(async ({ site, gateway }) => {
      await site.client(client, gateway).start();
      await site.gatewayEvents.until('registration.proven', { device: client });
      site.deviceEvents.breakAt('device.download-failed');
      await gateway.manage(client, [{ name: 'Replace', uri: './5/0/1', data: 'coap:nowhere' }], 30_000);
      await named(site.deviceEvents, 'device-firmware');
    }),

  'device-work': async () => {
    const events = new EventRecorder();
    const signals = new DeviceSignals(events);
    const heard: string[] = [];
    signals.add({ heard: broken }, { heard: (deviceId) => void heard.push(deviceId) });
    signals.heard(id, undefined);
    await named(events, 'device-work');
    assert.deepEqual(heard, [id], 'the other listener hears it');
  },

  // The board gets no answer, and asks again.
  enrolment: async () => {
    await using site = await EnrolmentSite.open();
    site.headendEvents.breakAt('enrolment.requested');
    await site.headend();
    const board = site.board('gw-1');
    const stop = new AbortController();
    const enrolled = board.enrol(stop.signal);
    await named(site.headendEvents, 'enrolment');
    await board.leap(60_000);
    await board.events.until('enrolment.waiting');
    stop.abort();
    await assert.rejects(enrolled);
  },

  http: async () => {
    const events = new EventRecorder();
    events.breakAt('http.failed');
    const paths = { path: '/dm', bootstrapPath: '/bs', tunnelPath: '/t' };
    await using http = new HttpBinding({
      settings: { host: '127.0.0.1', port: 0, ...paths, serverId: 'gw-1', allowPlain: true },
      sessions: { receive: async () => broken() },
      bootstrapServer: { answer: broken },
      guard: undefined as never,
      admission: new Admission({ clock: new SystemClock(), events }),
      forward: async () => broken(),
      image: () => undefined,
      heard: () => {},
      settled: async () => {},
      events,
    });
    await http.start();
    const gaveUp = new AbortController();
    const post = { method: 'POST', headers: { 'content-type': 'application/vnd.syncml.dm+xml' }, body: 'x' };
    const asked = fetch(`${http.url}/dm`, { ...post, signal: gaveUp.signal }).catch(() => {});
    await named(events, 'http');
    gaveUp.abort();
    await asked;
    assert.equal((await fetch(`${http.url}/dm`, post)).status, 500);
  },

  // The end of the operation is stored again.
  image: async () => {
    const failures = [true];
    const ended = () => {
      if (failures.pop()) broken();
    };
    await using server = await imageRig([serves(Buffer.from('image'), '"v1"')], { more: { ended } });
    server.begin();
    await named(server.events, 'image');
    await server.events.until('image.ready');
    assert.equal(server.stored()?.toString(), 'image');
  },

  interfaces: async () => {
    const clock = new HandClock();
    const events = new EventRecorder();
    let list = loopback('IPv4');
    const entropy = seededEntropy(1);
    const machine = { clock, entropy, events, listInterfaces: () => list() };
    await using network = new CoapNetwork({ port: 0, interfaces: [], multicast: false, ...machine });
    await network.start(() => () => reply(Code.Content));
    list = broken;
    clock.advance(5000);
    await named(events, 'interfaces');
    list = () => ({});
    while (clock.timers === 0) await turn();
    clock.advance(5000);
    await events.until('coap.address-gone');
  },

  // A whole gateway whose standard output is a full disk.
  log: async () => {
    const socket = join(folder, 'log.sock');
    const config = join(folder, 'log.toml');
    const server = '[dm-server]\nid = "dm"\nclient-secret = "long enough"\nserver-secret = "long enough"\n';
    writeFileSync(
      config,
      `[gateway]\nid = "gw-1"\nstate = ":memory:"\nadmin-socket = "${socket}"\n[coap]\nport = 0\ninterfaces = ["lo"]\ninsecure-plain-coap = true\n[mqtt]\nurl = "${noBroker}"\n${server}`,
    );
    const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
    const child = spawn(process.execPath, [main, 'gateway', '--config', config], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'inherit'],
    });
    const status = async () =>
      (await askGateway(socket, '/status').catch(() => undefined)) as GatewayStatus | undefined;
    let failures: GatewayStatus['failures'] = [];
    while (!failures.some(({ work }) => work === 'log')) {
      assert.equal(child.exitCode, null);
      failures = (await status())?.failures ?? [];
    }
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    assert.equal(code, 0);
  },

  'lwm2m-update': async () => {
    const events = new EventRecorder();
    const clock = new HandClock();
    let ends = 0;
    const firmware = new AdaptedFirmware({
      imageAt: () => undefined,
      httpUriOf: () => undefined,
      clientOf: () => undefined,
      calls: undefined as never,
      updates: new ClientUpdates(openDatabase(':memory:', gatewaySchema)),
      succeeded: () => {},
      ended: () => {
        if (++ends === 1) broken();
      },
      clock,
      events,
      signal: new AbortController().signal,
    });
    const registration = { deviceId: client } as Registration;
    firmware.execute(registration, ['Update'], undefined);
    assert.throws(() => firmware.execute(registration, ['Update'], undefined), { code: 'conflict' });
    // A client that is away is waited for.
    while (ends === 0) {
      await turn();
      clock.advance(600_000);
    }
    await named(events, 'lwm2m-update');
    // The result is not lost.
    assert.throws(() => firmware.execute(registration, ['Update'], undefined), { code: 'conflict' });
    while (ends < 2) {
      await turn();
      clock.advance(1000);
    }
    await firmware.settled;
    firmware.execute(registration, ['Update'], undefined);
  },

  // The connection ends, and another one is made.
  'mqtt-link': async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    site.gatewayEvents.breakAt('mqtt.connected');
    await site.gateway([], {}, false);
    await named(site.gatewayEvents, 'mqtt-link');
    await site.gatewayEvents.next('mqtt.connected');
  },

  'mqtt-message': () =>
    onSite(async (whole) => {
      whole.site.gatewayEvents.breakAt('mqtt.malformed');
      const server = await connectAsync(whole.broker, { protocolVersion: 4 });
      await server.publishAsync(gatewayTopics('gw-1').down, 'no envelope', { qos: 1 });
      await named(whole.site.gatewayEvents, 'mqtt-message');
      await server.endAsync();
      await attached(whole);
      await whole.site.headendEvents.until('alert.device-attach', { device: id });
    }),

  notification: async () => {
    const events = new EventRecorder();
    events.breakAt('notification.failed');
    const database = openDatabase(':memory:', headendSchema);
    const detaches = new PendingDetaches({
      database,
      parties: undefined as never,
      reachability: { isOnline: () => true, wayTo: () => undefined } as unknown as Reachability,
      // It knows no party, so no Package #0 can be made.
      notifier: new Notifier({
        ...{ serverId: 'dm.example', events, entropy: seededEntropy(1) },
        parties: { get: () => undefined } as unknown as Parties,
        downlink: undefined as never,
      }),
      vocabulary: ownVocabulary,
      events,
    });
    detaches.add('gw-1', id);
    await named(events, 'notification');
    detaches.add('gw-1', 'urn:dev:ops:2');
    await events.next('notification.failed');
  },

  observers: async () => {
    const events = new EventRecorder();
    let isBroken = false;
    const clock = new HandClock();
    const represent = () => (isBroken ? broken() : reply(Code.Content));
    const endpoint: CoapEndpoint = new CoapEndpoint({
      clock,
      entropy: seededEntropy(1),
      events,
      handler: (asked) => observable.handle(asked),
      send: () => {},
    });
    const observable = new Observable(endpoint, clock, represent);
    const options = [uint(Option.Observe, 0)];
    const request = {
      type: Type.CON,
      code: Code.GET,
      messageId: 1,
      token: noBytes,
      options,
      payload: noBytes,
    };
    endpoint.receive(encode(request), '192.0.2.1', 5683);
    await turn();
    assert.equal(observable.size, 1);
    isBroken = true;
    observable.changed();
    await named(events, 'observers');
    assert.equal(observable.size, 0, 'it can register again');
    endpoint.stop();
  },

  package: async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id]);
    site.headendEvents.breakAt('gateway.state');
    const gateway = await site.gateway([id]);
    await named(site.headendEvents, 'package');
    await attached({ site, gateway });
    await site.headendEvents.until('alert.device-attach', { device: id });
  },

  // The parent is reached again.
  'parent-link': async () => {
    await using above = new Site(noBroker);
    const parent = await above.gateway(['gw-2'], {}, false);
    await using below = new Site(noBroker);
    below.gatewayEvents.breakAt('parent.connected', 'parent.unreachable');
    await below.gateway(
      [],
      {
        gateway: { id: 'gw-2', state: ':memory:' },
        ...childTables('gw-2', parent),
      },
      false,
    );
    await named(below.gatewayEvents, 'parent-link');
    await below.gatewayEvents.next('parent.connected');
    await above.gatewayEvents.until('device.attached', { device: 'gw-2' });
  },

  presence: async () => {
    const events = new EventRecorder();
    const clock = new HandClock();
    let looks = 0;
    let breaks = false;
    using watch = new PresenceWatch({
      inventory: {
        values: () => {
          looks++;
          if (breaks) broken();
          return [].values();
        },
        get: () => undefined,
        writeHeard: () => false,
      } as never,
      addresses: undefined as never,
      arrivals: undefined as never,
      associations: undefined as never,
      ask: async () => broken(),
      uriOf: () => '',
      lockedOut: () => undefined,
      registrationOf: () => undefined,
      configured: undefined,
      clock,
      entropy: seededEntropy(1),
      events,
    });
    watch.start();
    breaks = true;
    clock.advance(30_000);
    await named(events, 'presence');
    while (clock.timers === 0) await turn();
    breaks = false;
    const before = looks;
    clock.advance(30_000);
    assert.ok(looks > before, 'it looks again');
  },

  registration: () =>
    onSite(async ({ site, gateway }) => {
      site.gatewayEvents.breakAt('registration.proven', 'registration.not-attached');
      const device = site.client(client, gateway);
      await device.start();
      await named(site.gatewayEvents, 'registration');
    }),

  'session-end': async () => {
    const events = new EventRecorder();
    const limits = { sessions: 1, idle: 1000, silent: 0, bytes: { share: 1, pool: 1, keep: 1 } };
    const clock = new HandClock();
    const table = new SessionTable<string>({ clock, events, limits, abandoned: broken });
    const session = { outcome: undefined, weight: 0, recognises: () => true, abandon: async () => {} };
    const begin = (key: string) =>
      table.find(
        {
          key,
          associations: [key],
          message: { header: { msgId: 1 } },
          seal: { body: Buffer.from(key) },
        } as never,
        () => ({ session: session as unknown as ServerSession, owner: key }),
      );
    begin('a');
    clock.advance(1000);
    await named(events, 'session-end');
    assert.equal(begin('b').place, 'new');
    await table.end(() => true, 500, 'the end');
  },

  state: async () => {
    const events = new EventRecorder();
    events.breakAt('state.row-set-aside');
    const database = openDatabase(':memory:', gatewaySchema);
    const add = () =>
      database.prepare("INSERT INTO outbox (kind, device_id, body) VALUES ('device-attach', 'a', 'x')").run();
    add();
    const outbox = new Outbox(database, 10);
    watchState(database, ':memory:', new HandClock(), events);
    await named(events, 'state');
    add();
    assert.deepEqual(outbox.peek(10), []);
    assert.equal(events.count('state.row-set-aside'), 2);
  },

  // The device is asked again in the next round.
  telemetry: async () => {
    const clock = new HandClock();
    const events = new EventRecorder();
    const failures = [true];
    const told = Promise.withResolvers<unknown>();
    const poller = new ValuePoller({
      manage: async (_, [operation]) =>
        failures.pop()
          ? broken()
          : [{ operation: operation!, status: 200, results: [{ uri: '', format: 'int', data: '7' }] }],
      isReachable: () => true,
      values: (...[, , values]) => told.resolve(values[0]?.value),
      clock,
      events,
    });
    const order = { name: 'o', server: 'dm', targets: { named: new Set<string>(), conditions: [] } };
    poller.add(id, { ...order, paths: ['/x'], attributes: { pmax: 10 }, period: 1, count: 0, lifetime: 0 });
    clock.advance(pollLimits.spacing);
    await named(events, 'telemetry');
    await turn();
    clock.advance(10_000);
    assert.equal(await told.promise, 7);
    poller.stop();
  },

  timer: async () => {
    const events = new EventRecorder();
    const clock = new SystemClock((thrown) => failed(events, 'timer', thrown));
    clock.after(1, broken);
    await named(events, 'timer');
    await pause(clock, 1);
  },

  trigger: async () => {
    const events = new EventRecorder();
    const jobs = new Jobs();
    const clock = new HandClock();
    const after = clock.after.bind(clock);
    clock.after = broken;
    const database = openDatabase(':memory:', headendSchema);
    const sessions = new TriggeredSessions({ jobs, clock, events, database });
    const trigger = {
      gateway: 'gw-1',
      name: 't',
      devices: [id],
      strangers: new Set<string>(),
      operations: [],
      deadline: 60,
    };
    sessions.begin(trigger);
    await named(events, 'trigger');
    clock.after = after;
    sessions.begin(trigger);
    assert.equal(jobs.count(id), 1);
    sessions.stop();
  },

  // What a gateway answered to an order is stored again.
  order: () =>
    onSite(async ({ site, headend }) => {
      const { orders } = headend;
      const taken = orders.end.bind(orders);
      orders.end = () => {
        orders.end = taken;
        return broken();
      };
      await headend.stageImage('gw-1', { name: 'fw', data: Buffer.from('image') });
      await named(site.headendEvents, 'order');
      const stored = () => orders.get('ImageOperation', 'gw-1', 'fw')?.state === 'done';
      while (!stored()) await pause(new SystemClock(), 20);
    }),

  // What ends an update is stored again.
  update: async () => {
    const events = new EventRecorder();
    const clock = new HandClock();
    let ends = 0;
    const records = {
      get: () => ({ operation: 'Update', url: '', phase: 'installing' }),
      end: () => (++ends === 1 ? broken() : undefined),
    };
    const state = () => ({ good: 'A', trying: undefined, starts: 0 });
    const updater = new Updater({
      records,
      slots: { state, current: 'A', bundleFile: '/nowhere' },
      branch: {},
      devices: () => [],
      clock,
      entropy: seededEntropy(1),
      events,
    } as never);
    updater.start();
    await named(events, 'update');
    while (clock.timers === 0) await turn();
    clock.advance(1500);
    await events.until('update.failed', { result: 410 });
    assert.equal(ends, 2);
    await updater[Symbol.asyncDispose]();
  },

  uplink: async () => {
    await using broker = await startAedes();
    const events = new EventRecorder();
    const machine = { clock: new SystemClock(), entropy: seededEntropy(1), events };
    const settings = { url: broker.url, protocol: 4 as const };
    const upstream = new Upstream({ gatewayId: 'gw-1', settings, softwareVersion: '1', ...machine }, 1000);
    upstream.start({ notified: async () => {}, connected: broken, disconnected: broken });
    await named(events, 'uplink');
    assert.equal(upstream.connected, true);
    await upstream[Symbol.asyncDispose]();
  },

  watchdog: async () => {
    const events = new EventRecorder();
    const clock = new HandClock();
    const device = join(folder, 'watchdog');
    writeFileSync(device, '');
    const checks = [broken, async () => undefined];
    const watchdog = new Watchdog({ device, check: async () => await checks.shift()?.(), clock, events });
    watchdog.start();
    await named(events, 'watchdog');
    assert.equal(readFileSync(device, 'latin1'), '', 'it is not fed');
    while (clock.timers === 0) await turn();
    clock.advance(5000);
    await turn();
    assert.equal(readFileSync(device, 'latin1'), '\0');
    await watchdog[Symbol.asyncDispose]();
  },
};

describe('a throw in each kind of background work is named, and the party goes on', limit, () => {
  for (const [work, provoke] of Object.entries(cases)) test(work, provoke);
});
