import { interior, type ManagementObject } from '../wire/syncml/ddf.ts';
import { devDetail } from './dev-detail.ts';
import { devInfo } from './dev-info.ts';
import { dmAcc } from './dm-acc.ts';
import { fumo } from './fumo.ts';
import { gwCertificate } from './gw-certificate.ts';
import { gwConfig } from './gw-config.ts';
import { gwDeviceInventory } from './gw-device-inventory.ts';
import { gwDiagnostics } from './gw-diagnostics.ts';
import { gwEdTrigger } from './gw-ed-trigger.ts';
import { gwFanout } from './gw-fanout.ts';
import { gwImageInventory } from './gw-image-inventory.ts';
import { gwJoin } from './gw-join.ts';
import { gwOwner } from './gw-owner.ts';
import { gwTelemetry } from './gw-telemetry.ts';
import { MoId } from './identifiers.ts';

/** The Inbox has no children: an object that is added there goes to its own place in the tree. */
const inbox: ManagementObject = {
  id: MoId.Inbox,
  root: interior(['Add'], 'Takes management objects, for which the device finds the place', {}),
};

/** The management objects of gateway and device, by the names of their root nodes. */
export const managementObjects: Readonly<Record<string, ManagementObject>> = {
  DevInfo: devInfo,
  DevDetail: devDetail,
  DMAcc: dmAcc,
  Inbox: inbox,
  GwCertificate: gwCertificate,
  GwConfig: gwConfig,
  GwDeviceInventory: gwDeviceInventory,
  GwDiagnostics: gwDiagnostics,
  GwEdTrigger: gwEdTrigger,
  GwFanout: gwFanout,
  GwImageInventory: gwImageInventory,
  GwJoin: gwJoin,
  GwOwner: gwOwner,
  GwTelemetry: gwTelemetry,
  FwUpdate: fumo,
};
