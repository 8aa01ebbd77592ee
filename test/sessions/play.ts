/** Something on which the two sides of a session do not agree. */
export interface Disagreement {
  readonly what: string;
  /** The habits of the stock peer. */
  readonly habits: object;
}

export interface PlayedSession {
  /** How it ended, in the words of the stock peer. */
  readonly end: string;
  /** The habits of the stock peer. */
  readonly habits: object;
  readonly disagreements: readonly Disagreement[];
}

/**
 * Plays the session of a seed.
 * @param trace gets what goes over the wire
 * @param given habits that are given, whatever the seed says
 */
export type Play = (seed: number, trace?: (line: string) => void, given?: object) => Promise<PlayedSession>;

/**
 * Plays sessions, one for each seed from `first` on. Returns how often they ended in each way.
 * @param told called for each disagreement, with its seed
 * @param progress called after each session
 */
export async function playAll(
  play: Play,
  first: number,
  count: number,
  told: (seed: number, disagreement: Disagreement) => void,
  progress: (played: number, session: PlayedSession) => void = () => {},
): Promise<ReadonlyMap<string, number>> {
  const ends = new Map<string, number>();
  for (let at = 0; at < count; at++) {
    const session = await play(first + at);
    const { end, disagreements } = session;
    ends.set(end, (ends.get(end) ?? 0) + 1);
    for (const each of disagreements) told(first + at, each);
    progress(at + 1, session);
  }
  return ends;
}
