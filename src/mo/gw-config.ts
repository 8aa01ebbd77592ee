import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { ownVocabulary, type Vocabulary } from './vocabulary.ts';

/** How the gateway stands between a server and a device, as this program counts; the wire's codes are the vocabulary's. */
export const GatewayMode = { Transparent: 0, Proxy: 1, Adaptation: 2 } as const;
/** Ways to the DM Gateway Bootstrap (GwMO section 8.4), a bit each. */
export const BootstrapMethod = { ServerAssisted: 1, Local: 2 } as const;

/** GwConfig: how the gateway works, and what it reports. `Mode` is GwMO's; the other nodes are proposed (docs/gwmo.md). */
export const gwConfig: ManagementObject = {
  id: ownVocabulary.objects.GwConfig,
  root: interior(['Get'], 'Configuration of the DM Gateway', {
    Mode: leaf(
      'int',
      ['Get'],
      'Mode for devices that have none of their own: 0 transparent, 1 proxy, 2 adaptation',
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
    MaxEndDevices: leaf('int', ['Get'], 'End Devices that the inventory holds'),
  }),
};

/** What follows from the gateway itself, at each start. */
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

/** What a server may set, as it is at first. */
export const gwConfigDefaults: readonly TndsNode[] = [
  { name: 'AttachAlert', format: 'bool', value: 'true' },
  { name: 'DetachAlert', format: 'bool', value: 'true' },
  { name: 'PresenceAlert', format: 'bool', value: 'true' },
];
