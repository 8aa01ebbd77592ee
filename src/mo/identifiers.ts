/**
 * Identifiers of management objects and alert types. Those of DM are OMA's; those of GwMO are not in any source at hand,
 * so ours follow the registry's pattern (docs/architecture.md, what is assumed of GwMO).
 */
export const MoId = {
  DevInfo: 'urn:oma:mo:oma-dm-devinfo:1.0',
  DevDetail: 'urn:oma:mo:oma-dm-devdetail:1.0',
  DmAcc: 'urn:oma:mo:oma-dm-dmacc:1.0',
  Inbox: 'urn:oma:mo:oma-dm-inbox:1.0',
  GwConfig: 'urn:oma:mo:oma-gwconfig:1.0',
  GwDeviceInventory: 'urn:oma:mo:oma-gwdeviceinventory:1.0',
  GwFanout: 'urn:oma:mo:oma-gwfanout:1.0',
} as const;

export const AlertType = {
  DeviceAttach: 'urn:oma:at:gwmo:1.0:DeviceAttach',
  DeviceDetach: 'urn:oma:at:gwmo:1.0:DeviceDetach',
  CommandFanout: 'urn:oma:at:gwmo:1.0:CommandFanout',
  LocationUpdate: 'urn:oma:at:gwmo:1.0:LocationUpdate',
} as const;
