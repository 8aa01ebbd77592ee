import type { Events } from './events.ts';

/** Characters below which a secret can be found by trying, where somebody has overheard a proof. */
export const strongSecret = 8;

interface Secrets {
  readonly id: string;
  readonly 'client-secret': string;
  readonly 'server-secret': string;
}

/** Tells of each device with a short secret. Stock clients have the secrets that they have, so they are taken. */
export function tellWeakSecrets(devices: readonly Secrets[], events: Events): void {
  for (const device of devices) {
    const weak = (['client-secret', 'server-secret'] as const).filter(
      (key) => device[key].length < strongSecret,
    );
    if (weak.length === 0) continue;
    const reason = `${weak.join(' and ')} of less than ${strongSecret} characters`;
    events.emit('config.weak-secret', { device: device.id, reason });
  }
}
