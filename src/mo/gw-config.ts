import { interior, leaf, type ManagementObject } from '../syncml/ddf.ts';
import type { TndsNode } from '../syncml/tnds.ts';
import { MoId } from './identifiers.ts';

/** How the gateway stands between a server and a device. The coding is ours; GwMO's is not known. */
export const GatewayMode = { Transparent: 0, Proxy: 1, Adaptation: 2 } as const;
/** Ways to the DM Gateway Bootstrap (GwMO section 8.4), a bit each. */
export const BootstrapMethod = { ServerAssisted: 1, Local: 2 } as const;

/** GwConfig: how the gateway works, and what it reports. `Mode` is GwMO's; the other nodes are our proposal. */
export const gwConfig: ManagementObject = {
  id: MoId.GwConfig,
  root: interior(['Get'], 'Configuration of the DM Gateway', {
    Mode: leaf(
      'int',
      ['Get'],
      'Mode for devices that have none of their own: 0 transparent, 1 proxy, 2 adaptation',
    ),
    SupportedModes: leaf('chr', ['Get'], 'Modes that the gateway can work in, separated by commas'),
    AttachAlert: leaf('bool', ['Get', 'Replace'], 'Whether a Device Attach Alert is sent'),
    DetachAlert: leaf('bool', ['Get', 'Replace'], 'Whether a Device Detach Alert is sent'),
    BootstrapMethods: leaf(
      'int',
      ['Get'],
      'Bit 0: DM-Server-assisted (8.4.1); bit 1: local bootstrap server (8.4.2)',
    ),
    MaxEndDevices: leaf('int', ['Get'], 'End Devices that the inventory holds'),
  }),
};

export const gwConfigNodes = (maxEndDevices: number): TndsNode => ({
  name: 'GwConfig',
  format: 'node',
  type: MoId.GwConfig,
  children: [
    { name: 'Mode', format: 'int', value: String(GatewayMode.Transparent) },
    {
      name: 'SupportedModes',
      format: 'chr',
      value: [GatewayMode.Transparent, GatewayMode.Proxy].join(','),
    },
    { name: 'AttachAlert', format: 'bool', value: 'true' },
    { name: 'DetachAlert', format: 'bool', value: 'true' },
    {
      name: 'BootstrapMethods',
      format: 'int',
      value: String(BootstrapMethod.ServerAssisted | BootstrapMethod.Local),
    },
    { name: 'MaxEndDevices', format: 'int', value: String(maxEndDevices) },
  ],
});
