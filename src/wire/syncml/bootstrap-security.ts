import { PosternError } from '../../base/errors.ts';
import { bootstrapMac, sameBytes } from './digest.ts';

/** How a bootstrap is protected (OMA DM security 1.2.1, section 5.7.2): by a secret of network and device, a PIN, or both. */
export type BootstrapProtection = 'NETWORKID' | 'USERPIN' | 'USERPIN_NETWORKID';

/** Also as Client Provisioning calls and numbers them (OMA Provisioning Bootstrap 1.1, section 5.2.4). */
const spellings: Readonly<Record<string, BootstrapProtection>> = {
  ...{ NETWORKID: 'NETWORKID', NETWPIN: 'NETWORKID', '0': 'NETWORKID' },
  ...{ USERPIN: 'USERPIN', '1': 'USERPIN' },
  ...{ USERPIN_NETWORKID: 'USERPIN_NETWORKID', USERNETWPIN: 'USERPIN_NETWORKID', '2': 'USERPIN_NETWORKID' },
};

/** What a device shares with whom it may be bootstrapped by. */
export interface BootstrapSecrets {
  /** Of the network and the device: here the secret that the device left its factory with. */
  readonly network?: string | undefined;
  /** That a user was told. */
  readonly pin?: string | undefined;
}

export interface BootstrapSecurity {
  readonly protection: BootstrapProtection;
  /** 40 hexadecimal digits. */
  readonly mac: string;
}

/** The key; none when a secret for it is missing. */
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

/** The strongest protection that these secrets allow. */
export const protectionFor = ({ network, pin }: BootstrapSecrets): BootstrapProtection =>
  network === undefined ? 'USERPIN' : pin === undefined ? 'NETWORKID' : 'USERPIN_NETWORKID';

/**
 * Parameters of the bootstrap's content type.
 * @throws {PosternError} `configuration` when there is no secret at all
 */
export function protectBootstrap(body: Uint8Array, secrets: BootstrapSecrets): string {
  const protection = protectionFor(secrets);
  const key = keyOf(protection, secrets);
  if (key === undefined) throw new PosternError('configuration', 'no secret to protect a bootstrap with');
  return `SEC=${protection}; MAC=${bootstrapMac(key, body)}`;
}

/** Reads `SEC=…; MAC=…`, behind a media type or alone; none when it is no protection that DM knows. */
export function parseBootstrapSecurity(parameters: string): BootstrapSecurity | undefined {
  const protection =
    spellings[(/(?:^|[;\s])SEC\s*=\s*"?([A-Z0-9_]+)"?/i.exec(parameters)?.[1] ?? '').toUpperCase()];
  const mac = /(?:^|[;\s])MAC\s*=\s*"?([0-9A-F]{40})"?\s*(?:;|$)/i.exec(parameters)?.[1];
  return protection && mac ? { protection, mac: mac.toUpperCase() } : undefined;
}

/** @throws {PosternError} `unauthorized` when it does not come from one who knows the secrets, or was changed */
export function verifyBootstrap(body: Uint8Array, parameters: string, secrets: BootstrapSecrets): void {
  const security = parseBootstrapSecurity(parameters);
  const key = security && keyOf(security.protection, secrets);
  if (!security || key === undefined || !sameBytes(security.mac, bootstrapMac(key, body)))
    throw new PosternError('unauthorized', 'the bootstrap has no valid MAC');
}
