import type { Admission } from '../base/admission.ts';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { Blockwise } from '../wire/coap/blockwise.ts';
import { isSuccess } from '../wire/coap/codes.ts';
import { EchoGuard } from '../wire/coap/echo.ts';
import type { Handler } from '../wire/coap/message.ts';
import { type Resource, Router } from '../wire/coap/router.ts';
import type { GatewayConfig } from './config.ts';
import type { LiveSettings } from './live-settings.ts';
import type { Lwm2mService } from './lwm2m-service.ts';
import type { TransparentMode } from './modes/transparent.ts';
import { httpSettings } from './settings.ts';
import { type AccessParts, restricted } from './southbound/access.ts';
import { BootstrapServer, type BootstrapServerParts } from './southbound/bootstrap-server.ts';
import type { Compose, LocalEndpoint } from './southbound/coap-network.ts';
import type { DeviceAddresses } from './southbound/device-addresses.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { DeviceSessions } from './southbound/device-sessions.ts';
import { HttpBinding } from './southbound/http-binding.ts';
import { imageResource, type ServedImage } from './southbound/image-resource.ts';
import type { ImageTickets } from './southbound/image-tickets.ts';
import type { Joins } from './southbound/joins.ts';
import type { UplinkStatus } from './southbound/uplink-status.ts';
import type { Credentials } from './store/credentials.ts';
import { isSecureUri } from './uplink-config.ts';

export interface GatewayResourcesParts {
  readonly config: GatewayConfig;
  readonly live: LiveSettings;
  readonly joins: Joins;
  readonly credentials: Credentials;
  readonly database: Database;
  readonly locator: DeviceLocator;
  readonly addresses: Pick<DeviceAddresses, 'heardOverHttp'>;
  /** Whether the attached device with an ID is at an address other than this one. */
  readonly livesElsewhere: BootstrapServerParts['livesElsewhere'];
  readonly sessions: DeviceSessions;
  readonly transparent: TransparentMode;
  readonly lwm2m: Lwm2mService | undefined;
  readonly uplinkStatus: UplinkStatus;
  /** Where a parent gateway posts Package #0. */
  readonly notifications: Resource | undefined;
  /** An image by its name, when it can be served. */
  readonly image: (name: string) => ServedImage | undefined;
  readonly tickets: ImageTickets;
  /** URI of a path over DTLS, at the address of a socket. */
  readonly secureUri: (local: LocalEndpoint, path: string) => string;
  readonly oscoreUri: BootstrapServerParts['oscoreUri'];
  /** The entry that CoAP and HTTP share. */
  readonly admission: Admission;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** What devices see of the gateway: its CoAP resources, and the HTTP binding where it is configured. */
export interface GatewayResources {
  readonly compose: Compose;
  readonly http: HttpBinding | undefined;
}

export function resourcesOf(parts: GatewayResourcesParts): GatewayResources {
  const { config, live, credentials, database, locator, sessions, transparent } = parts;
  const { clock, entropy, events } = parts;
  const gatewayId = config.gateway.id;
  const guard = new EchoGuard(clock, entropy);
  const bootstrapServer = new BootstrapServer({
    gatewayId,
    // No device is named like the gateway, whatever a list says that several gateways share.
    secretsOf: (deviceId) => (deviceId === gatewayId ? undefined : live.current.bootstrap.get(deviceId)),
    isForOscore: (deviceId) => live.current.oscoreDevices.has(deviceId),
    oscoreUri: parts.oscoreUri,
    credentials,
    guard,
    clock,
    entropy,
    events,
    livesElsewhere: parts.livesElsewhere,
    isJoined: (deviceId, remote, store) => parts.joins.isJoined(deviceId, 'OMA-DM', remote, store),
  });
  const compose: Compose = (local) => {
    const resources = [
      durably(database, bootstrapServer.resource(local)),
      durably(database, sessions.resource(local)),
      transparent.resource(local.bound),
      parts.uplinkStatus.resource(local),
      imageResource(parts.image, (request) => {
        const { remote } = request;
        const deviceId = parts.tickets.deviceOf(request);
        // Another port of the device, or the same one after a restart. Elsewhere the address may be forged.
        if (deviceId !== undefined && locator.isHost(deviceId, remote))
          local.endpoint().vouch(remote, deviceId);
        return deviceId !== undefined || locator.isAttachedAt(remote);
      }),
    ];
    const allowed: AccessParts = {
      isPlainAllowed: config.coap['insecure-plain-coap'],
      isSecure: local.scheme === 'coaps',
      secureUri: (path) => parts.secureUri(local, path),
      refused: ({ address, identity }, reason) =>
        events.emit('coap.refused', { peer: address, reason, ...(identity !== undefined && { identity }) }),
    };
    const forClients = { ...allowed, isPlainAllowed: config.lwm2m?.['insecure-no-security'] ?? false };
    const forParent = {
      ...allowed,
      isPlainAllowed: config.parent !== undefined && !isSecureUri(config.parent.uri),
    };
    const router = new Router([
      ...(parts.notifications ? [restricted(parts.notifications, forParent)] : []),
      ...resources.map((resource) => restricted(resource, allowed)),
      ...(parts.lwm2m?.resources(local) ?? []).map((resource) =>
        durably(database, restricted(resource, forClients)),
      ),
    ]);
    return new Blockwise(router.handle, clock).handle;
  };
  const http =
    config.http &&
    new HttpBinding({
      settings: httpSettings(config.http, gatewayId),
      tls: live.current.http,
      sessions,
      bootstrapServer,
      guard,
      admission: parts.admission,
      forward: (up) => transparent.forward(up),
      image: (uri) => parts.tickets.served(uri),
      heard: (deviceId, uri) => parts.addresses.heardOverHttp(deviceId, uri),
      settled: () => database.settled(),
      events,
    });
  return { compose, http };
}

/**
 * Successful responses of the resource leave when what they promise is durable. What promises nothing is served on a disk that
 * takes no writes: discovery, the tunnel, images, the state of the uplink, challenges, and other errors.
 */
function durably(database: Database, resource: Resource): Resource {
  const wait =
    (handle: Handler): Handler =>
    (request) => {
      const reply = handle(request);
      if (!(reply instanceof Promise) && database.isSettled) return reply;
      return Promise.resolve(reply).then(async (response) => {
        if (response && isSuccess(response.code)) await database.settled();
        return response;
      });
    };
  const methods = Object.entries(resource.methods).map(([name, handle]) => [name, wait(handle)]);
  return { ...resource, methods: Object.fromEntries(methods) };
}
