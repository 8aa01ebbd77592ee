import type { Path } from './path.ts';
import type { ResourceType } from './resource.ts';

/**
 * Operations on a resource: R read, W write, E execute. Resources without any are written by the bootstrap server only.
 */
export type Operations = 'R' | 'W' | 'RW' | 'E' | '';

/** Description of a resource (LwM2M core 1.1, appendix E). */
export interface ResourceDescription {
  readonly name: string;
  readonly type: ResourceType;
  readonly operations: Operations;
  /** Whether the resource has instances. */
  readonly multiple: boolean;
}

/** Description of an object and its resources. */
export interface ObjectDescription {
  readonly name: string;
  /** By resource ID. */
  readonly resources: Readonly<Record<number, ResourceDescription>>;
}

/** IDs of the objects that code here refers to by name. */
export const ObjectId = {
  Security: 0,
  Server: 1,
  Device: 3,
  Firmware: 5,
  Oscore: 21,
} as const;

/** Resource IDs of the object LwM2M Server (LwM2M core 1.1, appendix E.2). */
export const ServerResource = { Lifetime: 1, RegistrationUpdateTrigger: 8 } as const;
/** Resource IDs of the object Device (LwM2M core 1.1, appendix E.4). */
export const DeviceResource = { SerialNumber: 2 } as const;
/** Resource IDs of the object Firmware Update (LwM2M core 1.1, appendix E.6). */
export const FirmwareResource = {
  Package: 0,
  PackageUri: 1,
  Update: 2,
  State: 3,
  Result: 5,
  Protocols: 8,
  Delivery: 9,
} as const;
/** Values of the resource State. */
export const FirmwareState = { Idle: 0, Downloading: 1, Downloaded: 2, Updating: 3 } as const;
/** Values of the resource Update Result. */
export const FirmwareResult = {
  None: 0,
  Success: 1,
  ConnectionLost: 4,
  BadUri: 7,
  Deferred: 11,
} as const;

const one = (name: string, type: ResourceType, operations: Operations): ResourceDescription => ({
  name,
  type,
  operations,
  multiple: false,
});
const many = (name: string, type: ResourceType, operations: Operations): ResourceDescription => ({
  ...one(name, type, operations),
  multiple: true,
});

/**
 * Descriptions of objects, by object ID: those objects of LwM2M core 1.1, appendix E, that common devices have. A device
 * may have other objects. Their values are read in a format that carries the types.
 */
export const objects: Readonly<Record<number, ObjectDescription>> = {
  0: {
    name: 'Security',
    resources: {
      0: one('Server URI', 'string', ''),
      1: one('Bootstrap-Server', 'boolean', ''),
      2: one('Security Mode', 'integer', ''),
      3: one('Public Key or Identity', 'opaque', ''),
      4: one('Server Public Key', 'opaque', ''),
      5: one('Secret Key', 'opaque', ''),
      10: one('Short Server ID', 'integer', ''),
      11: one('Client Hold Off Time', 'integer', ''),
      12: one('Bootstrap-Server Account Timeout', 'integer', ''),
      17: one('OSCORE Security Mode', 'objlnk', ''),
    },
  },
  1: {
    name: 'Server',
    resources: {
      0: one('Short Server ID', 'integer', 'R'),
      1: one('Lifetime', 'integer', 'RW'),
      2: one('Default Minimum Period', 'integer', 'RW'),
      3: one('Default Maximum Period', 'integer', 'RW'),
      4: one('Disable', 'none', 'E'),
      5: one('Disable Timeout', 'integer', 'RW'),
      6: one('Notification Storing', 'boolean', 'RW'),
      7: one('Binding', 'string', 'RW'),
      8: one('Registration Update Trigger', 'none', 'E'),
      9: one('Bootstrap-Request Trigger', 'none', 'E'),
    },
  },
  3: {
    name: 'Device',
    resources: {
      0: one('Manufacturer', 'string', 'R'),
      1: one('Model Number', 'string', 'R'),
      2: one('Serial Number', 'string', 'R'),
      3: one('Firmware Version', 'string', 'R'),
      4: one('Reboot', 'none', 'E'),
      5: one('Factory Reset', 'none', 'E'),
      6: many('Available Power Sources', 'integer', 'R'),
      7: many('Power Source Voltage', 'integer', 'R'),
      8: many('Power Source Current', 'integer', 'R'),
      9: one('Battery Level', 'integer', 'R'),
      10: one('Memory Free', 'integer', 'R'),
      11: many('Error Code', 'integer', 'R'),
      12: one('Reset Error Code', 'none', 'E'),
      13: one('Current Time', 'time', 'RW'),
      14: one('UTC Offset', 'string', 'RW'),
      15: one('Timezone', 'string', 'RW'),
      16: one('Supported Binding and Modes', 'string', 'R'),
      17: one('Device Type', 'string', 'R'),
      18: one('Hardware Version', 'string', 'R'),
      19: one('Software Version', 'string', 'R'),
      20: one('Battery Status', 'integer', 'R'),
      21: one('Memory Total', 'integer', 'R'),
      22: many('ExtDevInfo', 'objlnk', 'R'),
    },
  },
  4: {
    name: 'Connectivity Monitoring',
    resources: {
      0: one('Network Bearer', 'integer', 'R'),
      1: many('Available Network Bearer', 'integer', 'R'),
      2: one('Radio Signal Strength', 'integer', 'R'),
      3: one('Link Quality', 'integer', 'R'),
      4: many('IP Addresses', 'string', 'R'),
      5: many('Router IP Addresses', 'string', 'R'),
      6: one('Link Utilization', 'integer', 'R'),
      7: many('APN', 'string', 'R'),
      8: one('Cell ID', 'integer', 'R'),
      9: one('SMNC', 'integer', 'R'),
      10: one('SMCC', 'integer', 'R'),
    },
  },
  5: {
    name: 'Firmware Update',
    resources: {
      0: one('Package', 'opaque', 'W'),
      1: one('Package URI', 'string', 'RW'),
      2: one('Update', 'none', 'E'),
      3: one('State', 'integer', 'R'),
      5: one('Update Result', 'integer', 'R'),
      6: one('PkgName', 'string', 'R'),
      7: one('PkgVersion', 'string', 'R'),
      8: many('Firmware Update Protocol Support', 'integer', 'R'),
      9: one('Firmware Update Delivery Method', 'integer', 'R'),
    },
  },
  6: {
    name: 'Location',
    resources: {
      0: one('Latitude', 'float', 'R'),
      1: one('Longitude', 'float', 'R'),
      2: one('Altitude', 'float', 'R'),
      3: one('Radius', 'float', 'R'),
      4: one('Velocity', 'opaque', 'R'),
      5: one('Timestamp', 'time', 'R'),
      6: one('Speed', 'float', 'R'),
    },
  },
  7: {
    name: 'Connectivity Statistics',
    resources: {
      0: one('SMS Tx Counter', 'integer', 'R'),
      1: one('SMS Rx Counter', 'integer', 'R'),
      2: one('Tx Data', 'integer', 'R'),
      3: one('Rx Data', 'integer', 'R'),
      4: one('Max Message Size', 'integer', 'R'),
      5: one('Average Message Size', 'integer', 'R'),
      6: one('Start', 'none', 'E'),
      7: one('Stop', 'none', 'E'),
      8: one('Collection Period', 'integer', 'RW'),
    },
  },
  21: {
    name: 'OSCORE',
    resources: {
      0: one('OSCORE Master Secret', 'opaque', ''),
      1: one('OSCORE Sender ID', 'opaque', ''),
      2: one('OSCORE Recipient ID', 'opaque', ''),
      3: one('OSCORE AEAD Algorithm', 'integer', ''),
      4: one('OSCORE HMAC Algorithm', 'integer', ''),
      5: one('OSCORE Master Salt', 'opaque', ''),
    },
  },
};

/** IPSO's reusable resources, by resource ID. They mean the same in every object with an ID of 3200 or above. */
const reusable: Readonly<Record<number, ResourceDescription>> = {
  5500: one('Digital Input State', 'boolean', 'R'),
  5501: one('Digital Input Counter', 'integer', 'R'),
  5505: one('Digital Input Counter Reset', 'none', 'E'),
  5518: one('Timestamp', 'time', 'R'),
  5550: one('Digital Output State', 'boolean', 'RW'),
  5600: one('Analog Input Current Value', 'float', 'R'),
  5601: one('Min Measured Value', 'float', 'R'),
  5602: one('Max Measured Value', 'float', 'R'),
  5603: one('Min Range Value', 'float', 'R'),
  5604: one('Max Range Value', 'float', 'R'),
  5605: one('Reset Min and Max Measured Values', 'none', 'E'),
  5650: one('Analog Output Current Value', 'float', 'RW'),
  5700: one('Sensor Value', 'float', 'R'),
  5701: one('Sensor Units', 'string', 'R'),
  5750: one('Application Type', 'string', 'RW'),
  5800: one('Active Power', 'float', 'R'),
  5805: one('Cumulative Active Power', 'float', 'R'),
  5820: one('Power Factor', 'float', 'R'),
  5821: one('Current Calibration', 'float', 'RW'),
  5850: one('On/Off', 'boolean', 'RW'),
  5851: one('Dimmer', 'integer', 'RW'),
  5852: one('On Time', 'integer', 'RW'),
  5900: one('Set Point Value', 'float', 'RW'),
};
const firstReusing = 3200;

/** Description of the resource at a path: from its object, or from IPSO's reusable resources. */
export function describeResource([object = -1, , resource = -1]: Path): ResourceDescription | undefined {
  return objects[object]?.resources[resource] ?? (object >= firstReusing ? reusable[resource] : undefined);
}

/** Type of the resource at a path. `undefined` when it has no description. */
export const typeOf = (path: Path): ResourceType | undefined => describeResource(path)?.type;
