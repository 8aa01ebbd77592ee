import type { Dice } from './dice.ts';
import { type Writing, writingBy } from './markup.ts';

interface Version {
  readonly dtd: string;
  readonly protocol: string;
}

export type WrongAlert = 'no Item' | 'no Type' | 'no Format' | 'unknown Type' | 'unknown code';

/** The habits of an OMA DM client: all are within the specification, or so usual that a server has to live with them. */
export interface ClientHabits {
  readonly writing: Writing;
  readonly version: Version;
  /** MaxMsgSize and MaxObjSize that its headers announce. */
  readonly maxMsgSize: number | undefined;
  readonly maxObjSize: number | undefined;
  /** The node DevDetail/LrgObj. */
  readonly largeObjects: 'true' | 'false' | 'absent';
  readonly scheme: 'basic' | 'md5';
  /** When it shows its credential. */
  readonly shows: 'always' | 'until-accepted' | 'when-asked';
  /** Its stored nonce is not the server's. */
  readonly forgotNonce: boolean;
  /** Whether it asks the server for a proof. */
  readonly asksServer: boolean;
  /** It names nodes with `./` in front. */
  readonly dots: boolean;
  readonly references: boolean;
  readonly msgRefInResults: boolean;
  readonly metaAt: 'item' | 'command' | 'nowhere';
  readonly sizeAt: 'item' | 'command';
  readonly sizeOfOctets: 'coded' | 'octets';
  readonly metaInEachChunk: boolean;
  /** Characters of a chunk of its large objects. */
  readonly chunk: number;
  /** Commands of one of its messages. */
  readonly perMessage: number;
  readonly resultsFirst: boolean;
  readonly itemsTogether: boolean;
  /** It answers the commands of a package of several messages when the package is complete. */
  readonly answersLate: boolean;
  /** Its requests for the next message are marked Final. */
  readonly alwaysFinal: boolean;
  readonly answersNext: boolean;
  /** How often it sends a message again, as if the answer had been lost. */
  readonly repeats: number;
  readonly noResponse: boolean;
  /** It has a leaf whose value XML cannot hold. */
  readonly holdsNul: boolean;
  /** What is wrong with an alert that it sends. */
  readonly wrongAlert: WrongAlert | undefined;
  /** After this many messages it aborts the session. */
  readonly abortsAfter: number;
}

const versions = [
  { dtd: '1.2', protocol: 'DM/1.2' },
  { dtd: '1.2', protocol: 'DM/1.2' },
  { dtd: '1.2', protocol: 'DM/1.2' },
  { dtd: '1.1', protocol: 'DM/1.1' },
  { dtd: '1.2', protocol: 'DM/1.3' },
] as const;
const strangeVersions = [
  { dtd: '1.9', protocol: 'DM/1.2' },
  { dtd: '1.2', protocol: 'DM/2.0' },
] as const;

export function clientHabits(dice: Dice): ClientHabits {
  const chunk = dice.pick([4, 5, 7, 33, 200, 1501, 20_000]);
  return {
    writing: writingBy(dice),
    version: dice.chance(0.02) ? dice.pick<Version>(strangeVersions) : dice.pick<Version>(versions),
    maxMsgSize: dice.chance(0.2) ? undefined : dice.between(400, 5000),
    maxObjSize: dice.pick([undefined, undefined, 4_294_967_295, dice.between(100, 3000)]),
    largeObjects: dice.pick(['true', 'true', 'false', 'absent']),
    scheme: dice.pick(['basic', 'md5']),
    shows: dice.pick(['always', 'until-accepted', 'when-asked']),
    forgotNonce: dice.chance(0.3),
    asksServer: dice.chance(0.7),
    dots: dice.chance(0.7),
    references: dice.chance(0.5),
    msgRefInResults: dice.chance(0.7),
    metaAt: dice.pick(['item', 'command', 'nowhere']),
    sizeAt: dice.pick(['item', 'command']),
    sizeOfOctets: dice.pick(['coded', 'octets']),
    metaInEachChunk: dice.chance(0.3),
    chunk,
    perMessage: dice.pick([1, 2, 5, 64]),
    resultsFirst: dice.chance(0.2),
    itemsTogether: dice.chance(0.4),
    answersLate: dice.chance(0.3),
    alwaysFinal: dice.chance(0.2),
    answersNext: dice.chance(0.5),
    repeats: dice.pick([0, 0, 0.2]),
    noResponse: dice.chance(0.2),
    holdsNul: dice.chance(0.2),
    wrongAlert: dice.pick([
      undefined,
      undefined,
      undefined,
      undefined,
      'no Item',
      'no Type',
      'no Format',
      'unknown Type',
      'unknown code',
    ]),
    abortsAfter: dice.chance(0.03) ? dice.between(1, 6) : Number.POSITIVE_INFINITY,
  };
}
