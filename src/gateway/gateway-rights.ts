import type { Clock } from '../base/clock.ts';
import type { Events } from '../base/events.ts';
import type { ManagementTree } from '../dm/tree.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import { TunnelPolicy } from './modes/tunnel-policy.ts';
import { Authorisation } from './rights/authorisation.ts';
import { authorisedNodes } from './rights/authorised-nodes.ts';
import { ChildScope, type ChildScopeParts } from './rights/child-scope.ts';
import type { GatewayState } from './state.ts';

export interface GatewayRightsParts {
  readonly config: GatewayConfig;
  readonly live: LiveSettings;
  readonly state: Pick<GatewayState, 'accounts' | 'credentials' | 'inventory'>;
  readonly vocabulary: Vocabulary;
  readonly tree: Pick<ManagementTree, 'permits'>;
  /** ServerIDs that have their accounts again at the next start, because the configuration names them. */
  readonly configured: ReadonlySet<string>;
  readonly judge: ChildScopeParts['judge'];
  readonly clock: Clock;
  readonly events: Events;
}

/** What answers who may do what: of DM servers, of child gateways, of devices at the tunnel. */
export function rightsOf({ config, live, state, vocabulary, tree, ...parts }: GatewayRightsParts) {
  const { accounts, credentials, inventory } = state;
  const { configured, judge, ...machine } = parts;
  const tunnelPolicy = new TunnelPolicy({
    isKnown: (deviceId) =>
      inventory.get(deviceId) !== undefined ||
      credentials.get(deviceId) !== undefined ||
      live.current.bootstrap.has(deviceId),
    knownDevices: () => Math.max(inventory.size, credentials.size, live.current.bootstrap.size),
    devices: () => live.current.tunnel,
    ...machine,
  });
  const authorisation = new Authorisation({
    hasAccount: (server) => configured.has(server) || accounts.nodeName(server) !== undefined,
    tunnelServers: config.tunnel.servers ?? [config['dm-server'].id],
    permits: (...args) => tree.permits(...args),
    nodeOf: authorisedNodes(vocabulary, accounts),
    isTunnelled: (deviceId) => tunnelPolicy.admits(deviceId),
    ...machine,
  });
  const scope = new ChildScope({
    gatewayId: config.gateway.id,
    recordOf: (deviceId) => inventory.get(deviceId),
    judge,
  });
  return { authorisation, scope, tunnelPolicy };
}
