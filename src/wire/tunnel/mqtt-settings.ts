import type { IClientOptions } from 'mqtt';
import { demandTls, readPem } from '../../base/pem.ts';

/** How to reach and to trust an MQTT broker. */
export interface MqttSettings {
  /** `mqtt://host:1883` or `mqtts://host:8883`. */
  readonly url: string;
  /** Protocol level: 5, 4 (MQTT 3.1.1), or `auto`, which changes from 5 to 4 where the broker refuses 5. */
  readonly protocol: 'auto' | 4 | 5;
  readonly username?: string;
  readonly password?: string;
  /** Seconds of silence after which a keep-alive is sent. Default 30. */
  readonly keepalive?: number;
  /** Path of a PEM file: the CA that issued the broker's certificate. */
  readonly ca?: string;
  /** Path of a PEM file: this client's certificate. */
  readonly cert?: string;
  /** Path of a PEM file: the private key of `cert`. */
  readonly key?: string;
  /** Reads the file of `key`, where it may be encrypted. */
  readonly readKey?: (file: string) => Buffer;
  /** Table of the configuration that names `cert` and `key`: `mqtt` by default, `enrolment` for a claim. */
  readonly table?: string;
  /** Largest packet that the broker takes, in bytes, if the broker does not say so itself. */
  readonly maxPacket?: number;
}

/** The table `mqtt` of a configuration, after its check. */
interface MqttSection extends Omit<MqttSettings, 'protocol' | 'maxPacket' | 'readKey'> {
  readonly protocol: 'auto' | '3.1.1' | '5';
  readonly 'max-packet'?: number;
}

/** The settings that a configuration's table `mqtt` gives. */
export const mqttSettings = (section: { readonly [K in keyof MqttSection]: MqttSection[K] | undefined }) => {
  const { protocol, 'max-packet': maxPacket, ...rest } = section;
  return {
    ...rest,
    protocol: protocol === 'auto' ? 'auto' : protocol === '5' ? 5 : 4,
    ...(maxPacket !== undefined && { maxPacket }),
  } as MqttSettings;
};

const defaultPorts = { mqtt: 1883, tcp: 1883, mqtts: 8883, ssl: 8883, ws: 80, wss: 443 } as const;

/** The parts of a broker's URL as options. Given a URL, mqtt.js would use a deprecated parser. */
export function endpointOf(url: string): IClientOptions {
  const { protocol, hostname, port, pathname, username, password } = new URL(url);
  const name = protocol.slice(0, -1) as keyof typeof defaultPorts;
  return {
    protocol: name,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? defaultPorts[name] : Number(port),
    ...(pathname.length > 1 && { path: pathname }),
    ...(username !== '' && { username: decodeURIComponent(username) }),
    ...(password !== '' && { password: decodeURIComponent(password) }),
  };
}

/**
 * Reads the TLS files. They are read for each attempt to connect, because certificates are renewed while Postern runs.
 * @throws {PosternError} `configuration` when a file cannot be read
 */
export const tlsFiles = ({ ca, cert, key, readKey, table = 'mqtt' }: MqttSettings): IClientOptions => ({
  ...(ca !== undefined && { ca: readPem(ca, 'mqtt.ca') }),
  ...(cert !== undefined && { cert: readPem(cert, `${table}.cert`) }),
  ...(key !== undefined && { key: readPem(key, `${table}.key`, readKey) }),
});

/**
 * Checks that the TLS files can be read and used.
 * @throws {PosternError} `configuration`
 */
export function demandUsable(settings: MqttSettings): void {
  const files = tlsFiles(settings);
  const at = (name: 'ca' | 'cert' | 'key') => {
    const file = settings[name];
    const key = name === 'ca' ? 'mqtt.ca' : `${settings.table ?? 'mqtt'}.${name}`;
    return file === undefined ? undefined : { key, file, pem: String(files[name]) };
  };
  demandTls({ ca: at('ca'), cert: at('cert'), key: at('key') });
}
