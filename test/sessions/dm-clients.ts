import { seededEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import type { Scheme } from '../../src/dm/authentication.ts';
import { Challenges } from '../../src/dm/challenges.ts';
import {
  type Operation,
  type OperationOutcome,
  operationsPerPackage,
  ServerSession,
} from '../../src/dm/server-session.ts';
import { SessionTable } from '../../src/dm/session-table.ts';
import { statusOfOtherAlert } from '../../src/mo/generic-alerts.ts';
import { decodeMessage, encodeMessage } from '../../src/wire/syncml/codec.ts';
import { elementOf } from '../../src/wire/syncml/message.ts';
import { encodeXml } from '../../src/wire/syncml/xml.ts';
import { HandClock } from '../hand-clock.ts';
import { type ClientHabits, clientHabits, type WrongAlert } from '../peers/stock/client-habits.ts';
import { type Done, type Leaf, plain } from '../peers/stock/client-tree.ts';
import { Dice } from '../peers/stock/dice.ts';
import { DmClient, type Send } from '../peers/stock/dm-client.ts';
import type { Disagreement, Play } from './play.ts';

const deviceId = 'urn:dev:stock';
const serverId = 'dm.example';

/** One session of a stock client with Postern's server. */
export const playDmClient: Play = async (seed, trace, given = {}) => {
  const dice = new Dice(seed);
  const habits: ClientHabits = { ...clientHabits(dice), ...given };
  const nonces = { client: dice.octets(8), server: dice.octets(8) };
  const reports = dice.chance(0.3) ? [dice.text(dice.pick([1, 30, 2000]))] : [];
  const client = new DmClient({
    dice,
    habits,
    deviceId,
    serverId,
    secret: 'client-secret',
    serverSecret: 'server-secret',
    nonces,
    sessionId: String(dice.between(1, 99)),
    reports,
  });
  plant(client, habits, dice);
  const before = new Map(client.tree.leaves);
  const changed = new Set<string>();
  const rounds = Array.from({ length: dice.between(1, 3) }, (_, round) =>
    operations(dice, round, habits.msgRefInResults, changed),
  );
  const { send, outcomes, alerts, status } = server(nonces, dice, rounds);
  let end: string;
  try {
    end = await client.run(trace ? traced(send, trace) : send);
  } catch (thrown) {
    end = `the server throws ${(thrown as Error).stack}`;
  }
  const found: string[] = [...client.complaints];
  for (const outcome of outcomes)
    found.push(...compare(outcome, client.log, habits.writing.coding === 'xml'));
  found.push(...valuesOf(outcomes, client.tree.leaves, before));
  const isDone = end === 'done';
  if (isDone !== (status() === 200)) found.push(`the client ends with ${end}, the server with ${status()}`);
  if (isDone && outcomes.length !== rounds.flat().length) found.push('not all was done');
  const refused = client.reported.filter((code) => code >= 300 && code !== 401 && code !== 407);
  const right = habits.wrongAlert ? [statusOfWrong[habits.wrongAlert]] : [];
  if (isDone && refused.join() !== right.join())
    found.push(`an alert with ${habits.wrongAlert} gets ${client.reported}`);
  if (isDone && reports.join() !== alerts.join()) found.push('the reports came in other words');
  if (!isDone && !mayFail(habits, end)) found.push(`the session ends with ${end}`);
  return { end, habits, disagreements: found.map((what): Disagreement => ({ what, habits })) };
};

/** Statuses of alerts in which something is wrong (OMA DM protocol 1.2.1, section 8.7). */
const statusOfWrong: Readonly<Record<WrongAlert, number>> = {
  'no Item': 412,
  'no Type': 412,
  'no Format': 412,
  'unknown Type': 415,
  'unknown code': 406,
};

/** The same, and both messages go to the trace, as XML whatever their coding is. */
const traced =
  (send: Send, trace: (line: string) => void): Send =>
  async (body, mediaType) => {
    const show = (coded: Uint8Array) => String(encodeXml(elementOf(decodeMessage(coded, mediaType))));
    trace(`> ${show(body)}`);
    const answer = await send(body, mediaType);
    trace(`< ${show(answer)}`);
    return answer;
  };

/** Why a session may end without success. */
function mayFail({ version, abortsAfter, maxMsgSize = 5000 }: ClientHabits, end: string): boolean {
  if (version.dtd === '1.9') return end === '505';
  if (version.protocol === 'DM/2.0') return end === '513';
  if (end === 'aborted') return abortsAfter < Number.POSITIVE_INFINITY;
  return end === '413' && maxMsgSize < 1000;
}

function plant({ tree }: DmClient, { largeObjects, holdsNul }: ClientHabits, dice: Dice): void {
  const chr = (value: string): Leaf => ({ format: 'chr', value });
  for (const [name, value] of Object.entries({
    DevId: deviceId,
    Man: 'Stock',
    Mod: 'S1',
    DmV: '1.2',
    Lang: 'en',
  }))
    tree.leaves.set(`DevInfo/${name}`, chr(value));
  if (largeObjects !== 'absent') tree.leaves.set('DevDetail/LrgObj', { format: 'bool', value: largeObjects });
  tree.interior.add('T');
  for (let at = 0; at < 12; at++) {
    const length = dice.pick([0, 1, 10, 300, 1500, 6000]);
    const value = dice.pick([chr(dice.text(length)), { format: 'bin', value: dice.octets(length) }]);
    tree.leaves.set(`T/${at < 6 ? 'a' : 'dir/b'}${at}`, value);
  }
  tree.leaves.set('T/n', { format: 'int', value: '17' });
  if (holdsNul) tree.leaves.set('T/nul', chr('a\0b'));
}

/**
 * What the server wants in one round. No two commands of a kind have the same target, those that change something in no round.
 * @param changed targets of earlier rounds, by the names of their commands
 * @param isTold whether Results say to which message they belong. Without that, nobody can tell those of a list from those of a
 *   Get below it in another message
 */
function operations(dice: Dice, round: number, isTold: boolean, changed: Set<string>): Operation[] {
  const asked = new Set<string>();
  const unique = (operation: Operation): readonly Operation[] => {
    const key = keyOf(operation);
    const kept = operation.name === 'Get' ? asked : changed;
    if (kept.has(key)) return [];
    kept.add(key);
    return [operation];
  };
  const value = (): Pick<Extract<Operation, { uri: string }>, 'format' | 'data'> => {
    const length = dice.pick([0, 2, 40, 400, 1200, 5000]);
    if (dice.chance(0.3)) return { format: 'bin', data: dice.octets(length) };
    return { data: dice.chance(0.1) ? `${dice.text(length)}\0` : dice.text(length) };
  };
  let fresh = 0;
  const change = (): Operation => {
    const uri = `./T/${dice.pick(['a', 'dir/b'])}${dice.below(12)}`;
    const added = `./T/r${round}-${fresh++}`;
    switch (dice.below(6)) {
      case 0:
        return { name: 'Replace', uri: `./T/missing${round}`, ...value() };
      case 1:
        return { name: 'Add', uri: round === 0 ? dice.pick([added, './T/n']) : added, ...value() };
      case 2:
        return { name: 'Copy', uri: added, from: './T/n' };
      case 3:
        return { name: 'Exec', uri: './T/n', data: dice.text(5), correlator: `c${round}` };
      default:
        // Each round has leaves of its own, so that a value that was written stays.
        return { name: 'Add', uri, ...value() };
    }
  };
  const single = (): Operation => {
    if (dice.chance(0.5)) return change();
    if (dice.chance(0.1))
      return {
        name: 'Alert',
        code: dice.pick([1100, 1101, 1102, 1103]),
        items: ['MINDT=1', 'Well?', 'a', 'b'],
      };
    const uri = dice.pick([
      './T/n',
      './T/nul',
      './T/missing',
      './DevInfo/Man',
      './T',
      './T/dir',
      './T/dir?list=StructData',
      `./T/a${dice.below(6)}`,
      `./T/dir/b${dice.between(6, 11)}`,
    ]);
    if (!isTold && /^[^?]*dir[^?]*$/.test(uri)) return { name: 'Get', uri: './DevInfo/Mod' };
    return { name: 'Get', uri };
  };
  const all: Operation[] = [];
  for (let left = dice.pick([1, 2, 5, 20]); left > 0; left--) {
    if (!dice.chance(0.15)) all.push(...unique(single()));
    else {
      const inner = [change(), change()].flatMap(unique);
      const name = dice.pick<'Sequence' | 'Atomic'>(['Sequence', 'Atomic']);
      if (inner.length === 0) continue;
      const nested: Operation = { name, operations: inner };
      const outer = dice.pick<'Sequence' | 'Atomic' | undefined>([
        undefined,
        undefined,
        'Sequence',
        'Atomic',
      ]);
      all.push(outer ? { name: outer, operations: [nested, ...unique(change())] } : nested);
    }
  }
  return all.length > 0 ? all.slice(0, operationsPerPackage) : [{ name: 'Get', uri: './T/n' }];
}

function server(
  nonces: { readonly client: Buffer; readonly server: Buffer },
  dice: Dice,
  rounds: readonly (readonly Operation[])[],
) {
  const clock = new HandClock();
  const schemes: readonly Scheme[] = ['md5', 'basic'];
  const challenges = new Challenges(clock, seededEntropy(7));
  const outcomes: OperationOutcome[] = [];
  const alerts: string[] = [];
  let status = 0;
  const table = new SessionTable<string>({
    events: noEvents,
    clock,
    limits: { sessions: 4, idle: 60_000, silent: 10_000, bytes: { share: 16_384, pool: 8e6, keep: 8e6 } },
    abandoned: () => {},
  });
  const asksEach = dice.chance(0.5);
  const kept = { own: nonces.server, peer: nonces.client } as { own: Uint8Array; peer: Uint8Array };
  const send: Send = async (body, mediaType) => {
    const message = decodeMessage(body, mediaType);
    const { sessionId, msgId } = message.header;
    const arrival = { key: sessionId, associations: ['here'], message, seal: { body } };
    const found = table.find(arrival, () => ({
      session: new ServerSession({
        ends: { local: serverId, remote: deviceId },
        account: {
          own: { name: serverId, secret: 'server-secret', nonce: kept.own, schemes },
          peer: { name: deviceId, secret: 'client-secret', nonce: kept.peer, schemes },
        },
        challenge: challenges.of(sessionId, kept.peer),
        firstMsgId: msgId,
        asksEach,
        saveNonces: ({ own, peer }) => {
          if (own) kept.own = own;
          if (peer) kept.peer = peer;
        },
        entropy: seededEntropy(msgId + 1),
        sessionId,
        work: async function* () {
          for (const round of rounds) outcomes.push(...(yield round));
        },
        alerted: (alert) => {
          const [item] = alert.items;
          const isReport =
            alert.data === 1226 && item?.meta?.format === 'chr' && item.meta.type === 'org.example.report';
          if (!isReport) return statusOfOtherAlert(alert);
          alerts.push(String(item.data));
          return 200;
        },
      }),
      owner: '',
    }));
    const answer =
      found.place === 'stranger'
        ? found.session.refuse(message, arrival.seal)
        : await table.receive(arrival, found);
    status = found.session.outcome?.status ?? status;
    return encodeMessage(answer, mediaType);
  };
  return { send, outcomes, alerts, status: () => status };
}

const keyOf = (operation: Operation): string =>
  'operations' in operation
    ? `${operation.name} of ${keyOf(operation.operations[0]!)}`
    : `${operation.name} ${'uri' in operation ? plain(operation.uri) : operation.code}`;
const keyOfDone = ({ name, uri, parts }: Done): string =>
  parts ? `${name} of ${parts[0] ? keyOfDone(parts[0]) : ''}` : `${name} ${uri}`;

/** What the server says of an operation, against what the client did. */
function compare(outcome: OperationOutcome, log: Done[], isXml: boolean): string[] {
  const { operation, status, results, said = [], parts = [] } = outcome;
  const key = keyOf(operation);
  const place = log.findIndex((each) => keyOfDone(each) === key);
  const [done] = place < 0 ? [] : log.splice(place, 1);
  if (!done)
    return status === 413 ? [] : [`${key}: the server says ${status}, and the client has not seen it`];
  // XML cannot hold the value that the client has sent: this Get alone fails.
  const isUnreadable =
    isXml &&
    [...(done.found ?? [])].some(([, { value }]) => typeof value === 'string' && value.includes('\0'));
  if (isUnreadable) return status >= 400 ? [] : [`${key}: ${status}, and the value cannot be read`];
  const found: string[] = [];
  if (done.status !== status) found.push(`${key}: ${status}, and the client says ${done.status}`);
  if ((done.said ?? []).join() !== said.join()) found.push(`${key}: said ${said}, not ${done.said}`);
  const shown = results.map(({ uri, format, data }) => `${plain(uri)} ${format} ${coded(data)}`).toSorted();
  const given = [...(done.found ?? [])]
    .map(([uri, leaf]) => `${uri} ${leaf.format} ${coded(leaf.value)}`)
    .toSorted();
  if (shown.join('|') !== given.join('|')) found.push(`${key}: found ${cut(shown)}, not ${cut(given)}`);
  const below = [...(done.parts ?? [])];
  for (const each of parts) found.push(...compare(each, below, isXml));
  return found;
}

const coded = (data: string | Uint8Array): string => Buffer.from(data as string).toString('base64');
const cut = (list: readonly string[]): string =>
  list
    .map((each) => each.slice(0, 60))
    .join('|')
    .slice(0, 300);

/** Values that the server wrote with success are there, and those that it could not write are not. */
function valuesOf(
  outcomes: readonly OperationOutcome[],
  leaves: ReadonlyMap<string, Leaf>,
  before: ReadonlyMap<string, Leaf>,
): string[] {
  const flat = outcomes.flatMap((each) => (each.parts ? each.parts : [each]));
  const written = new Map<string, string>();
  for (const { operation, status } of flat) {
    if (!('uri' in operation) || (operation.name !== 'Add' && operation.name !== 'Replace')) continue;
    if (status === 200) written.set(plain(operation.uri), coded(operation.data ?? ''));
  }
  return [...new Set([...written.keys(), ...before.keys()])].flatMap((uri) => {
    const wanted = written.get(uri) ?? coded(before.get(uri)?.value ?? '');
    const is = coded(leaves.get(uri)?.value ?? '');
    return is === wanted ? [] : [`${uri} is ${is.slice(0, 60)}, not ${wanted.slice(0, 60)}`];
  });
}
