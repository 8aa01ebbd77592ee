import { PosternError } from '../base/errors.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { AlertCode } from '../dm/status.ts';
import { escapeXml } from '../syncml/escape-xml.ts';
import type { Alert } from '../syncml/message.ts';
import { recordName } from './gw-device-inventory.ts';
import { AlertType } from './identifiers.ts';

/** What the Device Attach Alert tells (GwMO section 8.4.2; the form of its data is ours, docs/bindings.md). */
export interface DeviceAttach {
  /** Rises with each alert of a gateway: a number seen before is the same event again. */
  readonly sequence: number;
  readonly deviceId: string;
  readonly mode: number;
  /** How the device's account for the gateway came. */
  readonly bootstrap: 'local' | 'server' | 'manual';
  readonly manufacturer?: string;
  readonly model?: string;
}

const fields = ['DeviceID', 'Mode', 'Bootstrap', 'Man', 'Mod'] as const;

/** A generic alert (OMA DM protocol 1.2.1, section 8.7) with one item. */
export function deviceAttachAlert(attach: DeviceAttach): Omit<OutgoingAlert, 'settled'> {
  const { sequence, deviceId, mode, bootstrap, manufacturer, model } = attach;
  const values = [deviceId, String(mode), bootstrap, manufacturer, model];
  const inner = fields.map((name, at) => {
    const value = values[at];
    return value === undefined ? '' : `<${name}>${escapeXml(value)}</${name}>`;
  });
  return {
    code: AlertCode.Generic,
    items: [
      {
        source: { locUri: `./GwDeviceInventory/Records/${recordName(deviceId)}` },
        meta: { format: 'xml', type: AlertType.DeviceAttach, mark: 'informational' },
        data: `<DeviceAttach Seq="${sequence}">${inner.join('')}</DeviceAttach>`,
      },
    ],
  };
}

export const isDeviceAttach = ({ data, items }: Alert): boolean =>
  data === AlertCode.Generic && items[0]?.meta?.type === AlertType.DeviceAttach;

const unescapeXml = (text: string): string =>
  text.replace(
    /&(lt|gt|quot|amp);/g,
    (_, name: string) => ({ lt: '<', gt: '>', quot: '"', amp: '&' })[name]!,
  );

/** @throws {PosternError} `malformed` */
export function readDeviceAttach({ items }: Alert): DeviceAttach {
  const text = String(items[0]?.data ?? '');
  const sequence = /^<DeviceAttach Seq="(\d{1,15})">/.exec(text)?.[1];
  const value = (name: string) => {
    const found = new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1];
    return found === undefined ? undefined : unescapeXml(found);
  };
  const deviceId = value('DeviceID');
  const mode = Number(value('Mode'));
  const bootstrap = value('Bootstrap');
  if (sequence === undefined || !deviceId || !Number.isInteger(mode))
    throw new PosternError('malformed', 'no Device Attach Alert');
  const manufacturer = value('Man');
  const model = value('Mod');
  return {
    sequence: Number(sequence),
    deviceId,
    mode,
    bootstrap: bootstrap === 'server' || bootstrap === 'manual' ? bootstrap : 'local',
    ...(manufacturer !== undefined && { manufacturer }),
    ...(model !== undefined && { model }),
  };
}
