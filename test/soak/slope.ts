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
 * Length of a soak in minutes from which its slopes have targets. In the quarter of an hour after its last start a gateway hears
 * of each of 2,000 devices again, and most of its bounded maps fill, such as the used challenges of bootstrap. Shorter runs
 * measure this as growth.
 */
export const longEnough = 60;

/** The parts of a soak, in minutes from its begin: restarts of the gateway until `restarts`, figures from `measured`. */
export const partsOf = (minutes: number): { readonly restarts: number; readonly measured: number } => ({
  restarts: minutes / 4,
  measured: minutes / 2,
});

/**
 * Largest slopes per hour. `live` is what collections leave, which rises and falls less than RSS does. Filling maps take up to 2 MB
 * of it, and its scatter is 1 MB.
 */
export const slopeLimits = { megabytes: 12, liveMegabytes: 6, handles: 20, storeMegabytes: 8 } as const;
