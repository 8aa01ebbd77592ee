import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import { isOk } from '../dm/status.ts';
import { accountNodes } from '../mo/dm-acc.ts';
import { expectedNodes } from '../mo/gw-device-inventory.ts';
import { nodeAt, renamed, renamedTree, type Vocabulary } from '../mo/vocabulary.ts';
import { encodeTnds, TndsMediaType } from '../wire/syncml/tnds.ts';

export interface AssistedBootstrapParts {
  readonly entropy: Entropy;
  readonly vocabulary: Vocabulary;
  readonly events: Events;
  /** Whether a ServerID is that of a gateway of this server. */
  readonly isGateway: (serverId: string) => boolean;
  /** Does operations in a session with the gateway, which is asked to open one. */
  readonly atGateway: (
    gateway: string,
    operations: readonly Operation[],
  ) => Promise<readonly OperationOutcome[]>;
}

const secretBytes = 16;
const nonceBytes = 16;

/**
 * DM-Server-assisted gateway bootstrap (GwMO section 8.4.1): in the device's own session, makes a credential, gives it to
 * the gateway first and waits for its word, and only then gives the device its account. So a device never has an account
 * that the gateway does not know. A device that the gateway reported, and that has the account, is left as it is.
 */
export async function* bootstrapToGateway(
  { entropy, vocabulary, events, isGateway, atGateway }: AssistedBootstrapParts,
  deviceId: string,
  gateway: string,
  isAssociated: boolean,
): Work {
  const accounts = yield* accountsOf();
  if (isAssociated && accounts.some(({ serverId }) => serverId === gateway)) return;
  const secret = () => Buffer.from(entropy.bytes(secretBytes)).toString('base64url');
  const expected = {
    deviceId,
    clientName: deviceId,
    clientSecret: secret(),
    clientNonce: entropy.bytes(nonceBytes),
    serverSecret: secret(),
    serverNonce: entropy.bytes(nonceBytes),
  };
  const uri = `${nodeAt(vocabulary, 'GwDeviceInventory', 'Expected')}/${hashedName(deviceId)}`;
  const [removed, added, found] = await atGateway(gateway, [
    // What an attempt left that broke off.
    { name: 'Delete', uri },
    {
      name: 'Add',
      uri,
      format: 'xml',
      type: TndsMediaType.Xml,
      data: encodeTnds({ root: renamedTree(vocabulary, expectedNodes(expected)) }),
    },
    { name: 'Get', uri: `${uri}/${renamed(vocabulary.names, 'Address')}` },
  ]);
  const address = found?.results[0]?.data;
  if (!added || !isOk(added.status) || typeof address !== 'string')
    throw new PosternError(
      'unavailable',
      `gateway ${gateway} did not take ${deviceId}: ${added?.status} after ${removed?.status}`,
    );
  const root = accountNodes(gateway, {
    serverId: gateway,
    name: 'DM Gateway',
    address,
    own: { name: deviceId, secret: expected.clientSecret, nonce: expected.clientNonce },
    peer: { name: gateway, secret: expected.serverSecret, nonce: expected.serverNonce },
  });
  const give: Operation = {
    name: 'Add',
    uri: './Inbox',
    format: 'xml',
    type: TndsMediaType.Xml,
    data: encodeTnds({ path: './Inbox', root }),
  };
  // Figure 10: accounts of gateways that it was attached to go when the new one comes, or none of it happens.
  const old = accounts.filter(({ serverId }) => serverId !== gateway && isGateway(serverId));
  const status = yield* giveInPlaceOf(give, old);
  events.emit(isOk(status) ? 'info' : 'warn', 'bootstrap.assisted', {
    device: deviceId,
    gateway,
    status,
    instead: old.map(({ serverId }) => serverId).join(' '),
  });
  if (!isOk(status)) await atGateway(gateway, [{ name: 'Delete', uri }]);
}

type Asking<T> = AsyncGenerator<readonly Operation[], T, readonly OperationOutcome[]>;

async function* giveInPlaceOf(give: Operation, old: readonly HeldAccount[]): Asking<number> {
  if (old.length > 0) {
    const gone = old.map(({ name }) => ({ name: 'Delete' as const, uri: `./DMAcc/${name}` }));
    const [swapped] = yield [{ name: 'Atomic', operations: [...gone, give] }];
    if (isOk(swapped?.status ?? 0)) return swapped?.status ?? 0;
  }
  // An account that another hand gave is not this server's to delete; the device has both then.
  const [given] = yield [give];
  return given?.status ?? 0;
}

interface HeldAccount {
  /** Of its node. */
  readonly name: string;
  readonly serverId: string;
}

/** The accounts that the device in session has, by whatever names. */
async function* accountsOf(): Asking<readonly HeldAccount[]> {
  const [list] = yield [{ name: 'Get', uri: './DMAcc' }];
  const names = String(list?.results[0]?.data ?? '')
    .split('/')
    .filter((name) => name !== '');
  if (names.length === 0) return [];
  const found = yield names.map((name) => ({ name: 'Get' as const, uri: `./DMAcc/${name}/ServerID` }));
  return names.map((name, at) => ({ name, serverId: String(found[at]?.results[0]?.data ?? '') }));
}
