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
