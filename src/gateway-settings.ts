import type { GatewayConfig } from './gateway-config.ts';
import type { MqttSettings } from './northbound/mqtt-link.ts';
import type { DeviceSchemes } from './southbound/device-sessions.ts';
import type { HttpSettings } from './southbound/http-binding.ts';
import type { Credentials } from './store/credentials.ts';

/**
 * Puts the accounts of devices that were made by hand among the credentials; nonces go on from the last session. Answers
 * with how each may prove itself.
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

export function mqttSettings({ protocol, ...rest }: GatewayConfig['mqtt']): MqttSettings {
  return { ...rest, protocol: protocol === 'auto' ? 'auto' : protocol === '5' ? 5 : 4 } as MqttSettings;
}
