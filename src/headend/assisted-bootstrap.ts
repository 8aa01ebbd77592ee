import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { hashedName } from '../base/hashed-name.ts';
import { strongSecret } from '../base/weak-secrets.ts';
import { freshSecrets } from '../dm/fresh-secrets.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { DmStatus, isOk } from '../dm/status.ts';
import { accountNodes } from '../mo/dm-acc.ts';
import { expectedNodes } from '../mo/gw-device-inventory.ts';
import { nodeAt, renamed, renamedTree, type Vocabulary } from '../mo/vocabulary.ts';
import {
  derivedKey,
  identityBytes,
  isForOscore,
  issuedIdentity,
  issuedOscoreIdentity,
  secretBytes,
} from '../wire/secure/transport-keys.ts';
import { encodeTnds, TndsMediaType } from '../wire/syncml/tnds.ts';
import type { Parties } from './parties.ts';
import type { SessionRequests } from './session-requests.ts';

export interface AssistedBootstrapParts {
  readonly entropy: Entropy;
  readonly vocabulary: Vocabulary;
  readonly events: Events;
  readonly parties: Parties;
  /** For sessions with the gateway, which run while the device's own session waits. */
  readonly sessionRequests: SessionRequests;
}

/**
 * DM-Server-assisted gateway bootstrap (GwMO section 8.4.1), as work in the device's own session. It makes new
 * credentials, gives them to the gateway, waits for the gateway's answer, and only then gives the device its account
 * for the gateway. So a device never has an account that the gateway does not know. A device is left as it is when
 * the gateway has reported it (`isAssociated`) and it has the account.
 * Returns the DM status of the device for its account; 200 when it was left as it is.
 * @throws {PosternError} `unavailable` when the gateway refuses the credentials; otherwise as `SessionRequests.run`
 */
export async function* bootstrapToGateway(
  { entropy, vocabulary, events, parties, sessionRequests }: AssistedBootstrapParts,
  deviceId: string,
  gateway: string,
  isAssociated: boolean,
): WorkPart<number> {
  const accounts = yield* readAccounts();
  if (isAssociated && accounts.some(({ serverId }) => serverId === gateway)) return DmStatus.Ok;
  const { uri, add, expected, derived } = expectationOf({ entropy, vocabulary, parties }, deviceId);
  const [removed, added, found] = await sessionRequests.run(gateway, [
    // An earlier attempt that was interrupted may have left this node.
    { name: 'Delete', uri },
    add,
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
    // The session with the device may be readable on its way, so the key itself is not sent.
    ...(expected.transport &&
      address.startsWith(isForOscore(derived.identity) ? 'coap' : 'coaps:') && { transport: derived }),
  });
  const addAccount: Operation = {
    name: 'Add',
    uri: './Inbox',
    format: 'xml',
    type: TndsMediaType.Xml,
    data: encodeTnds({ path: './Inbox', root }),
  };
  // GwMO figure 10: the new account takes the place of the accounts for old gateways.
  const old = accounts.filter(({ serverId }) => serverId !== gateway && parties.isGateway(serverId));
  const status = yield* replaceAccounts(old, addAccount);
  if (isOk(status)) {
    const instead = old.map(({ serverId }) => serverId).join(' ');
    events.emit('bootstrap.assisted', { device: deviceId, gateway, status, instead });
    return status;
  }
  const reason = `the device answered its account with ${status}`;
  events.emit('bootstrap.assisted-failed', { device: deviceId, gateway, status, reason });
  await sessionRequests.run(gateway, [{ name: 'Delete', uri }]);
  return status;
}

/** Fresh credentials of a device for a gateway, and the command that gives them to the gateway. */
export function expectationOf(
  { entropy, vocabulary, parties }: Pick<AssistedBootstrapParts, 'entropy' | 'vocabulary' | 'parties'>,
  deviceId: string,
) {
  const party = parties.get(deviceId);
  const issued = party?.isForOscore ? issuedOscoreIdentity : issuedIdentity;
  const derived = {
    identity: issued(entropy.bytes(identityBytes)),
    salt: entropy.bytes(secretBytes),
  };
  // A key of a secret that can be guessed would be no better than the secret.
  const shared = party && party.clientSecret.length >= strongSecret ? party.clientSecret : undefined;
  const expected = {
    deviceId,
    clientName: deviceId,
    ...freshSecrets(entropy),
    ...(shared !== undefined && {
      transport: { identity: derived.identity, key: derivedKey(shared, derived.salt, derived.identity) },
    }),
  };
  const uri = `${nodeAt(vocabulary, 'GwDeviceInventory', 'Expected')}/${hashedName(deviceId)}`;
  const add: Operation = {
    name: 'Add',
    uri,
    format: 'xml',
    type: TndsMediaType.Xml,
    data: encodeTnds({ root: renamedTree(vocabulary, expectedNodes(expected)) }),
  };
  return { uri, add, expected, derived };
}

/** Part of the work of a session: yields operations, receives their outcomes and returns a value. */
type WorkPart<T> = AsyncGenerator<readonly Operation[], T, readonly OperationOutcome[]>;

/**
 * Deletes old accounts and adds the new one in one Atomic. Returns the DM status of the addition. When the Atomic
 * fails, the new account is added alone: this server may not be allowed to delete an account that another server
 * created. The device then has both accounts.
 */
async function* replaceAccounts(old: readonly HeldAccount[], addAccount: Operation): WorkPart<number> {
  if (old.length > 0) {
    const deletions = old.map(({ name }) => ({ name: 'Delete' as const, uri: `./DMAcc/${name}` }));
    const [replaced] = yield [{ name: 'Atomic', operations: [...deletions, addAccount] }];
    if (isOk(replaced?.status ?? 0)) return replaced?.status ?? 0;
  }
  const [added] = yield [addAccount];
  return added?.status ?? 0;
}

interface HeldAccount {
  /** Name of the account's node below `./DMAcc`. */
  readonly name: string;
  readonly serverId: string;
}

/**
 * Reads the device's accounts. The names of their nodes differ from device to device, so the nodes are listed first.
 */
async function* readAccounts(): WorkPart<readonly HeldAccount[]> {
  const [list] = yield [{ name: 'Get', uri: './DMAcc' }];
  const names = String(list?.results[0]?.data ?? '')
    .split('/')
    .filter((name) => name !== '');
  if (names.length === 0) return [];
  const found = yield names.map((name) => ({ name: 'Get' as const, uri: `./DMAcc/${name}/ServerID` }));
  return names.map((name, at) => ({ name, serverId: String(found[at]?.results[0]?.data ?? '') }));
}
