/** One piece of work of an honest device. */
export interface Deed {
  readonly deed: 'session' | 'bootstrap' | 'registration' | 'image' | 'protected';
  /** 0 for an image: its time is that of the order. */
  readonly milliseconds: number;
  readonly ok: boolean;
  readonly device: string;
  /** Why it failed. */
  readonly reason?: string;
}

/** How many devices beside the others speak CoAP over DTLS, and the identity of each. */
export const protectedDevices = (devices: number): string[] =>
  Array.from({ length: Math.max(2, Math.ceil(devices / 10)) }, (_, at) => `secure-${at}`);

/** Whether the honest device of this number is an LwM2M client. */
export const isLwm2m = (at: number): boolean => at % 5 === 4;
