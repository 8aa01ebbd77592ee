import { seededEntropy } from '../../src/base/entropy.ts';
import type { Account, SaveNonces } from '../../src/dm/authentication.ts';
import { ClientSession, type ClientSessionParts } from '../../src/dm/client-session.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import {
  type Operation,
  type OperationOutcome,
  ServerSession,
  type ServerSessionParts,
} from '../../src/dm/server-session.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import type { TreeBranch } from '../../src/dm/tree-branch.ts';
import { devInfo, devInfoNodes } from '../../src/mo/dev-info.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { interior, leaf } from '../../src/wire/syncml/ddf.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { HandClock } from '../hand-clock.ts';

const site = interior(['Get'], 'A site', {
  Name: leaf('chr', ['Get', 'Replace'], 'Name'),
  Count: leaf('int', ['Get', 'Replace'], 'Count'),
  Serial: leaf('chr', ['Get'], 'Serial'),
  Secret: leaf('chr', ['Replace'], 'Secret', { secret: true }),
  Blob: leaf('bin', ['Get', 'Replace'], 'Blob'),
  Rooms: interior(['Get'], 'Rooms', {
    '*': interior(
      ['Add', 'Delete', 'Get', 'Replace'],
      'Room',
      {
        Floor: leaf('int', ['Add', 'Get', 'Replace'], 'Floor'),
        Note: leaf('chr', ['Add', 'Delete', 'Get', 'Replace'], 'Note', { occurs: 'ZeroOrOne' }),
      },
      { occurs: 'ZeroOrMore' },
    ),
  }),
});

/** A tree with DevInfo and a site, in which `dm.example` may do everything and everyone may look. */
export function siteTree(branches: Readonly<Record<string, TreeBranch>> = {}) {
  const info = new StoredBranch('DevInfo', devInfo.root, new MemoryNodes(), { type: devInfo.id });
  info.plant([], devInfoNodes({ deviceId: 'urn:dev:1', manufacturer: 'Maker', model: 'M1' }));
  const stored = new MemoryNodes();
  const clock = new HandClock();
  const branch = new StoredBranch('Site', site, stored, { clock });
  branch.plant([], {
    name: 'Site',
    format: 'node',
    children: [
      { name: 'Name', format: 'chr', value: 'north' },
      { name: 'Count', format: 'int', value: '3' },
      { name: 'Serial', format: 'chr', value: 's-1' },
      { name: 'Secret', format: 'chr', value: 'hidden' },
      { name: 'Blob', format: 'bin', value: Buffer.from([1, 2]) },
      { name: 'Rooms', format: 'node', children: [] },
    ],
  });
  const acls = new MemoryAcls({
    '.': 'Get=*',
    './Do': 'Exec=dm.example&Get=*',
    './Site': 'Get=*&Add=dm.example&Delete=dm.example&Replace=dm.example&Exec=dm.example',
  });
  const done: string[] = [];
  const doing: TreeBranch = {
    view: (path) => (path.length === 0 ? { format: 'null', access: ['Exec', 'Get'] } : undefined),
    exec: (_path, { value }, correlator) => {
      done.push(`${value} ${correlator}`);
      return 202;
    },
  };
  return {
    tree: new ManagementTree({ DevInfo: info, Site: branch, Do: doing, ...branches }, acls),
    stored,
    acls,
    clock,
    done,
  };
}

interface Nonces {
  own: Uint8Array;
  peer: Uint8Array;
}

export const startNonces = (): Nonces => ({ own: Buffer.from('nonce-c'), peer: Buffer.from('nonce-s') });

const saver =
  (nonces: Nonces): SaveNonces =>
  ({ own, peer }) => {
    if (own) nonces.own = own;
    if (peer) nonces.peer = peer;
  };

export const clientAccount = ({ own, peer }: Nonces, secret = 'client-secret'): Account => ({
  own: { name: 'urn:dev:1', secret, nonce: own },
  peer: { name: 'dm.example', secret: 'server-secret', nonce: peer },
});

export const serverAccount = ({ own, peer }: Nonces, secret = 'server-secret'): Account => ({
  own: { name: 'dm.example', secret, nonce: own },
  peer: { name: 'urn:dev:1', secret: 'client-secret', nonce: peer },
});

export function client(nonces: Nonces, parts: Partial<ClientSessionParts> = {}) {
  return new ClientSession({
    ends: { local: 'urn:dev:1', remote: 'dm.example' },
    account: clientAccount(nonces),
    saveNonces: saver(nonces),
    tree: siteTree().tree,
    entropy: seededEntropy(1),
    sessionId: '1',
    notified: false,
    ...parts,
  });
}

export function server(nonces: Nonces, parts: Partial<ServerSessionParts> = {}) {
  return new ServerSession({
    ends: { local: 'dm.example', remote: 'urn:dev:1' },
    account: serverAccount(nonces),
    saveNonces: saver(nonces),
    entropy: seededEntropy(2),
    sessionId: '1',
    work: async function* () {},
    alerted: () => 200,
    ...parts,
  });
}

/** What happens to messages on their way; they arrive as they went where it is absent. */
export type OnTheWay = (message: SyncmlMessage, from: 'client' | 'server') => SyncmlMessage;

/**
 * Both sides until the client has nothing more to send, each message coded, with its seal, and decoded. Answers with all
 * that was said.
 * @param mediaType the coding, which a client session is told as well
 */
export async function converse(
  device: ClientSession,
  dmServer: ServerSession,
  onTheWay: OnTheWay = (message) => message,
  mediaType: string = MediaType.Cbor,
): Promise<SyncmlMessage[]> {
  const said: SyncmlMessage[] = [];
  const carry = (message: SyncmlMessage, from: 'client' | 'server') => {
    const sender = from === 'client' ? device : dmServer;
    const body = encodeMessage(onTheWay(message, from), mediaType);
    const arrived = decodeMessage(body, mediaType);
    said.push(arrived);
    return [arrived, { body, mediaType, hmac: sender.seal(body) }] as const;
  };
  for (let next: SyncmlMessage | undefined = device.start(); next; ) {
    const answer = await dmServer.receive(...carry(next, 'client'));
    next = await device.receive(...carry(answer, 'server'));
  }
  return said;
}

/** Both sides say that they take only messages of this size. */
export const small =
  (maxMsgSize: number): OnTheWay =>
  ({ header, ...rest }) => ({ header: { ...header, meta: { ...header.meta, maxMsgSize } }, ...rest });

/** Statuses of a message, `Alert 200`. */
export const statusesOf = (message: SyncmlMessage): string[] =>
  message.commands.flatMap((command) =>
    command.name === 'Status' ? [`${command.cmd} ${command.data}`] : [],
  );

/** The server's nonces mirror the client's. */
export const noncePair = () => {
  const device = startNonces();
  return { device, dm: { own: device.peer, peer: device.own } };
};

/** Has a server do operations in a session of its own, and answers with what they came to. */
export async function manage(
  operations: readonly Operation[],
  onTheWay?: OnTheWay,
  branches: Readonly<Record<string, TreeBranch>> = {},
  mediaType: string = MediaType.Cbor,
) {
  const { device, dm } = noncePair();
  const site = siteTree(branches);
  const outcomes: OperationOutcome[] = [];
  const serverSide = server(dm, {
    work: async function* () {
      outcomes.push(...(yield operations));
    },
  });
  const clientSide = client(device, { tree: site.tree, mediaType });
  const said = await converse(clientSide, serverSide, onTheWay, mediaType);
  return { ...site, outcomes, said, clientSide, serverSide };
}
