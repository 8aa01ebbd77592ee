import { asPosternError } from '../../base/errors.ts';
import { DmStatus } from '../../dm/status.ts';
import type { TriggerOrder } from '../../mo/trigger-order.ts';
import type { Attempt, AttemptOptions } from './campaign-parts.ts';

/**
 * Milliseconds until a device that did not answer is tried again, doubling from `first` to `cap`. A device that is
 * heard is tried at once.
 */
const retry = { first: 30_000, cap: 900_000 } as const;

const ended = (status: number): Attempt => ({ kind: 'ended', outcome: { status, parts: [] } });

/**
 * Delivers the Package #0 of a trigger (GwMO, GwEdTrigger) to one device. Asks for another attempt when the device
 * could not be reached.
 */
export async function triggerOne(
  deliver: (device: string, server: string, package0: Uint8Array | undefined) => Promise<void>,
  device: string,
  { server, notifications }: TriggerOrder,
  { attempts }: Pick<AttemptOptions, 'attempts'>,
): Promise<Attempt> {
  try {
    await deliver(device, server, notifications.get(device));
    return ended(DmStatus.Ok);
  } catch (thrown) {
    const { code, dmStatus } = asPosternError(thrown);
    // The device sleeps or has not come here yet. Any other error is its answer, so another attempt would not help.
    if (code === 'timeout' || code === 'notFound')
      return { kind: 'later', after: Math.min(retry.cap, retry.first * 2 ** attempts) };
    return ended(dmStatus);
  }
}
