import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { GatewayMode } from './device-record.ts';
import { ownVocabulary, type Vocabulary } from './vocabulary.ts';

/** Ways to bootstrap a device (GwMO section 8.4), one bit each. */
export const BootstrapMethod = { ServerAssisted: 1, Local: 2 } as const;

/**
 * GwConfig: how the gateway works and what it reports. GwMO defines `Mode`; the other nodes are proposed
 * (docs/gwmo.md).
 */
export const gwConfig: ManagementObject = {
  id: ownVocabulary.objects.GwConfig,
  root: interior(['Get'], 'Configuration of the DM Gateway', {
    Mode: leaf(
      'int',
      ['Get'],
      'Mode of devices without a mode of their own: 0 transparent, 1 proxy, 2 adaptation',
    ),
    SupportedModes: leaf('chr', ['Get'], 'Modes that the gateway can work in, separated by commas'),
    AttachAlert: leaf('bool', ['Get', 'Replace'], 'Whether a Device Attach Alert is sent'),
    DetachAlert: leaf('bool', ['Get', 'Replace'], 'Whether a Device Detach Alert is sent'),
    PresenceAlert: leaf(
      'bool',
      ['Get', 'Replace'],
      'Whether a Device Presence Alert is sent when a device becomes unreachable, and when it is reached again',
    ),
    BootstrapMethods: leaf(
      'int',
      ['Get'],
      'Bit 0: DM-Server-assisted (8.4.1); bit 1: local bootstrap server (8.4.2)',
    ),
    MaxEndDevices: leaf('int', ['Get'], 'Largest number of End Devices in the inventory'),
    DataPerDay: leaf(
      'int',
      ['Get', 'Replace'],
      'Data budget of the uplink per day (UTC) in kilobytes of 1,000 octets; 0 means none',
    ),
    DataPerMonth: leaf(
      'int',
      ['Get', 'Replace'],
      'Data budget of the uplink per month (UTC) in kilobytes of 1,000 octets; 0 means none',
    ),
    DataUsed: leaf(
      'chr',
      ['Get'],
      'Octets that the uplink has carried in this day and month, by kind and direction, and the kinds that wait; JSON',
    ),
  }),
};

/** Nodes whose values follow from the gateway itself. They are written at each start. */
export const gwConfigFacts = ({ modes }: Vocabulary, maxEndDevices: number): readonly TndsNode[] => [
  { name: 'Mode', format: 'int', value: String(modes[GatewayMode.Transparent]) },
  {
    name: 'SupportedModes',
    format: 'chr',
    value: modes.join(','),
  },
  {
    name: 'BootstrapMethods',
    format: 'int',
    value: String(BootstrapMethod.ServerAssisted | BootstrapMethod.Local),
  },
  { name: 'MaxEndDevices', format: 'int', value: String(maxEndDevices) },
];

/** Initial values of the nodes that a server may set. */
export const gwConfigDefaults: readonly TndsNode[] = [
  { name: 'AttachAlert', format: 'bool', value: 'true' },
  { name: 'DetachAlert', format: 'bool', value: 'true' },
  { name: 'PresenceAlert', format: 'bool', value: 'true' },
];

/** The data budget as the configuration gives it, in kilobytes. `DataUsed` is computed when it is read. */
export const gwConfigBudget = ({
  day = 0,
  month = 0,
}: {
  day?: number | undefined;
  month?: number | undefined;
}) =>
  [
    { name: 'DataPerDay', format: 'int', value: String(day) },
    { name: 'DataPerMonth', format: 'int', value: String(month) },
    { name: 'DataUsed', format: 'chr', value: '' },
  ] as const satisfies readonly TndsNode[];

/** The data budget in octets. Undefined where there is none. */
export function budgetLimits(read: (node: string) => string | undefined) {
  const octets = (node: string) => {
    const kilobytes = Number(read(node));
    return kilobytes > 0 ? kilobytes * 1000 : undefined;
  };
  return { day: octets('DataPerDay'), month: octets('DataPerMonth') };
}
