/** A value at a time in minutes. */
export interface Sample {
  readonly minute: number;
  readonly value: number;
}

/** Slope of the line that fits samples best (least squares), per hour. 0 for fewer than two. */
export function slopePerHour(samples: readonly Sample[]): number {
  const mean = (of: (sample: Sample) => number) =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const [minute, value] = [mean((sample) => sample.minute), mean((sample) => sample.value)];
  const spread = samples.reduce((sum, sample) => sum + (sample.minute - minute) ** 2, 0);
  if (samples.length < 2 || spread === 0) return 0;
  const common = samples.reduce((sum, sample) => sum + (sample.minute - minute) * (sample.value - value), 0);
  return (common / spread) * 60;
}

/**
 * Length of a soak in minutes from which its slopes have targets. After its last start a gateway that is spoken to by each of
 * 2,000 devices about every five minutes learns of all of them again, and its caches fill to their bounds. That takes a
 * quarter of an hour; shorter runs measure it as growth.
 */
export const longEnough = 40;

/** The parts of a soak, in minutes from its begin: restarts of the gateway until `restarts`, figures from `measured`. */
export const partsOf = (minutes: number): { readonly restarts: number; readonly measured: number } => ({
  restarts: minutes / 4,
  measured: minutes / 2,
});

/** Largest slopes per hour. `live` is what collections leave, which rises and falls less than RSS does. */
export const slopeLimits = { megabytes: 12, liveMegabytes: 4, handles: 20, storeMegabytes: 8 } as const;
