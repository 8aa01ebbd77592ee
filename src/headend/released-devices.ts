import type { Parties } from './parties.ts';
import type { UnreachableDevices } from './unreachable-devices.ts';

export interface ReleaseParts {
  readonly parties: Parties;
  readonly unreachableDevices: UnreachableDevices;
}

/** The board of a gateway is gone: no device is attached to it any more. Returns those that were. Joins the caller's transaction. */
export function releaseDevices(gateway: string, { parties, unreachableDevices }: ReleaseParts): string[] {
  const devices = parties.associations().flatMap((one) => (one.gateway === gateway ? one.device : []));
  for (const device of devices) {
    parties.dissociate(device, gateway);
    unreachableDevices.remove(device);
  }
  return devices;
}
