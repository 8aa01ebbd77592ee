import { PosternError } from '../base/errors.ts';
import { certificatesOf, readPem } from '../base/pem.ts';
import type { GatewayConfig } from './config.ts';
import { commonNameOf } from './northbound/board-identity.ts';

/** A certificate for the broker that has another name than its gateway. */
export interface OtherName {
  /** The file of `mqtt.cert`. */
  readonly file: string;
  /** Both names, for a person. */
  readonly reason: string;
}

/**
 * Whether the certificate by which a gateway logs in at its broker has no name that is `gateway.id`. Topics have the gateway's ID in
 * them, and brokers often take the common name for the user and let this user have its own topics alone. A broker may know the
 * name by other rules, so this is no error. Undefined where a name fits, and where the gateway logs in by a user name.
 */
export function otherBrokerName({
  gateway,
  mqtt,
}: {
  readonly gateway: Pick<GatewayConfig['gateway'], 'id'>;
  readonly mqtt?: { readonly [K in 'cert' | 'username']?: string | undefined } | undefined;
}): OtherName | undefined {
  if (mqtt?.cert === undefined || mqtt.username !== undefined) return undefined;
  const file = mqtt.cert;
  try {
    const certificate = certificatesOf(readPem(file, 'mqtt.cert'))[0]!;
    const common = commonNameOf(certificate);
    const others = certificate.subjectAltName?.split(', ') ?? [];
    if (common === gateway.id || others.some((name) => name.slice(name.indexOf(':') + 1) === gateway.id))
      return undefined;
    const names = [...(common === undefined ? [] : [`CN=${common}`]), ...others].join(', ') || 'none';
    return { file, reason: `its name is ${names}, and gateway.id is ${gateway.id}` };
  } catch (thrown) {
    // What is wrong with the file is told by whoever uses it.
    if (thrown instanceof PosternError) return undefined;
    throw thrown;
  }
}
