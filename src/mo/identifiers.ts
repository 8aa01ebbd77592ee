/** Identifiers of management objects in OMA's registry. Those of GwMO's objects are in vocabulary.ts. */
export const MoId = {
  DevInfo: 'urn:oma:mo:oma-dm-devinfo:1.0',
  DevDetail: 'urn:oma:mo:oma-dm-devdetail:1.0',
  DmAcc: 'urn:oma:mo:oma-dm-dmacc:1.0',
  Inbox: 'urn:oma:mo:oma-dm-inbox:1.0',
  Fumo: 'urn:oma:mo:oma-fumo:1.0',
  /** Postern's own, and in no registry. */
  GwCertificate: 'x-postern:mo:gw-certificate:1.0',
  GwDiagnostics: 'x-postern:mo:gw-diagnostics:1.0',
  GwJoin: 'x-postern:mo:gw-join:1.0',
  GwOwner: 'x-postern:mo:gw-owner:1.0',
  GwTelemetry: 'x-postern:mo:gw-telemetry:1.0',
} as const;

/** Types of FUMO's generic alerts (OMA FUMO 1.0, section 8.1), by the operation that they report. */
export const FumoAlert = {
  Download: 'org.openmobilealliance.dm.firmwareupdate.download',
  Update: 'org.openmobilealliance.dm.firmwareupdate.update',
  DownloadAndUpdate: 'org.openmobilealliance.dm.firmwareupdate.downloadandupdate',
} as const;
