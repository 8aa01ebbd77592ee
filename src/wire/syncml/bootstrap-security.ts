import { PosternError } from '../../base/errors.ts';
import { bootstrapMac, sameBytes } from './digest.ts';

/**
 * Key by which a bootstrap is protected (OMA DM security 1.2.1, section 5.7.2): a secret of network and device, a PIN of
 * the user, or both.
 */
export type BootstrapProtection = 'NETWORKID' | 'USERPIN' | 'USERPIN_NETWORKID';

/** Values of SEC: those of DM, and the names and numbers of OMA Provisioning Bootstrap 1.1, section 5.2.4. */
const spellings: Readonly<Record<string, BootstrapProtection>> = {
  ...{ NETWORKID: 'NETWORKID', NETWPIN: 'NETWORKID', '0': 'NETWORKID' },
  ...{ USERPIN: 'USERPIN', '1': 'USERPIN' },
  ...{ USERPIN_NETWORKID: 'USERPIN_NETWORKID', USERNETWPIN: 'USERPIN_NETWORKID', '2': 'USERPIN_NETWORKID' },
};

/** Secrets that a device shares with those that may bootstrap it. */
export interface BootstrapSecrets {
  /** Secret of the network and the device. Here it is the factory secret of the device. */
  readonly network?: string | undefined;
  /** PIN that the user was given. */
  readonly pin?: string | undefined;
}

/** The parameters SEC and MAC of a bootstrap's content type. */
export interface BootstrapSecurity {
  readonly protection: BootstrapProtection;
  /** 40 hexadecimal digits in upper case. */
  readonly mac: string;
}

/** The key of a protection. `undefined` when a secret for it is missing. */
function keyOf(protection: BootstrapProtection, { network, pin }: BootstrapSecrets): string | undefined {
  switch (protection) {
    case 'NETWORKID':
      return network;
    case 'USERPIN':
      return pin;
    case 'USERPIN_NETWORKID':
      return network === undefined || pin === undefined ? undefined : `${pin}:${network}`;
  }
}

/** The protection that uses all of these secrets. */
export const protectionFor = ({ network, pin }: BootstrapSecrets): BootstrapProtection =>
  network === undefined ? 'USERPIN' : pin === undefined ? 'NETWORKID' : 'USERPIN_NETWORKID';

/**
 * Computes the MAC of a bootstrap. Returns the parameters of its content type, `SEC=…; MAC=…`.
 * @throws {PosternError} `configuration` when there is no secret at all
 */
export function protectBootstrap(body: Uint8Array, secrets: BootstrapSecrets): string {
  const protection = protectionFor(secrets);
  const key = keyOf(protection, secrets);
  if (key === undefined)
    throw new PosternError('configuration', 'neither a secret nor a PIN to protect the bootstrap');
  return `SEC=${protection}; MAC=${bootstrapMac(key, body)}`;
}

/**
 * Reads `SEC=…; MAC=…`, alone or after a media type. Returns `undefined` when a parameter is missing or SEC has an
 * unknown value.
 */
export function parseBootstrapSecurity(parameters: string): BootstrapSecurity | undefined {
  const protection =
    spellings[(/(?:^|[;\s])SEC\s*=\s*"?([A-Z0-9_]+)"?/i.exec(parameters)?.[1] ?? '').toUpperCase()];
  const mac = /(?:^|[;\s])MAC\s*=\s*"?([0-9A-F]{40})"?\s*(?:;|$)/i.exec(parameters)?.[1];
  return protection && mac ? { protection, mac: mac.toUpperCase() } : undefined;
}

/**
 * Verifies the MAC of a bootstrap.
 * @param body the bootstrap as it was received
 * @param parameters `SEC=…; MAC=…`
 * @throws {PosternError} `unauthorized` when the MAC is wrong or missing, or a secret for it is missing
 */
export function verifyBootstrap(body: Uint8Array, parameters: string, secrets: BootstrapSecrets): void {
  const security = parseBootstrapSecurity(parameters);
  const key = security && keyOf(security.protection, secrets);
  if (!security || key === undefined || !sameBytes(security.mac, bootstrapMac(key, body)))
    throw new PosternError(
      'unauthorized',
      'the bootstrap has no valid MAC: is the factory secret, or the PIN, another one at the bootstrap server?',
    );
}
