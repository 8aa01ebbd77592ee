import { seededEntropy } from '../../src/base/entropy.ts';
import { ClientSession } from '../../src/dm/client-session.ts';
import { decodeMessage, encodeMessage } from '../../src/wire/syncml/codec.ts';
import { elementOf } from '../../src/wire/syncml/message.ts';
import { encodeXml } from '../../src/wire/syncml/xml.ts';
import { siteTree } from '../dm/parties.ts';
import { Dice } from '../peers/stock/dice.ts';
import { DmServer, type ServerHabits, serverHabits, type Wanted } from '../peers/stock/dm-server.ts';
import { mediaTypeOf } from '../peers/stock/markup.ts';
import type { Disagreement, Play } from './play.ts';

const deviceId = 'urn:dev:1';
const serverId = 'dm.example';

/** The tree of the client as the server believes it to be: values of leaves by URI; a node without a value is interior. */
type Believed = Map<string, string | undefined>;

/** The leaf whose ACL the server changes, and what it was. The server holds Replace at the parent. */
const guarded = { uri: 'Site/Count', acl: 'Site/Count?prop=ACL' } as const;

/** One session of Postern's client with a stock server. */
export const playDmServer: Play = async (seed, trace, given = {}) => {
  const dice = new Dice(seed);
  const habits: ServerHabits = { ...serverHabits(dice), ...given };
  const nonces = { client: dice.octets(8), server: dice.octets(8) };
  const rounds = Array.from({ length: dice.between(1, 3) }, (_, round) => wantedBy(dice, round));
  const server = new DmServer({
    dice,
    habits,
    deviceId,
    serverId,
    secret: 'server-secret',
    clientSecret: 'client-secret',
    nonces,
    rounds,
  });
  const { tree } = siteTree();
  const session = new ClientSession({
    ends: { local: deviceId, remote: serverId },
    account: {
      own: { name: deviceId, secret: 'client-secret', nonce: nonces.client },
      peer: { name: serverId, secret: 'server-secret', nonce: nonces.server, schemes: ['md5', 'basic'] },
    },
    saveNonces: () => {},
    entropy: seededEntropy(seed),
    sessionId: '1',
    notified: false,
    tree,
  });
  const mediaType = mediaTypeOf(habits.writing);
  const found: string[] = [];
  let messages = 0;
  try {
    for (let next = session.start() as ReturnType<ClientSession['start']> | undefined; next; ) {
      if (++messages > 900) throw new Error('the session does not end');
      const body = encodeMessage(next, mediaType);
      trace?.(`> ${encodeXml(elementOf(next))}`);
      const answer = server.answer(body);
      const message = decodeMessage(answer, mediaType);
      trace?.(`< ${encodeXml(elementOf(message))}`);
      next = await session.receive(message, { body: answer });
    }
  } catch (thrown) {
    found.push(`the client throws ${(thrown as Error).stack}`);
  }
  found.push(...server.complaints);
  const status = session.outcome?.status;
  const end = status === 200 ? (server.end ?? 'none') : `${status}`;
  // A list or an ACL in the answer needs a little more room than a status.
  const mayFail = (habits.maxMsgSize ?? 5000) < 1100 && [status, Number(server.end)].includes(413);
  const isAborted = server.end === 'aborted' && status === 514;
  if (end !== 'done' && !mayFail && !isAborted)
    found.push(`the client ends with ${status} (${session.outcome?.reason}), the server with ${server.end}`);
  if (end === 'done') found.push(...compare(rounds.flat(), habits, tree));
  return { end, habits, disagreements: found.map((what): Disagreement => ({ what, habits })) };
};

function wantedBy(dice: Dice, round: number): Wanted[] {
  const value = (): Pick<Wanted, 'value'> => {
    const text = dice.text(dice.pick([0, 3, 90, 1300, 3000]));
    return { value: dice.chance(0.05) ? `${text}\0` : text };
  };
  const room = () => `Site/Rooms/r${round}${dice.below(2)}`;
  const special = (): Wanted => {
    const found = new Map<string, string>();
    const acl = dice.pick(['Get=*', 'Get=*&Replace=other', 'Get=*&Replace=dm.example', 'Get=*&Replace=*']);
    switch (dice.below(3)) {
      case 0:
        return { name: 'Replace', uri: guarded.acl, format: 'chr', value: acl, found };
      case 1:
        return { name: 'Get', uri: guarded.acl, found };
      default:
        return { name: 'Get', uri: 'Site?list=TNDS', found };
    }
  };
  const single = (): Wanted => {
    const found = new Map<string, string>();
    if (dice.chance(0.1)) return special();
    switch (dice.below(12)) {
      case 0:
        return { name: 'Replace', uri: 'Site/Name', format: 'chr', ...value(), found };
      case 1:
        return {
          name: 'Replace',
          uri: 'Site/Blob',
          format: 'bin',
          value: dice.octets(dice.pick([1, 50, 2000])),
          found,
        };
      case 2:
        return {
          name: 'Replace',
          uri: dice.pick(['Site/Serial', 'Site/Missing']),
          format: 'chr',
          ...value(),
          found,
        };
      case 3:
        return {
          name: 'Replace',
          uri: 'Site/Count',
          format: 'int',
          value: String(dice.between(-9, 999)),
          found,
        };
      case 4:
        return { name: 'Add', uri: room(), format: 'node', found };
      case 5:
        return { name: 'Add', uri: `${room()}/Note`, format: 'chr', ...value(), found };
      case 6:
        return { name: 'Delete', uri: dice.pick([room(), `${room()}/Note`, 'Site/Name']), found };
      case 7:
        return { name: 'Copy', uri: `${room()}/Note`, from: 'Site/Name', found };
      case 8:
        return { name: 'Exec', uri: 'Do', found };
      case 9:
        return { name: 'Get', uri: 'Site?list=StructData', found };
      default:
        return {
          name: 'Get',
          uri: dice.pick([
            'Site/Name',
            'Site/Blob',
            'Site/Serial',
            'Site/Secret',
            'Site/Missing',
            'DevInfo/Man',
            `${room()}/Note`,
          ]),
          found,
        };
    }
  };
  const short = (): Wanted => ({
    name: 'Get',
    uri: dice.pick(['Site/Name', 'DevInfo/Man']),
    found: new Map(),
  });
  return Array.from({ length: dice.pick([1, 3, 12]) }, () => {
    if (!dice.chance(0.15)) return single();
    const name = dice.pick<'Atomic' | 'Sequence'>(['Atomic', 'Sequence']);
    const inner = Array.from({ length: dice.between(1, 3) }, single).filter(
      (each) =>
        (each.name !== 'Get' || name === 'Sequence') &&
        each.name !== 'Exec' &&
        !each.uri.endsWith('list=TNDS') &&
        (each.value ?? '').length < 200,
    );
    if (inner.length === 0) return single();
    const made: Wanted = { name, uri: '', inner, found: new Map() };
    // An Atomic in a Sequence is done or not by itself.
    const isNested = name === 'Atomic' && dice.chance(0.4);
    return isNested ? { name: 'Sequence', uri: '', inner: [made, short()], found: new Map() } : made;
  });
}

const coded = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString('base64');

/** What the client said, against what a client has to do (OMA DM tree and description 1.2, and the access types of the tree). */
function compare(
  all: readonly Wanted[],
  habits: ServerHabits,
  tree: ReturnType<typeof siteTree>['tree'],
): string[] {
  const believed: Believed = new Map([
    ['Site/Name', 'north'],
    ['Site/Count', '3'],
    ['Site/Serial', 's-1'],
    ['Site/Blob', coded(Buffer.from([1, 2]))],
    ['DevInfo/Man', 'Maker'],
    [guarded.acl, ''],
  ]);
  const found: string[] = [];
  for (const wanted of all) found.push(...judge(wanted, believed, habits));
  for (const [uri, value] of believed) {
    if (uri.includes('?')) continue;
    const view = tree.view(uri.split('/'));
    const is = view && (view.format === 'node' ? undefined : coded(view.value ?? ''));
    if (!view || is !== value) found.push(`${uri} is ${is?.slice(0, 60)}, not ${value?.slice(0, 60)}`);
  }
  for (const name of tree.view(['Site', 'Rooms'])?.children ?? [])
    if (!believed.has(`Site/Rooms/${name}`)) found.push(`the room ${name} is there`);
  return found;
}

function judge(wanted: Wanted, believed: Believed, habits: ServerHabits): string[] {
  const { name, uri, status, inner } = wanted;
  const said = `${name} ${uri}`;
  if (inner) return judgeInner(wanted, inner, believed, habits);
  const right = perform(wanted, believed, habits);
  if (wanted.silent) return status === undefined ? [] : [`${said}: ${status}, though none was wanted`];
  // How large TNDS is depends on how it is written.
  if (uri.endsWith('list=TNDS')) return judgeTnds(wanted, believed, habits);
  if (status !== right) return [`${said}: ${status}, not ${right}`];
  return judgeFound(wanted, believed, habits);
}

/** What a Get found. */
function judgeFound(
  { name, uri, status, found }: Wanted,
  believed: Believed,
  habits: ServerHabits,
): string[] {
  if (name !== 'Get' || status !== 200 || uri.endsWith('list=TNDS')) return [];
  const said = `${name} ${uri}`;
  // A text that XML cannot hold comes as its octets.
  const isSame = (is: string | undefined, value: string | undefined) =>
    is === value || (value?.includes('\0') === true && is === Buffer.from(value).toString('base64'));
  if (!uri.includes('?list')) {
    const is = found.get(uri);
    return isSame(is, believed.get(uri))
      ? []
      : [`${said}: ${is?.slice(0, 60)}, not ${believed.get(uri)?.slice(0, 60)}`];
  }
  const { maxObjSize = Number.POSITIVE_INFINITY } = habits;
  return [...believed].flatMap(([at, value]) => {
    if (!at.startsWith('Site/') || at.includes('?') || value === undefined || value.length > maxObjSize)
      return [];
    const is = found.get(at);
    return isSame(is, value) ? [] : [`${said}: ${at} is ${is?.slice(0, 60)}, not ${value.slice(0, 60)}`];
  });
}

/** Names and values of the leaves are in the document. */
function judgeTnds({ status, found }: Wanted, believed: Believed, { maxObjSize }: ServerHabits): string[] {
  if (status === 413 && maxObjSize !== undefined) return [];
  const [document = ''] = found.values();
  const names = [...believed.keys()].filter((at) => at.startsWith('Site/') && !at.includes('?'));
  const missing = names.filter((at) => !document.includes(`<NodeName>${at.split('/').at(-1)}</NodeName>`));
  return status === 200 && missing.length === 0 ? [] : [`TNDS: ${status}, without ${missing}`];
}

function judgeInner(
  outer: Wanted,
  inner: readonly Wanted[],
  believed: Believed,
  habits: ServerHabits,
): string[] {
  const isAtomic = outer.name === 'Atomic';
  // Nothing of it is done where a part cannot be read.
  if (hasUnreadable(inner, habits))
    return outer.status === unreadableStatus ? [] : [`${outer.name} with a NUL: ${outer.status}`];
  const before = new Map(believed);
  const rights: number[] = [];
  const found: string[] = [];
  for (const each of inner) {
    if (each.inner) {
      found.push(...judgeInner(each, each.inner, believed, habits));
      rights.push(each.status ?? 0);
      continue;
    }
    const isOver = isAtomic && rights.some((status) => status >= 300);
    rights.push(isOver ? 215 : perform(each, believed, habits));
    found.push(...judgeFound(each, believed, habits));
  }
  const hasFailed = isAtomic && rights.some((status) => status >= 300);
  if (hasFailed) {
    believed.clear();
    for (const [uri, value] of before) believed.set(uri, value);
  }
  const all = [
    hasFailed ? 507 : 200,
    ...rights.map((status) => (hasFailed && status === 200 ? 216 : status)),
  ];
  const is = [outer.status, ...inner.map(({ status }) => status)];
  return is.join() === all.join()
    ? found
    : [`${outer.name} of ${inner.map(({ name, uri }) => `${name} ${uri}`)}: ${is}, not ${all}`];
}

/** Bytes of a value on its way: a text that XML cannot hold goes as base64. */
const sizeOf = (value: string): number =>
  value.includes('\0') ? Math.ceil(Buffer.byteLength(value) / 3) * 4 : Buffer.byteLength(value);

/** Status of an item whose value XML cannot hold. */
const unreadableStatus = 400;
const isUnreadable = (value: string | Buffer, { writing }: ServerHabits): boolean =>
  writing.coding === 'xml' && typeof value === 'string' && value.includes('\0');

const hasUnreadable = (all: readonly Wanted[], habits: ServerHabits): boolean =>
  all.some(({ value = '', inner = [] }) => isUnreadable(value, habits) || hasUnreadable(inner, habits));

/** Whether the ACL of the guarded leaf, or of its parent where it has none, lets the server replace it. */
const mayReplace = (believed: Believed): boolean =>
  ['', 'Get=*&Replace=dm.example', 'Get=*&Replace=*'].includes(believed.get(guarded.acl) ?? '');

/** Does a command in the tree as the server believes it to be. Returns the right status. */
function perform(
  { name, uri, from = '', value = '' }: Wanted,
  believed: Believed,
  habits: ServerHabits,
): number {
  const { maxObjSize = Number.POSITIVE_INFINITY } = habits;
  const parent = uri.split('/').slice(0, -1).join('/');
  const exists = believed.has(uri);
  switch (name) {
    case 'Get': {
      if (uri === 'Site/Secret') return 405;
      if (uri.includes('?list')) {
        const large = [...believed].some(
          ([at, held = '']) => at.startsWith('Site/') && !at.includes('?') && sizeOf(held) > maxObjSize,
        );
        return large ? 413 : 200;
      }
      if (!exists) return 404;
      return sizeOf(believed.get(uri) ?? '') > maxObjSize ? 413 : 200;
    }
    case 'Replace':
      if (isUnreadable(value, habits)) return unreadableStatus;
      if (uri === 'Site/Serial') return 405;
      if (!exists) return 404;
      if (uri === guarded.uri && !mayReplace(believed)) return 425;
      believed.set(uri, coded(value));
      return 200;
    case 'Add':
    case 'Copy': {
      if (name === 'Add' && isUnreadable(value, habits)) return unreadableStatus;
      if (exists && name === 'Add') return 418;
      // Interior nodes that are missing are added as well.
      if (uri.endsWith('/Note') && !believed.has(parent)) believed.set(parent, undefined);
      believed.set(
        uri,
        name === 'Copy' ? believed.get(from) : uri.endsWith('/Note') ? coded(value) : undefined,
      );
      return 200;
    }
    case 'Delete':
      if (uri === 'Site/Name') return 405;
      if (!exists) return 404;
      for (const each of [...believed.keys()])
        if (each === uri || each.startsWith(`${uri}/`)) believed.delete(each);
      return 200;
    default:
      return 202;
  }
}
