/** One piece of work of an honest device. */
export interface Deed {
  readonly deed: 'session' | 'bootstrap' | 'registration' | 'image';
  /** 0 for an image: its time is that of the order. */
  readonly milliseconds: number;
  readonly ok: boolean;
  readonly device: string;
  /** Why it failed. */
  readonly reason?: string;
}

/** Whether the honest device of this number is an LwM2M client. */
export const isLwm2m = (at: number): boolean => at % 5 === 4;
