import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import { isOk } from '../dm/status.ts';
import { accountNodes } from '../mo/dm-acc.ts';
import { expectedNodes, recordName } from '../mo/gw-device-inventory.ts';
import { encodeTnds, TndsMediaType } from '../syncml/tnds.ts';

export interface AssistedBootstrapParts {
  readonly entropy: Entropy;
  readonly events: Events;
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
  { entropy, events, atGateway }: AssistedBootstrapParts,
  deviceId: string,
  gateway: string,
  isAssociated: boolean,
): Work {
  if (isAssociated && (yield* hasAccount(gateway))) return;
  const secret = () => Buffer.from(entropy.bytes(secretBytes)).toString('base64url');
  const expected = {
    deviceId,
    clientName: deviceId,
    clientSecret: secret(),
    clientNonce: entropy.bytes(nonceBytes),
    serverSecret: secret(),
    serverNonce: entropy.bytes(nonceBytes),
  };
  const uri = `./GwDeviceInventory/Expected/${recordName(deviceId)}`;
  const [removed, added, found] = await atGateway(gateway, [
    // What an attempt left that broke off.
    { name: 'Delete', uri },
    {
      name: 'Add',
      uri,
      format: 'xml',
      type: TndsMediaType.Xml,
      data: encodeTnds({ root: expectedNodes(expected) }),
    },
    { name: 'Get', uri: `${uri}/Address` },
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
  const [given] = yield [
    {
      name: 'Add',
      uri: './Inbox',
      format: 'xml',
      type: TndsMediaType.Xml,
      data: encodeTnds({ path: './Inbox', root }),
    },
  ];
  const status = given?.status ?? 0;
  events.emit(isOk(status) ? 'info' : 'warn', 'bootstrap.assisted', { device: deviceId, gateway, status });
  if (!isOk(status)) await atGateway(gateway, [{ name: 'Delete', uri }]);
}

/** Whether the device in session has an account for this server, under whatever node name. */
async function* hasAccount(
  serverId: string,
): AsyncGenerator<readonly Operation[], boolean, readonly OperationOutcome[]> {
  const [list] = yield [{ name: 'Get', uri: './DMAcc' }];
  const names = String(list?.results[0]?.data ?? '')
    .split('/')
    .filter((name) => name !== '');
  if (names.length === 0) return false;
  const found = yield names.map((name) => ({ name: 'Get' as const, uri: `./DMAcc/${name}/ServerID` }));
  return found.some(({ results }) => results[0]?.data === serverId);
}
