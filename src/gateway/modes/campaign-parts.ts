import type { Clock } from '../../base/clock.ts';
import type { Events } from '../../base/events.ts';
import type { CampaignOrder } from '../../mo/campaign.ts';
import type { DeviceOutcome } from '../../mo/campaign-result.ts';
import type { CampaignKind, Campaigns } from '../store/campaigns.ts';

/** Outcome of one device. */
export type Outcome = Omit<DeviceOutcome, 'device'>;

/**
 * Result of one attempt at a device.
 * - `ended`: the outcome is final.
 * - `accepted`: the device accepted the order and reports the result later.
 * - `later`: the device could not be reached. It is tried again after `after` milliseconds, or when it is heard.
 */
export type Attempt =
  | { readonly kind: 'ended'; readonly outcome: Outcome }
  | { readonly kind: 'accepted'; readonly outcome: Outcome }
  | { readonly kind: 'later'; readonly after: number };

export interface AttemptOptions {
  /** To be called before the first operation may reach the device. */
  readonly begun: () => void;
  /** To be called when the device does not answer and the attempt waits for it. Another device takes its turn. */
  readonly away: () => void;
  /** Aborted when the gateway stops, or the campaign ends before the device has begun. */
  readonly signal: AbortSignal;
  /** Aborted at the deadline of the campaign. See `ManageOptions`. */
  readonly until: AbortSignal;
  /** Number of earlier attempts at this device since the start of the gateway. */
  readonly attempts: number;
}

/** Events of each kind of campaign. */
export const campaignEvents = {
  fanout: { started: 'fanout.started', ended: 'fanout.ended', unreadable: 'fanout.unreadable' },
  trigger: { started: 'trigger.started', ended: 'trigger.ended', unreadable: 'trigger.unreadable' },
} as const satisfies Record<CampaignKind, object>;

export interface CampaignParts<O extends CampaignOrder> {
  readonly kind: CampaignKind;
  readonly campaigns: Campaigns;
  readonly clock: Clock;
  readonly events: Events;
  /** Reads the order of a campaign from its nodes, after a restart. */
  readonly order: (name: string, server: string) => O;
  /** Whether the order may be performed again on a device that may have performed it already. */
  readonly isRepeatable: (order: O) => boolean;
  /** Whether a DM server may let the gateway act on a device. */
  readonly mayActOn: (server: string, device: string) => boolean;
  /** ID of the child gateway that a device is behind; undefined when the device is attached here. */
  readonly childOf: (device: string) => string | undefined;
  /** Performs the order on one device that is attached here. */
  readonly attempt: (device: string, order: O, options: AttemptOptions) => Promise<Attempt>;
  /**
   * Lets a child gateway perform the order on devices behind it. A device that is missing in the returned outcomes gets
   * the unknown outcome, 500.
   */
  readonly delegate: (
    child: string,
    devices: readonly string[],
    order: O,
    options: AttemptOptions,
  ) => Promise<readonly DeviceOutcome[]>;
  /** Called when a campaign has ended. `result` is the XML for the DM server that started it. */
  readonly ended: (
    run: { name: string; server: string; correlator: string | undefined },
    result: string,
  ) => void;
}

/**
 * Maximum number of devices or child gateways in progress per campaign, of running campaigns per kind, and of devices that one turn
 * of the event loop begins with. To begin takes 0.4 ms of a device: 64 at once would keep all others waiting.
 */
export const campaignLimits = { parallel: 64, running: 8, perTurn: 2 } as const;
