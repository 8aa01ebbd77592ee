import { type AdmissionLimits, admissionDefaults } from '../base/admission.ts';
import type { Wall } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import { type Events, noEvents } from '../base/events.ts';
import type { Rate } from '../base/token-buckets.ts';
import { tellWeakSecrets } from '../base/weak-secrets.ts';
import { keyOctets, parametersOf } from '../wire/secure/oscore/config.ts';
import { OscoreContexts } from '../wire/secure/oscore/contexts.ts';
import { factoryContext, factoryIdentity } from '../wire/secure/transport-keys.ts';
import type { GatewayConfig } from './config.ts';
import { oscoreDevices } from './device-config.ts';
import type { ConfiguredContext } from './southbound/device-contexts.ts';
import type { HttpSettings } from './southbound/http-binding.ts';
import type { FactorySecret, FactorySecrets } from './southbound/pre-shared-keys.ts';
import type { GatewayState } from './state.ts';
import type { Credentials } from './store/credentials.ts';

/**
 * Puts the accounts that the configuration gives for devices among the credentials, and deletes those that it no longer
 * gives. Tells of short secrets. Nonces continue from the last session.
 * @throws {PosternError} `full`
 */
export function knowManualDevices({ http }: GatewayConfig, credentials: Credentials, events: Events): void {
  const none = new Uint8Array();
  const devices = http?.device ?? [];
  tellWeakSecrets(devices, events);
  const given = new Set(devices.map(({ id }) => id));
  for (const { deviceId, origin } of credentials.list())
    if (origin === 'manual' && !given.has(deviceId)) credentials.delete(deviceId);
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
}

/**
 * Deletes the credentials of devices that the configuration no longer lists, where they are from the local bootstrap, and the keys and proofs of LwM2M clients that it no longer lists and that have not joined: who takes a device from the list revokes it.
 * @throws {PosternError} `storage`
 */
export function forgetUnlisted(
  { bootstrap, lwm2m }: GatewayConfig,
  { credentials, pins, registrations }: Pick<GatewayState, 'credentials' | 'pins' | 'registrations'>,
  events: Events,
): void {
  const listed = new Set(bootstrap.device.map(({ id }) => id));
  const clients = new Set(lwm2m?.device.map(({ id }) => id));
  const known = credentials.list().map(({ deviceId }) => deviceId);
  for (const deviceId of new Set([...known, ...credentials.keys.devices()])) {
    const origin = credentials.get(deviceId)?.origin;
    // Only the key of an LwM2M client is without a credential.
    const isClient = clients.has(deviceId) || pins.get(deviceId)?.protocol === 'LwM2M';
    if (origin === undefined ? isClient : origin !== 'local' || listed.has(deviceId)) continue;
    credentials.delete(deviceId);
    events.emit('device.unlisted', { device: deviceId });
  }
  for (const deviceId of registrations?.proven ?? [])
    if (!clients.has(deviceId)) registrations?.forget(deviceId);
}

/**
 * What devices have from the factory, by the identity of its key: the secrets of `bootstrap.device` and `lwm2m.device`.
 * @throws {PosternError} `configuration` when two devices have the same identity
 */
export function factorySecrets({ bootstrap, lwm2m, coaps }: GatewayConfig): FactorySecrets {
  const secrets = new Map<string, FactorySecret>();
  const taken = new Set(coaps?.device.map(({ identity }) => identity));
  for (const { id, 'factory-secret': secret } of [...bootstrap.device, ...(lwm2m?.device ?? [])])
    if (secret !== undefined) secrets.set(factoryIdentity(id), { deviceId: id, secret });
  for (const { id, 'bootstrap-identity': identity = id, 'bootstrap-key': secret } of lwm2m?.device ?? []) {
    if (secret === undefined) continue;
    if (secrets.has(identity) || taken.has(identity))
      throw new PosternError('configuration', `lwm2m.device: ${identity} is the identity of another key too`);
    secrets.set(identity, { deviceId: id, secret, isKey: true });
  }
  return secrets;
}

/** The pre-shared keys of devices, by identity. */
export const deviceKeys = ({ coaps }: GatewayConfig): ReadonlyMap<string, Uint8Array> =>
  new Map(coaps?.device.map(({ identity, key }) => [identity, keyOctets(key)]));

/**
 * The security contexts of devices: those of `oscore.device`, and those that factory secrets give.
 * @throws {PosternError} `configuration` when two of them would use the same nonces, or could not be told apart
 */
export function deviceContexts(config: GatewayConfig): ReadonlyMap<string, ConfiguredContext> {
  const contexts = new Map<string, ConfiguredContext>();
  const store = { get: () => undefined, put: () => {}, settled: async () => {} };
  const together = new OscoreContexts({ clock: { wall: () => 0 as Wall }, events: noEvents, store });
  const add = (name: string, context: ConfiguredContext) => {
    const why = together.add(name, context.parameters);
    if (why !== undefined) throw new PosternError('configuration', `oscore.device: ${name}: ${why}`);
    contexts.set(name, context);
  };
  for (const { identity, 'bootstrap-only': isFactory, ...device } of config.oscore?.device ?? [])
    add(identity, {
      parameters: parametersOf(device),
      owner: { identity, ...(isFactory && { credential: 'factory' }) },
    });
  for (const { id, 'factory-secret': secret } of oscoreDevices(config))
    if (secret !== undefined)
      add(factoryIdentity(id), {
        parameters: factoryContext(secret, id),
        owner: { identity: id, credential: 'factory' },
      });
  return contexts;
}

/** Limits of the entry. A burst grows with its rate. */
export function admissionLimits(admission: GatewayConfig['admission']): Partial<AdmissionLimits> {
  const { address, prefix, newcomers, regulars, known, allKnown, proven, allProven } = admissionDefaults;
  const { multicastPrefix, allMulticast } = admissionDefaults;
  const scaled = (rate: number, usual: Rate, base = usual): Rate => ({
    rate: (rate * usual.rate) / base.rate,
    burst: Math.max(1, (rate * usual.burst) / base.rate),
  });
  const { strangers, multicast } = admission;
  return {
    address: scaled(admission.address, address),
    prefix: scaled(admission.prefix, prefix),
    newcomers: scaled(strangers, newcomers),
    regulars: scaled(strangers, regulars, newcomers),
    known: scaled(admission.known, known),
    allKnown: scaled(admission['all-known'], allKnown),
    proven: scaled(admission.proven, proven),
    allProven: scaled(admission.proven, allProven, proven),
    multicastPrefix: scaled(multicast, multicastPrefix, allMulticast),
    allMulticast: scaled(multicast, allMulticast),
  };
}

/** `host:port` or `[address]:port`, apart. */
export function advertised(text: string | undefined): { address: string; port: number } | undefined {
  if (text === undefined) return undefined;
  const at = text.lastIndexOf(':');
  return { address: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
}

/** Where images are kept, and how many. */
export function imageSettings({ gateway, images }: GatewayConfig) {
  const { state } = gateway;
  const directory = images.directory ?? (state === ':memory:' ? undefined : `${state}.images`);
  return { directory, quota: images.quota * 1024 * 1024, count: images.count };
}

export function httpSettings(http: NonNullable<GatewayConfig['http']>, gatewayId: string): HttpSettings {
  const { host, port, path } = http;
  return {
    host,
    port,
    path,
    bootstrapPath: http['bootstrap-path'],
    tunnelPath: http['tunnel-path'],
    serverId: http['server-id'] ?? gatewayId,
    allowPlain: http['insecure-plain-http'],
  };
}
