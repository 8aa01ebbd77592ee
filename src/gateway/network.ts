import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { Blockwise } from '../wire/coap/blockwise.ts';
import { EchoGuard } from '../wire/coap/echo.ts';
import { type Resource, Router } from '../wire/coap/router.ts';
import type { GatewayConfig } from './config.ts';
import type { GatewayAdaptation } from './lwm2m.ts';
import type { TransparentMode } from './modes/transparent.ts';
import { advertised, httpSettings } from './settings.ts';
import { BootstrapServer } from './southbound/bootstrap-server.ts';
import { CoapNetwork, type LocalEndpoint } from './southbound/coap-network.ts';
import type { DeviceSessions } from './southbound/device-sessions.ts';
import { HttpBinding } from './southbound/http-binding.ts';
import { imageResource } from './southbound/image-resource.ts';
import type { ListInterfaces } from './southbound/interfaces.ts';
import type { Reach } from './southbound/reach.ts';
import type { Credentials } from './store/credentials.ts';

export interface NetworkParts {
  readonly config: GatewayConfig;
  readonly credentials: Credentials;
  readonly reach: Reach;
  readonly sessions: DeviceSessions;
  readonly transparent: TransparentMode;
  readonly adaptation: GatewayAdaptation | undefined;
  /** What there is besides, at one local address. */
  readonly resources: (local: LocalEndpoint) => readonly Resource[];
  readonly image: Parameters<typeof imageResource>[0];
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  readonly listInterfaces?: ListInterfaces;
}

/** What devices see of the gateway: its resources over CoAP, and the HTTP binding where it is on. */
export function networkOf(parts: NetworkParts): { network: CoapNetwork; http: HttpBinding | undefined } {
  const { config, credentials, reach, sessions, transparent, adaptation, clock, entropy, events } = parts;
  const gatewayId = config.gateway.id;
  const secrets = new Map(
    config.bootstrap.device.map(({ id, pin, 'factory-secret': network }) => [id, { network, pin }]),
  );
  const guard = new EchoGuard(clock, entropy);
  const bootstrapServer = new BootstrapServer({
    gatewayId,
    secretsOf: (deviceId) => secrets.get(deviceId),
    credentials,
    guard,
    entropy,
    events,
    livesElsewhere: (deviceId, remote) => reach.livesElsewhere(deviceId, remote),
  });
  const network = new CoapNetwork({
    ...config.coap,
    advertise: advertised(config.coap.advertise),
    clock,
    entropy,
    events,
    limits: { leisure: config.coap.leisure },
    compose: (local) =>
      new Blockwise(
        new Router([
          bootstrapServer.resource(local),
          sessions.resource(local),
          transparent.resource(),
          ...parts.resources(local),
          ...(adaptation?.resources(local) ?? []),
          imageResource(parts.image, ({ remote }) => reach.isAttachedAt(remote)),
        ]).handle,
        clock,
      ).handle,
    ...(parts.listInterfaces && { listInterfaces: parts.listInterfaces }),
  });
  const http =
    config.http &&
    new HttpBinding({
      settings: httpSettings(config.http, gatewayId),
      sessions,
      bootstrapServer,
      guard,
      forward: (up) => transparent.forward(up),
      events,
    });
  return { network, http };
}
