import { readFileSync } from 'node:fs';
import { PosternError } from '../base/errors.ts';
import type { MqttSettings } from '../wire/tunnel/mqtt-link.ts';
import type { GatewayConfig } from './config.ts';
import { readSigningKey } from './modes/image-cache.ts';
import type { DeviceSchemes } from './southbound/device-sessions.ts';
import type { HttpSettings } from './southbound/http-binding.ts';
import type { Credentials } from './store/credentials.ts';

/**
 * Puts the accounts that the configuration gives for devices among the credentials. Their nonces continue from the last
 * session. Returns by which schemes each device and the gateway prove themselves to each other.
 */
export function knowManualDevices(
  devices: NonNullable<GatewayConfig['http']>['device'],
  credentials: Credentials,
): ReadonlyMap<string, DeviceSchemes> {
  const none = new Uint8Array();
  for (const device of devices) {
    const known = credentials.get(device.id);
    const account = {
      deviceId: device.id,
      clientName: device['client-name'] ?? device.id,
      clientSecret: device['client-secret'],
      serverSecret: device['server-secret'],
      origin: 'manual' as const,
    };
    const isSame =
      known?.clientSecret === account.clientSecret && known.serverSecret === account.serverSecret;
    // A start without changes writes nothing, so it needs no room on the disk.
    if (isSame && known.clientName === account.clientName && known.origin === account.origin) continue;
    credentials.put({
      clientNonce: none,
      serverNonce: none,
      attached: false,
      ...(isSame && known),
      ...account,
    });
  }
  return new Map(
    devices.map((device) => [device.id, { client: device['client-auth'], server: device['server-auth'] }]),
  );
}

/** `host:port` or `[address]:port`, apart. */
export function advertised(text: string | undefined): { address: string; port: number } | undefined {
  if (text === undefined) return undefined;
  const at = text.lastIndexOf(':');
  return { address: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
}

/** @throws {PosternError} `configuration` when a key cannot be read */
export function imageSettings({ gateway, images }: GatewayConfig) {
  const { state } = gateway;
  const directory = images.directory ?? (state === ':memory:' ? undefined : `${state}.images`);
  return {
    directory,
    quota: images.quota * 1024 * 1024,
    count: images.count,
    ca: images.ca === undefined ? undefined : readPem(images.ca, 'images.ca'),
    signingKeys: images['signing-keys'].map((file) =>
      readSigningKey(readPem(file, 'images.signing-keys'), file),
    ),
  };
}

/** @throws {PosternError} `configuration` */
export function readPem(file: string, key: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new PosternError('configuration', `${key}: ${file} cannot be read`, { cause });
  }
}

export function httpSettings(http: NonNullable<GatewayConfig['http']>, gatewayId: string): HttpSettings {
  const { host, port, path, 'tls-cert': cert, 'tls-key': key } = http;
  return {
    host,
    port,
    path,
    bootstrapPath: http['bootstrap-path'],
    tunnelPath: http['tunnel-path'],
    serverId: http['server-id'] ?? gatewayId,
    allowPlain: http['insecure-plain-http'],
    ...(cert !== undefined && key !== undefined && { tls: { cert, key } }),
  };
}

export function mqttSettings({ protocol, ...rest }: NonNullable<GatewayConfig['mqtt']>): MqttSettings {
  return { ...rest, protocol: protocol === 'auto' ? 'auto' : protocol === '5' ? 5 : 4 } as MqttSettings;
}
