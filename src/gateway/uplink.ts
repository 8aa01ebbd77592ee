import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { softwareVersion } from '../base/version.ts';
import type { Accounts } from '../mo/dm-acc.ts';
import type { Resource } from '../wire/coap/router.ts';
import { decodeNotification } from '../wire/syncml/notification.ts';
import type { GatewayConfig } from './config.ts';
import { ParentLink } from './northbound/parent-link.ts';
import type { Uplink } from './northbound/uplink.ts';
import { Upstream } from './northbound/upstream.ts';
import { mqttSettings } from './settings.ts';
import { notificationResource } from './southbound/notification-resource.ts';
import type { Reach } from './southbound/reach.ts';

export interface GatewayUplinkParts {
  readonly config: GatewayConfig;
  readonly accounts: Accounts;
  readonly call: Reach['call'];
  /** Package #0 came down: for a device, or for the gateway itself. */
  readonly notified: (deviceId: string | undefined, server: string, package0: Uint8Array) => Promise<void>;
  readonly connected: () => void;
  readonly disconnected: () => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

export interface GatewayUplink {
  readonly uplink: Uplink;
  /** Where a parent gateway posts Package #0; a broker brings it by itself. */
  readonly notifications?: Resource;
}

/** The way up that the configuration names: a broker, or a parent gateway. */
export function uplinkOf(parts: GatewayUplinkParts): GatewayUplink {
  const { config, accounts, call, notified, connected, disconnected, clock, entropy, events } = parts;
  const gatewayId = config.gateway.id;
  const timeout = config.tunnel.timeout * 1000;
  const surroundings = { clock, entropy, events, connected, disconnected };
  if (config.parent) {
    const { id: parentId, uri, 'factory-secret': factorySecret } = config.parent;
    const parent = new ParentLink(
      { gatewayId, parentId, uri, factorySecret, accounts, call, ...surroundings },
      timeout,
    );
    const notifications = notificationResource(
      ({ remote }) => parent.isParent(remote.address),
      (deviceId, package0) => notified(deviceId, decodeNotification(package0).serverId, package0),
    );
    return { uplink: parent, notifications };
  }
  if (!config.mqtt) throw new PosternError('configuration', 'mqtt: this table is needed');
  const settings = mqttSettings(config.mqtt);
  const uplink = new Upstream(
    {
      gatewayId,
      settings,
      softwareVersion,
      ...surroundings,
      notified: ({ device, server = '', body = new Uint8Array() }) => notified(device, server, body),
    },
    timeout,
  );
  return { uplink };
}
