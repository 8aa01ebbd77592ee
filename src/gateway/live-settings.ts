import type { KeyObject } from 'node:crypto';
import { overwrite } from '../base/live-config.ts';
import { certificatesOf, demandTls, named, readPem } from '../base/pem.ts';
import type { Certificates } from '../wire/secure/dtls/certificates.ts';
import { demandUsable, type MqttSettings, mqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { coapsCertificates } from './coaps-certificates.ts';
import type { GatewayConfig } from './config.ts';
import { oscoreDevices } from './device-config.ts';
import { identityFiles } from './enrolled-config.ts';
import { readSigningKey } from './modes/image-check.ts';
import type { TunnelDevices } from './modes/tunnel-policy.ts';
import { deviceContexts, deviceKeys, factorySecrets } from './settings.ts';
import type { ConfiguredContext } from './southbound/device-contexts.ts';
import type { DeviceProofs } from './southbound/device-sessions.ts';
import type { TlsIdentity } from './southbound/http-binding.ts';
import type { FactorySecrets } from './southbound/pre-shared-keys.ts';

/** Settings that a reload replaces. The parts of the gateway look them up whenever they need them. */
interface Settings {
  /** Secrets for the bootstrap server, by device ID. */
  readonly bootstrap: ReadonlyMap<string, { readonly network: string; readonly pin: string | undefined }>;
  /** IDs of devices that may be DM Gateways. */
  readonly childGateways: ReadonlySet<string>;
  /** Pre-shared keys for DTLS, by identity. */
  readonly deviceKeys: ReadonlyMap<string, Uint8Array>;
  /** What devices have from the factory, by the identity of the key for DTLS. */
  readonly factorySecrets: FactorySecrets;
  /** Security contexts for OSCORE, by name. */
  readonly deviceContexts: ReadonlyMap<string, ConfiguredContext>;
  /** IDs of the devices to which a bootstrap gives a security context in place of a key for DTLS. */
  readonly oscoreDevices: ReadonlySet<string>;
  /** What certificates and raw public keys of DTLS need. */
  readonly certificates: Certificates | undefined;
  /** Names of devices that have a key in the configuration: for DTLS, or a security context of OSCORE. */
  readonly keyed: ReadonlySet<string>;
  /** All names that the configuration has of devices. */
  readonly listed: ReadonlySet<string>;
  /** Endpoint names of LwM2M clients. */
  readonly clients: ReadonlySet<string>;
  /** How devices with an account made by hand and the gateway prove themselves to each other. */
  readonly proofs: ReadonlyMap<string, DeviceProofs>;
  /** Devices that this gateway does not know and that may use the tunnel. */
  readonly tunnel: TunnelDevices;
  /** Secret for the bootstrap server of the parent gateway. */
  readonly factorySecret: string;
  /** Authorities for download servers of images, as PEM. */
  readonly imageCa: string | undefined;
  readonly signingKeys: readonly KeyObject[];
  /** Authorities for download servers of updates, as PEM. */
  readonly updateCa: string | undefined;
  /** Authority for signers of updates, as PEM. */
  readonly updateAuthority: string;
  /** Authority for their second signers, as PEM. Empty when one signature is enough. */
  readonly updateSecondAuthority: string;
  readonly http: TlsIdentity | undefined;
}

/**
 * Reads what a configuration names.
 * @throws {PosternError} `configuration` when a file cannot be read or does not hold what it should
 */
function settingsOf(config: GatewayConfig): Settings {
  const {
    bootstrap,
    lwm2m,
    'coap-devices': things,
    http,
    images,
    update,
    parent,
    tunnel,
    coaps,
    oscore,
  } = config;
  const authorities = (file: string | undefined, key: string) => {
    if (file === undefined) return undefined;
    const pem = readPem(file, key);
    named({ key, file }, () => certificatesOf(pem));
    return pem;
  };
  const keyed = new Set(
    [coaps?.device ?? [], coaps?.['raw-key'] ?? [], oscore?.device ?? []].flatMap((list) =>
      list.map(({ identity }) => identity),
    ),
  );
  return {
    bootstrap: new Map(
      bootstrap.device.map(({ id, pin, 'factory-secret': network }) => [id, { network, pin }]),
    ),
    childGateways: new Set(bootstrap.device.filter(({ gateway }) => gateway).map(({ id }) => id)),
    deviceKeys: deviceKeys(config),
    factorySecrets: factorySecrets(config),
    deviceContexts: deviceContexts(config),
    oscoreDevices: new Set(oscoreDevices(config).map(({ id }) => id)),
    certificates: coapsCertificates(config),
    listed: new Set([
      ...[bootstrap.device, lwm2m?.device ?? [], things?.device ?? [], http?.device ?? []].flatMap((list) =>
        list.map(({ id }) => id),
      ),
      ...keyed,
    ]),
    keyed,
    clients: new Set(lwm2m?.device.map(({ id }) => id)),
    proofs: new Map(
      http?.device.map((device) => [
        device.id,
        {
          client: device['client-auth'],
          server: device['server-auth'],
          serverName: device['server-name'],
        },
      ]),
    ),
    tunnel: { patterns: tunnel.devices, rate: tunnel['device-rate'] },
    factorySecret: parent?.['factory-secret'] ?? '',
    imageCa: authorities(images.ca, 'images.ca'),
    signingKeys: images['signing-keys'].map((file) =>
      readSigningKey(readPem(file, 'images.signing-keys'), file),
    ),
    updateCa: authorities(update?.ca, 'update.ca'),
    updateAuthority: authorities(update?.authority, 'update.authority') ?? '',
    updateSecondAuthority: authorities(update?.['second-authority'], 'update.second-authority') ?? '',
    http: http && identityOf(http),
  };
}

/** @throws {PosternError} `configuration` */
function identityOf({
  'tls-cert': certFile,
  'tls-key': keyFile,
  'client-ca': ca,
}: NonNullable<GatewayConfig['http']>): TlsIdentity | undefined {
  if (certFile === undefined || keyFile === undefined) return undefined;
  const read = (file: string, key: string) => ({ file, key, pem: readPem(file, key) });
  const cert = read(certFile, 'http.tls-cert');
  const key = read(keyFile, 'http.tls-key');
  const authorities = ca === undefined ? undefined : read(ca, 'http.client-ca');
  demandTls({ cert, key, ca: authorities });
  return { cert: cert.pem, key: key.pem, ...(authorities && { ca: authorities.pem }) };
}

/** The settings in force. */
export class LiveSettings {
  /** Always the same object. The link to the broker reads it at each connection. Empty without a broker. */
  readonly mqtt = {} as MqttSettings;
  #current!: Settings;

  /** @throws {PosternError} `configuration`, as `prepare` */
  constructor(config: GatewayConfig) {
    this.prepare(config)();
  }

  get current(): Settings {
    return this.#current;
  }

  /**
   * Reads what a configuration names, and returns a function that puts it in force.
   * @throws {PosternError} `configuration` when a file cannot be read or does not hold what it should
   */
  prepare(config: GatewayConfig): () => void {
    const next = settingsOf(config);
    const mqtt = config.mqtt && {
      ...mqttSettings(config.mqtt),
      ...(config.enrolment && { readKey: identityFiles(config).read }),
    };
    if (mqtt) demandUsable(mqtt);
    return () => {
      this.#current = next;
      if (mqtt) overwrite(this.mqtt, mqtt);
    };
  }
}
