/** One piece of work of an honest party. */
export interface Deed {
  /**
   * `session` and `registration`: with the gateway. `http`: a first message over HTTP, up to its
   * challenge. `tunnel`: a session of a device with the DM server. `order`: a session that
   * an operator asks for at the head-end's API. `protected`: a handshake over DTLS, and requests after it. `package`: a package
   * for the DM server over DTLS. `child`: what a child gateway reports of its devices. `api`: a question of the operator there.
   * `newcomer`: the first attachment of a device.
   */
  readonly deed:
    | 'session'
    | 'bootstrap'
    | 'registration'
    | 'image'
    | 'discovery'
    | 'protected'
    | 'package'
    | 'child'
    | 'http'
    | 'tunnel'
    | 'order'
    | 'api'
    | 'newcomer';
  /** 0 for an image: its time is that of the order. */
  readonly milliseconds: number;
  readonly ok: boolean;
  readonly device: string;
  /** Why it failed. */
  readonly reason?: string;
}

/** Work that needs the DM server, and the broker before it. */
export const needsServer: ReadonlySet<Deed['deed']> = new Set(['image', 'tunnel', 'package', 'order', 'api']);

/** Whether the honest device of this number is an LwM2M client. */
export const isLwm2m = (at: number): boolean => at % 5 === 4;
/** Whether the honest device of this number has an account for the DM server. It keeps its state. */
export const hasServer = (at: number): boolean => at % 5 === 3;
/** Whether the honest device of this number speaks OSCORE. It has no account for the DM server, and forgets all at each bootstrap. */
export const hasOscore = (at: number): boolean => at % 5 === 1;
/** The security context of the honest device of this number, as the device has it. */
export const oscoreOf = (at: number) => ({
  'master-secret': `master-secret-of-device-${at}`,
  'sender-id': `01${at.toString(16).padStart(4, '0')}`,
  'recipient-id': '00',
});
/** Honest devices that look for the gateway by multicast again and again. */
export const discoverers = 10;

/** Identities of honest devices that speak CoAP over DTLS. */
export const protectedDevices: readonly string[] = Array.from({ length: 10 }, (_, at) => `secure-${at}`);

/** Identity of a device whose datagrams the attacker reads, repeats and overtakes. */
export const overheard = 'overheard';

/** Honest child gateways, and one that lies. */
export const honestChildren: readonly string[] = ['gw-child-0', 'gw-child-1'];
export const hostileChild = 'gw-child-hostile';
/** The device that stays attached behind an honest child; one that comes and goes. */
export const behind = (child: string): string => `urn:dev:behind:${child}`;
export const wandering = (child: string): string => `urn:dev:wandering:${child}`;

/** Honest devices that a bootstrap gives their security contexts of OSCORE, again and again. */
export const bootstrapped: readonly string[] = Array.from(
  { length: 5 },
  (_, at) => `urn:dev:bootstrapped:${at}`,
);
/** Devices that misuse the contexts which bootstraps gave them: one renews its context, the other leaves. */
export const renewer = 'urn:dev:renewer';
export const leaver = 'urn:dev:leaver';

/** Where an honest party is that speaks CoAP over DTLS: its association has this address and port. */
export interface KeyedPlace {
  readonly id: string;
  readonly address: string;
  readonly port: number;
}

/**
 * Places of the protected devices and of the children, which share the addresses of honest devices.
 * @param addresses of IPv4
 * @param firstPort 0 for any free ports
 */
export const keyedPlaces = (addresses: readonly string[], firstPort: number): KeyedPlace[] =>
  [...protectedDevices, ...honestChildren].map((id, at) => ({
    id,
    address: addresses[at % addresses.length]!,
    port: firstPort === 0 ? 0 : firstPort + at,
  }));

/** ID of a device that attaches for the first time during an attack. */
export const newcomerId = (at: number): string => `urn:dev:newcomer:${at}`;
/** The image from which all devices update during each attack. */
export const image = 'firmware';

/** Newcomers that the gateway expects. */
export const newcomers = 60;
