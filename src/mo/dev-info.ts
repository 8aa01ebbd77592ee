import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { MoId } from './identifiers.ts';

/** DevInfo 1.0 (OMA DM standardized objects 1.2.1, section 5.3.2), which a client sends in package 1. */
export const devInfo: ManagementObject = {
  id: MoId.DevInfo,
  root: interior(['Get'], 'Device information, sent at the start of every session', {
    DevId: leaf('chr', ['Get'], 'Globally unique identifier of the device, a URN'),
    Man: leaf('chr', ['Get'], 'Manufacturer'),
    Mod: leaf('chr', ['Get'], 'Model'),
    DmV: leaf('chr', ['Get'], 'Version of the DM client'),
    Lang: leaf('chr', ['Get'], 'Language, as RFC 5646 names it'),
  }),
};

/** Values of a device's DevInfo. */
export interface DeviceIdentity {
  readonly deviceId: string;
  readonly manufacturer: string;
  readonly model: string;
}

/** The object DevInfo with these values. */
export const devInfoNodes = ({ deviceId, manufacturer, model }: DeviceIdentity): TndsNode => ({
  name: 'DevInfo',
  format: 'node',
  type: MoId.DevInfo,
  children: Object.entries({ DevId: deviceId, Man: manufacturer, Mod: model, DmV: '1.2', Lang: 'en' }).map(
    ([name, value]) => ({ name, format: 'chr', value }),
  ),
});
