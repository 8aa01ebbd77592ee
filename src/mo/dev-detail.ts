import { uriLimits } from '../dm/uri.ts';
import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { MoId } from './identifiers.ts';

/** DevDetail 1.0 (OMA DM standardized objects 1.2.1, section 5.3.3). */
export const devDetail: ManagementObject = {
  id: MoId.DevDetail,
  root: interior(['Get'], 'Details of the device, for a server that asks for them', {
    URI: interior(['Get'], 'Bounds of a node URI. 0: no bound', {
      MaxDepth: leaf('int', ['Get'], 'Largest number of segments'),
      MaxTotLen: leaf('int', ['Get'], 'Largest number of characters'),
      MaxSegLen: leaf('int', ['Get'], 'Largest number of characters of a segment'),
    }),
    DevTyp: leaf('chr', ['Get'], 'Device type'),
    OEM: leaf('chr', ['Get'], 'Original equipment manufacturer'),
    FwV: leaf('chr', ['Get'], 'Firmware version'),
    SwV: leaf('chr', ['Get'], 'Software version'),
    HwV: leaf('chr', ['Get'], 'Hardware version'),
    LrgObj: leaf('bool', ['Get'], 'Whether large objects are supported'),
  }),
};

/** Values of a device's DevDetail. */
export interface DeviceDetail {
  readonly type: string;
  readonly firmware: string;
  readonly software: string;
  readonly hardware: string;
}

const text = (name: string, value: string): TndsNode => ({ name, format: 'chr', value });
const int = (name: string, value: number): TndsNode => ({ name, format: 'int', value: String(value) });

/** The object DevDetail with these values. */
export const devDetailNodes = ({ type, firmware, software, hardware }: DeviceDetail): TndsNode => ({
  name: 'DevDetail',
  format: 'node',
  type: MoId.DevDetail,
  children: [
    {
      name: 'URI',
      format: 'node',
      children: [
        int('MaxDepth', uriLimits.depth),
        int('MaxTotLen', uriLimits.totalBytes),
        int('MaxSegLen', uriLimits.segmentBytes),
      ],
    },
    text('DevTyp', type),
    text('OEM', ''),
    text('FwV', firmware),
    text('SwV', software),
    text('HwV', hardware),
    { name: 'LrgObj', format: 'bool', value: 'true' },
  ],
});
