import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { softwareVersion } from '../base/version.ts';
import type { Accounts } from '../mo/dm-acc.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import { ParentLink } from './northbound/parent-link.ts';
import type { Uplink } from './northbound/uplink.ts';
import { Upstream } from './northbound/upstream.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';

export interface GatewayUplinkParts {
  readonly config: GatewayConfig;
  readonly live: LiveSettings;
  readonly accounts: Accounts;
  readonly locator: DeviceLocator;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

export interface GatewayUplink {
  readonly uplink: Uplink;
  /** The same, where the uplink is a parent gateway. It posts Package #0 to this gateway; a broker publishes it. */
  readonly parent?: ParentLink;
}

/**
 * The uplink that the configuration names: a broker, or a parent gateway.
 * @throws {PosternError} `configuration` when it names none
 */
export function uplinkOf(parts: GatewayUplinkParts): GatewayUplink {
  const { config, live, accounts, locator, ...surroundings } = parts;
  const gatewayId = config.gateway.id;
  const timeout = config.tunnel.timeout * 1000;
  if (config.parent) {
    const { id: parentId, uri } = config.parent;
    const parent = new ParentLink(
      {
        gatewayId,
        parentId,
        uri,
        get factorySecret() {
          return live.current.factorySecret;
        },
        accounts,
        call: (...args) => locator.call(...args),
        ...surroundings,
      },
      timeout,
    );
    return { uplink: parent, parent };
  }
  if (!config.mqtt) throw new PosternError('configuration', 'mqtt: this table is needed');
  const settings = live.mqtt;
  return { uplink: new Upstream({ gatewayId, settings, softwareVersion, ...surroundings }, timeout) };
}
