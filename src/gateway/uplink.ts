import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { softwareVersion } from '../base/version.ts';
import type { Accounts } from '../mo/dm-acc.ts';
import type { CoapTransport } from '../wire/secure/coap-transport.ts';
import { otherBrokerName } from './broker-name.ts';
import type { GatewayConfig } from './config.ts';
import { enrolledIdentity } from './enrolled-config.ts';
import type { LiveSettings } from './live-settings.ts';
import { CertificateKeeper } from './northbound/certificate-keeper.ts';
import type { DataBudget } from './northbound/data-budget.ts';
import { MeteredUplink, UplinkTraffic } from './northbound/metered-uplink.ts';
import { ParentLink } from './northbound/parent-link.ts';
import type { Uplink } from './northbound/uplink.ts';
import { Upstream } from './northbound/upstream.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import { isSecureUri } from './uplink-config.ts';

export interface GatewayUplinkParts {
  readonly config: GatewayConfig;
  readonly live: LiveSettings;
  readonly accounts: Accounts;
  /** Runs what stores a new account at the parent, and has all devices reported to the parent, in one transaction. */
  readonly join: (store: () => void) => void;
  readonly locator: DeviceLocator;
  /** DTLS, where it is served. */
  readonly transport: CoapTransport | undefined;
  /** Epoch of the gateway's alerts, which a broker's retained state tells. */
  readonly epoch: () => string;
  /** What else than the uplink is wrong with the gateway. */
  readonly problem: () => string | undefined;
  readonly budget: DataBudget;
  /** The owner has ended its relation to this gateway. */
  readonly gone: () => void;
  /** Ends this gateway and makes another one, which is to be enrolled. */
  readonly startAgain?: (() => void) | undefined;
  /** IP address to which Package #0 for a device goes. */
  readonly addressOf: (deviceId: string) => string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

export interface GatewayUplink {
  readonly uplink: Uplink;
  /** The same for sessions of the gateway itself. It shows as disconnected while the data budget leaves no room for them. */
  readonly reporting: Pick<Uplink, 'request' | 'connected' | 'largestBody'>;
  /** The same, where the uplink is a parent gateway. It posts Package #0 to this gateway; a broker publishes it. */
  readonly parent?: ParentLink;
  /** The certificate at the broker, where this gateway has it by enrolment. */
  readonly certificate?: CertificateKeeper;
  /** To be called when `problem` has another answer. Absent where the uplink is a parent gateway. */
  readonly problemChanged?: () => void;
}

/**
 * The uplink that the configuration names: a broker, or a parent gateway.
 * @throws {PosternError} `configuration` when it names none
 */
export function uplinkOf(parts: GatewayUplinkParts): GatewayUplink {
  const {
    config,
    live,
    accounts,
    join,
    locator,
    transport,
    epoch,
    problem,
    budget,
    addressOf,
    startAgain,
    gone,
    ...surroundings
  } = parts;
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
        join,
        call: (...args) => locator.call(...args),
        answers: (address, port, timeout, heardOn) => locator.answers({ address, port, heardOn }, timeout),
        transport: transport?.own,
        sourceTowards: (address) => locator.sourceTowards(address, isSecureUri(uri)),
        ...surroundings,
      },
      timeout,
    );
    return { uplink: parent, reporting: parent, parent };
  }
  if (!config.mqtt) throw new PosternError('configuration', 'mqtt: this table is needed');
  const settings = live.mqtt;
  const traffic = new UplinkTraffic(budget, surroundings.clock, addressOf);
  const identity = enrolledIdentity(config);
  const certificate =
    identity &&
    new CertificateKeeper({
      gatewayId,
      identity,
      settings: settings as { cert?: string },
      gone,
      reconnect: (reason) => upstream.reconnect(reason),
      ...surroundings,
    });
  const upstream: Upstream = new Upstream(
    {
      gatewayId,
      settings,
      softwareVersion,
      epoch,
      problem,
      hint: () => {
        const other = otherBrokerName({ gateway: config.gateway, mqtt: settings });
        return other && `${other.file}: ${other.reason}`;
      },
      traffic,
      ...(certificate && {
        holder: (other: Buffer) => {
          if (certificate.isReplacedBy(other)) startAgain?.();
        },
        attempts: { connected: () => certificate.connected(), failed: () => certificate.failed() },
      }),
      ...surroundings,
    },
    timeout,
  );
  const uplink = new MeteredUplink(upstream, budget, traffic);
  const reporting = {
    request: (...args: Parameters<Uplink['request']>) => uplink.request(...args),
    get connected() {
      return uplink.reports;
    },
    get largestBody() {
      return uplink.largestBody;
    },
  };
  return {
    uplink,
    reporting,
    problemChanged: () => upstream.problemChanged(),
    ...(certificate && { certificate }),
  };
}
