import type { CoapHabits } from './coap-socket.ts';
import type { Dice } from './dice.ts';
import type { Format } from './lwm2m-values.ts';

/** The habits of an LwM2M client. */
export interface Lwm2mHabits extends CoapHabits {
  readonly version: '1.0' | '1.1' | '1.2';
  readonly lifetime: string | undefined;
  readonly binding: string | undefined;
  /** It asks for queue mode by the parameter `Q`. */
  readonly queue: boolean;
  readonly root: string;
  /** `rt` and `ct` of the root's link. */
  readonly rootLink: string;
  /** It registers objects without their instances too. */
  readonly linksObjects: boolean;
  readonly format: Format;
  readonly draftNumbers: boolean;
  /** What it answers to a format that it does not know. */
  readonly refusal: '4.06' | '4.00' | '4.02' | '5.00';
  readonly hasDiscover: boolean;
  readonly wideIntegers: boolean;
  readonly block: number;
  /** It downloads from a socket of its own. */
  readonly ownDownloads: boolean;
  readonly delivery: number | undefined;
  readonly reboot: 'deregisters' | 'silent' | 'stays';
  /** Its update fails with this result; 1 is success. */
  readonly updateResult: number;
  /** It reboots after a Reset of the update by an empty URI only where it has that. */
  readonly knowsReset: boolean;
  /** How it gets its account: from the factory, by Bootstrap-Request, or by a bootstrap pack. */
  readonly bootstrap: 'factory' | 'request' | 'pack';
  /** Instance of the object Security that has the account of its bootstrap server. */
  readonly ownAt: number;
  /** What it answers to Bootstrap-Discover. */
  readonly discovers: 'with-ssid' | 'without-ssid' | 'nothing';
  /** It says by its Location-Path which instance a Create has made. */
  readonly tellsInstance: boolean;
  /** It updates its registration when it has got or lost an instance. */
  readonly tellsObjects: boolean;
  /** What it answers to composite operations; undefined where it has them. */
  readonly refusesComposite: '4.00' | '4.02' | '4.05' | '5.01' | undefined;
  readonly observes: boolean;
  /** Whether it takes conditions of notifications, and heeds `pmin`. */
  readonly conditions: 'heeds' | 'ignores' | 'refuses';
  readonly notifies: 'confirmable' | 'not-confirmable';
  readonly sends: boolean;
}

export function lwm2mHabits(dice: Dice): Lwm2mHabits {
  const version = dice.pick<Lwm2mHabits['version']>(['1.0', '1.1', '1.2']);
  const bootstrap = dice.pick<Lwm2mHabits['bootstrap']>(['factory', 'factory', 'request', 'pack']);
  const discovers = dice.pick<Lwm2mHabits['discovers']>([
    'with-ssid',
    'with-ssid',
    'without-ssid',
    'nothing',
  ]);
  return {
    version,
    lifetime: dice.pick([undefined, '0', '60', '86400', '4294967295']),
    binding: dice.pick([undefined, 'U', 'UQ']),
    queue: version !== '1.0' && dice.chance(0.2),
    root: dice.pick(['', '/lwm2m', '/a/b']),
    rootLink: dice.pick([
      ';rt="oma.lwm2m"',
      ';rt="oma.lwm2m core.b";ct=11542',
      ';ct="110 112 11542";rt=oma.lwm2m',
    ]),
    linksObjects: dice.chance(0.5),
    format:
      version === '1.0'
        ? dice.pick<Format>(['tlv', 'old-json'])
        : dice.pick<Format>(['tlv', 'senml-json', 'senml-cbor']),
    draftNumbers: version === '1.0' && dice.chance(0.2),
    refusal: dice.pick(['4.06', '4.00', '4.02', '5.00']),
    hasDiscover: dice.chance(0.7),
    wideIntegers: dice.chance(0.3),
    block: dice.pick([16, 64, 256, 1024]),
    ownDownloads: dice.chance(0.6),
    delivery: dice.pick([undefined, 0, 1, 2]),
    reboot: dice.pick(['deregisters', 'silent', 'stays']),
    updateResult: dice.pick([1, 1, 1, 5, 6, 8]),
    knowsReset: dice.chance(0.7),
    answers: dice.pick(['piggybacked', 'separate', 'separate-non']),
    loses: dice.pick([0, 0, 0.15]),
    doubles: dice.pick([0, 0.2]),
    tokenLength: dice.between(1, 8),
    bootstrap,
    // A server to which nothing tells where that account is takes it for the first one.
    ownAt: bootstrap === 'pack' || discovers === 'nothing' ? 0 : dice.between(0, 2),
    discovers,
    tellsInstance: dice.chance(0.7),
    tellsObjects: dice.chance(0.6),
    refusesComposite:
      version === '1.0' ? '4.05' : dice.pick([undefined, undefined, '4.00', '4.02', '4.05', '5.01']),
    observes: dice.chance(0.85),
    conditions: dice.pick(['heeds', 'heeds', 'ignores', 'refuses']),
    notifies: dice.pick(['confirmable', 'not-confirmable']),
    sends: version !== '1.0' && dice.chance(0.5),
  };
}
