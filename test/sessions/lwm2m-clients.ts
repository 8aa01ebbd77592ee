import { createHash } from 'node:crypto';
import { parse } from 'coap-packet';
import { pause } from '../../src/base/clock.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Sealing } from '../../src/base/sealing.ts';
import type { Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import { AdaptationMode } from '../../src/gateway/modes/adaptation.ts';
import { imageResource, type ServedImage } from '../../src/gateway/southbound/image-resource.ts';
import { ImageTickets } from '../../src/gateway/southbound/image-tickets.ts';
import { LwM2mCalls } from '../../src/gateway/southbound/lwm2m-calls.ts';
import { RegistrationServer } from '../../src/gateway/southbound/registration-server.ts';
import { ClientUpdates } from '../../src/gateway/store/client-updates.ts';
import { Registrations } from '../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { FumoResult } from '../../src/mo/fumo.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { Router } from '../../src/wire/coap/router.ts';
import { HandClock } from '../hand-clock.ts';
import { Dice } from '../peers/stock/dice.ts';
import { Lwm2mClient, type Lwm2mHabits, lwm2mHabits } from '../peers/stock/lwm2m-client.ts';
import { type Held, shown } from '../peers/stock/lwm2m-values.ts';
import { turn } from '../wire/coap/wire.ts';
import type { Disagreement, Play } from './play.ts';

const name = 'urn:dev:stock';
const host = '192.0.2.7';
/** Turns in which datagrams and promises settle before the clock moves. */
const turns = 12;
/** Milliseconds after which no datagram of an exchange is on its way any more (EXCHANGE_LIFETIME, RFC 7252, section 4.8.2). */
const settled = 247_000;

/** A gateway's LwM2M side with one client, without sockets, on a clock that is moved by hand. */
function site(
  habits: Lwm2mHabits,
  dice: Dice,
  values: ReadonlyMap<string, Held>,
  trace?: (line: string) => void,
) {
  const clock = new HandClock();
  const entropy = seededEntropy(dice.between(1, 1e6));
  let attached = false;
  let lastHeard = clock.now();
  const registrations = new Registrations(openDatabase(':memory:', gatewaySchema), 4);
  // An octet alone is a Reset of the update.
  const bytes = dice.octets(dice.pick([2, 700, 5000]));
  const hash = createHash('sha256').update(bytes).digest('hex');
  const image: ServedImage = {
    size: bytes.length,
    hash,
    read: (from, length) => bytes.subarray(from, from + length),
  };
  const tickets = new ImageTickets({
    sealing: new Sealing(new Uint8Array(32), entropy),
    start: 1,
    devices: { named: () => ({ deviceId: name }) as never },
    ready: () => image,
    clock,
  });
  const arrive = (work: () => void) => void setImmediate(work);
  const client = new Lwm2mClient({
    name,
    habits,
    dice,
    clock,
    values,
    send: (from, datagram) => {
      trace?.(`${Number(clock.now())} > ${from} ${show(datagram)}`);
      arrive(() => endpoint.receive(datagram, host, from));
    },
  });
  const endpoint = new CoapEndpoint({
    clock,
    entropy,
    events: noEvents,
    handler: (request) => blockwise.handle(request),
    send: (datagram, port) => {
      trace?.(`${Number(clock.now())} < ${port} ${show(datagram)}`);
      arrive(() => client.receive(port, datagram));
    },
  });
  const transport = (address: string, port: number, request: Parameters<typeof call>[4]) =>
    call(endpoint, entropy, address, port, request);
  const calls = new LwM2mCalls(transport);
  const results: number[] = [];
  const mode = new AdaptationMode({
    clientOf: () => (attached ? registrations.get(name) : undefined),
    lastHeard: () => lastHeard,
    isThere: async (_id, since, signal) => {
      const registration = registrations.get(name);
      if (lastHeard >= since || !registration) return lastHeard >= since;
      return await calls.execute(registration, [1, 0, 8], '', signal).then(
        () => true,
        () => false,
      );
    },
    calls,
    updated: (_id, _correlator, result) => results.push(result),
    httpUriOf: () => undefined,
    updates: new ClientUpdates(openDatabase(':memory:', gatewaySchema)),
    imageAt: (_id, uri) =>
      tickets.holderOf(new URL(uri).pathname + new URL(uri).search) ? image : undefined,
    clock,
    events: noEvents,
  });
  const heard = () => {
    lastHeard = clock.now();
    mode.heard(name);
  };
  const server = new RegistrationServer({
    registrations,
    calls: new LwM2mCalls(transport),
    isAllowed: () => true,
    isJoined: () => false,
    isServed: () => true,
    isAttached: () => attached,
    deviceAt: () => (attached ? name : undefined),
    isOther: () => false,
    livesElsewhere: async () => false,
    originOf: () => 'local',
    attached: () => {
      attached = true;
      heard();
    },
    left: () => {
      attached = false;
      mode.detached(name);
    },
    heard,
    clock,
    entropy,
    events: noEvents,
  });
  const local = {
    address: '192.0.2.1',
    port: 5683,
    bound: '192.0.2.1',
    scheme: 'coap',
    endpoint: () => endpoint,
  } as never;
  const router = new Router([
    ...server.resources(local),
    imageResource(
      (each) => (each === 'fw' ? image : undefined),
      (request) => tickets.deviceOf(request) !== undefined,
    ),
  ]);
  const blockwise = new Blockwise(router.handle, clock);
  /** Moves the clock until the work is done. */
  const finish = async <T>(work: Promise<T>): Promise<T | 'never'> => {
    let isDone = false;
    const watched = work.finally(() => {
      isDone = true;
    });
    watched.catch(() => {});
    for (let at = 0; !isDone && at < 8000; at++) {
      for (let each = 0; each < turns && !isDone; each++) await turn();
      if (!isDone) clock.advance(Math.max(1, Math.min(clock.next ?? 1000, 30_000)));
    }
    return isDone ? await watched : 'never';
  };
  return {
    clock,
    client,
    mode,
    finish,
    results,
    bytes,
    isAttached: () => attached,
    deviceAt: () => (attached ? name : undefined),
    uri: () => `coap://192.0.2.1${tickets.pathFor(name, 'fw', hash)}`,
    async [Symbol.asyncDispose](): Promise<void> {
      await finish(Promise.all([client.stop(), mode[Symbol.asyncDispose](), server[Symbol.asyncDispose]()]));
      endpoint.stop();
    },
  };
}

/** One life of a stock client: it registers, is read and written, is updated, and leaves. */
export const playLwm2mClient: Play = async (seed, trace, given = {}) => {
  const dice = new Dice(seed);
  const habits: Lwm2mHabits = { ...lwm2mHabits(dice), ...given };
  const values = valuesBy(dice, habits);
  await using rig = site(habits, dice, values, trace);
  const { client, finish, mode } = rig;
  const found: string[] = [];
  const play = async (): Promise<string> => {
    // A client whose first answer is lost is not attached. It registers again when its next update gets 4.04.
    for (let attempt = 0; !rig.isAttached() && attempt < (habits.loses > 0 ? 5 : 1); attempt++) {
      const code = await finish(client.register());
      if (code !== '2.01') return `registration ${code}`;
      await finish(waitFor(rig.isAttached, rig.clock, 120));
    }
    if (!rig.isAttached()) return 'not attached';
    for (let round = dice.between(1, 2); round > 0; round--) {
      const operations = operationsBy(dice, client);
      const before = new Map(client.values);
      const sleeper = habits.queue || habits.binding === 'UQ';
      if (sleeper) rig.clock.advance(dice.pick([0, 200_000]));
      const work = mode.manage(name, operations, { timeout: 600_000, patience: 600_000 });
      if (sleeper) await finish(client.update());
      const outcomes = await finish(work);
      if (outcomes === 'never') return 'an order without an end';
      for (const outcome of outcomes) found.push(...compare(outcome, client, before, habits.loses > 0));
    }
    if (dice.chance(0.5)) await update();
    const left = await finish(client.deregister());
    return left === '2.02' ? 'done' : `deregistration ${left}`;
  };
  const update = async () => {
    const node = './FwUpdate/DownloadAndUpdate';
    const order = [
      { name: 'Replace', uri: `${node}/PkgURL`, data: rig.uri() },
      { name: 'Exec', uri: node, correlator: 'c' },
    ] as const;
    const work = mode.manage(name, order, { timeout: 600_000, patience: 600_000 });
    const isSleeper = habits.queue || habits.binding === 'UQ';
    if (isSleeper) await finish(client.update());
    const outcomes = await finish(work);
    if (outcomes === 'never' || outcomes.some(({ status }) => status >= 300))
      return void found.push(`the update was not taken: ${JSON.stringify(outcomes)}`);
    await finish(waitFor(() => rig.results.length > 0, rig.clock));
    // What was on its way when the gateway reported has come by then.
    await finish(pause(rig.clock, settled));
    const [result] = rig.results;
    const isDone = result === FumoResult.Ok;
    const runs = Buffer.compare(client.image, rig.bytes) === 0;
    const { state, result: own } = client.firmware;
    if (rig.results.length !== 1) found.push(`the update has the results ${rig.results}`);
    const said = `Update Result ${own} in State ${state}, and ${runs ? 'runs' : 'does not run'} the image`;
    if (isDone !== runs || isDone !== (own === 1 && state === 0))
      found.push(`the update ends with ${result}, and the client has ${said}`);
    if ((habits.updateResult === 1) !== isDone)
      found.push(`the update ends with ${result}, and the client would say ${habits.updateResult}`);
  };
  const end = await play().catch((thrown: Error) => thrown.message);
  // A client that loses what it sends may be silent when it is asked, and is waited for until it is heard.
  // One whose answer to the first question is lost is not registered, and is told so by 4.04.
  const mayBeSilent = habits.loses > 0 && /^no session|^deregistration 4\.04$/.test(end);
  if (end !== 'done' && !mayBeSilent) found.push(`it ends with ${end}`);
  return { end, disagreements: found.map((what): Disagreement => ({ what, habits })) };
};

async function waitFor(isReached: () => boolean, clock: HandClock, seconds = 4000): Promise<void> {
  for (let at = 0; at < seconds && !isReached(); at++)
    await new Promise<void>((resolve) => void clock.after(1000, resolve));
}

/** Values of an object that no registry knows. SenML alone says their types, so others have none. */
function valuesBy(dice: Dice, { format }: Lwm2mHabits): Map<string, Held> {
  const text: Held = { type: 'string', value: dice.text(dice.pick([0, 5, 300])) };
  if (!format.startsWith('senml')) return new Map();
  return new Map<string, Held>([
    [
      '33333/0/0',
      { type: 'integer', value: dice.pick([0n, -7n, 300n, 70_000n, 2n ** 53n + 1n, -(2n ** 62n)]) },
    ],
    ['33333/0/1', { type: 'float', value: dice.pick([0.5, -1e300, 12.25]) }],
    ['33333/0/2', text],
    ['33333/0/3', { type: 'boolean', value: dice.chance(0.5) }],
    ['33333/0/4', { type: 'opaque', value: dice.octets(dice.pick([1, 40, 900])) }],
    ['33333/2/300', { type: 'integer', value: 5n }],
  ]);
}

function operationsBy(dice: Dice, client: Lwm2mClient): Operation[] {
  const changed = new Set<string>();
  return Array.from({ length: dice.between(1, 6) }, (): Operation => {
    const path = dice.pick(['3/0/99', ...client.values.keys()]);
    const held = client.values.get(path);
    if (dice.chance(0.1))
      return { name: 'Get', uri: dice.pick(['./3/0?list=StructData', './3/0', './3/0/6']) };
    if (dice.chance(0.1)) return { name: 'Exec', uri: './3/0/12' };
    if (dice.chance(0.5) || path.split('/').length > 3 || changed.has(path) || !held)
      return { name: 'Get', uri: `./${path}` };
    changed.add(path);
    const uri = `./${path}`;
    // What the registry has as an integer from 0 up takes no others: the gateway refuses them itself.
    const negatives = path.startsWith('33333/') ? [-1n, -32_769n, -(2n ** 63n)] : [];
    const whole = dice.pick([0n, 1n, 255n, 2n ** 31n, 2n ** 53n + 3n, ...negatives]);
    switch (held.type) {
      case 'integer':
      case 'time':
        return { name: 'Replace', uri, format: 'int', data: String(whole) };
      case 'float':
        return { name: 'Replace', uri, format: 'float', data: dice.pick(['0.25', '-17', '1e+100']) };
      case 'boolean':
        return { name: 'Replace', uri, format: 'bool', data: dice.pick(['true', 'false']) };
      case 'opaque':
        return { name: 'Replace', uri, format: 'bin', data: dice.octets(dice.pick([1, 30, 1500])) };
      default:
        return { name: 'Replace', uri, format: 'chr', data: dice.text(dice.pick([1, 8, 1400])) };
    }
  });
}

const statusOfCode: Readonly<Record<string, number>> = { '4.05': 405, '4.04': 404, '4.15': 415, '4.00': 400 };

/** What the gateway says of an operation, against what the client has. */
function compare(
  { operation, status, results }: OperationOutcome,
  client: Lwm2mClient,
  before: ReadonlyMap<string, Held>,
  isLossy: boolean,
): string[] {
  if (!('uri' in operation)) return [];
  const { name: kind, uri } = operation;
  const [path = '', query] = uri.slice(2).split('?');
  const said = `${kind} ${uri}: ${status}`;
  // Nobody knows what a client has done that lost its answers.
  if (status === 408 && isLossy) return [];
  if (kind === 'Exec') return status === 200 ? [] : [said];
  if (kind === 'Replace') {
    const place = client.log.findIndex(
      ({ method, path: at, code }) => method !== '0.02' && at === path && code !== '4.15',
    );
    const [done] = place < 0 ? [] : client.log.splice(place, 1);
    const now = client.values.get(path);
    if (status === 200) {
      const wanted = Buffer.isBuffer(operation.data)
        ? operation.data.toString('base64')
        : String(operation.data);
      const is = now && (now.type === 'float' ? String(Number(shown(now))) : shown(now));
      const same = now?.type === 'float' ? Number(wanted) === Number(is) : wanted === is;
      return same ? [] : [`${said}, and the client has ${is?.slice(0, 80)}, not ${wanted.slice(0, 80)}`];
    }
    const was = before.get(path);
    if (was && now && shown(was) !== shown(now)) return [`${said}, and the client has changed it`];
    return statusOfCode[done?.code ?? ''] === status ? [] : [`${said}, and the client says ${done?.code}`];
  }
  const below = [...client.values].filter(([key]) => key.startsWith(`${path}/`));
  const held = client.values.get(path) ?? before.get(path);
  if (!held && below.length === 0) return status === 404 ? [] : [said];
  if (status !== 200) return [said];
  if (query !== undefined) {
    const leaves = new Map(results.map(({ uri: at, data }) => [at.slice(2), coded(data)]));
    return below.flatMap(([key, each]) =>
      leaves.get(key) === shown(each) || leaves.get(key) === shown(before.get(key) ?? each)
        ? []
        : [`${said}: ${key} is ${leaves.get(key)}, not ${shown(each)}`],
    );
  }
  const [result] = results;
  if (!held) return result?.format === 'node' ? [] : [said];
  const was = before.get(path) ?? held;
  const data = coded(result?.data ?? '');
  const isSame = [held, was].some((each) =>
    each.type === 'float' ? Number(shown(each)) === Number(data) : shown(each) === data,
  );
  return isSame ? [] : [`${said}: found ${data.slice(0, 80)}, not ${shown(held).slice(0, 80)}`];
}

const coded = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString('base64');

/** A datagram as a line: type, code, message ID, token, options and the beginning of the payload. */
function show(datagram: Buffer): string {
  const { ack, reset, confirmable, code, messageId, token, options, payload } = parse(datagram);
  const kind = ack ? 'ACK' : reset ? 'RST' : confirmable ? 'CON' : 'NON';
  const shown = options.map(
    ({ name, value }) => `${name}=${/^Uri|^Location/.test(String(name)) ? value : value.toString('hex')}`,
  );
  return `${kind} ${code} ${messageId} ${token.toString('hex')} ${shown.join(' ')} ${payload.toString('latin1').slice(0, 60)}`;
}
