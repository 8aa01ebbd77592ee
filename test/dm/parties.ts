import { seededEntropy } from '../../src/base/entropy.ts';
import type { Account, SaveNonces } from '../../src/dm/authentication.ts';
import { ClientSession, type ClientSessionParts } from '../../src/dm/client-session.ts';
import { MemoryAcls, MemoryNodes } from '../../src/dm/node-store.ts';
import { ServerSession, type ServerSessionParts } from '../../src/dm/server-session.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { ManagementTree } from '../../src/dm/tree.ts';
import { devInfo, devInfoNodes } from '../../src/mo/dev-info.ts';
import { interior, leaf } from '../../src/syncml/ddf.ts';
import type { SyncmlMessage } from '../../src/syncml/message.ts';

const site = interior(['Get'], 'A site', {
  Name: leaf('chr', ['Get', 'Replace'], 'Name'),
  Count: leaf('int', ['Get', 'Replace'], 'Count'),
  Serial: leaf('chr', ['Get'], 'Serial'),
  Secret: leaf('chr', ['Replace'], 'Secret', { secret: true }),
  Blob: leaf('bin', ['Get', 'Replace'], 'Blob'),
  Rooms: interior(['Get'], 'Rooms', {
    '*': interior(
      ['Add', 'Delete', 'Get'],
      'Room',
      { Floor: leaf('int', ['Add', 'Get', 'Replace'], 'Floor') },
      { occurs: 'ZeroOrMore' },
    ),
  }),
});

/** A tree with DevInfo and a site, in which `dm.example` may do everything and everyone may look. */
export function siteTree() {
  const info = new StoredBranch('DevInfo', devInfo.root, new MemoryNodes(), devInfo.id);
  info.plant([], devInfoNodes({ deviceId: 'urn:dev:1', manufacturer: 'Maker', model: 'M1' }));
  const stored = new MemoryNodes();
  const branch = new StoredBranch('Site', site, stored);
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
    './Site': 'Get=*&Add=dm.example&Delete=dm.example&Replace=dm.example&Exec=dm.example',
  });
  return { tree: new ManagementTree({ DevInfo: info, Site: branch }, acls), stored, site };
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

/** Both sides until the client has nothing more to send. Answers with all that was said. */
export async function converse(device: ClientSession, dmServer: ServerSession): Promise<SyncmlMessage[]> {
  const said: SyncmlMessage[] = [];
  for (let next: SyncmlMessage | undefined = device.start(); next; ) {
    const answer = await dmServer.receive(next);
    said.push(next, answer);
    next = await device.receive(answer);
  }
  return said;
}
