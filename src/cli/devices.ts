import { inOneLine, safeJson } from '../base/safe-text.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import type { ShownDevice } from '../gateway/gateway.ts';
import { objectNamesIn } from '../wire/lwm2m/objects.ts';
import type { Command } from './runner.ts';

const modes = ['transparent', 'proxy', 'adaptation'];
const origins = {
  local: 'local bootstrap server',
  server: 'DM server',
  manual: 'manual setup',
  joined: 'join window',
} as const;

/** A record with the names of the objects of an LwM2M client, by object ID. */
const withNames = (device: ShownDevice) =>
  device.objects === undefined ? device : { ...device, objectNames: objectNamesIn(device.objects) };

export const devices: Command = {
  summary: 'Lists the End Devices of a running gateway',
  help: `Usage: postern devices [--socket PATH] [--json]

  --socket PATH  admin socket of the gateway, if it is not the default one
  --json         prints all fields, as JSON`,
  options: { socket: { type: 'string' }, json: { type: 'boolean' } },
  async run({ socket = defaultSocket(), json }) {
    const found = (await askGateway(String(socket), '/devices')) as ShownDevice[];
    if (json) return console.log(safeJson(found.map(withNames), 2));
    if (found.length === 0) return console.log('no device has attached yet');
    const rows = found.map((device) =>
      [
        device.deviceId,
        device.state,
        modes[device.mode] ?? String(device.mode),
        origins[device.origin],
        [device.manufacturer, device.model, device.firmware].filter((part) => part !== undefined).join(' '),
        device.address,
        device.security ?? '',
        new Date(device.lastSeen).toISOString(),
        device.reason ?? '',
      ].map(inOneLine),
    );
    const table = [
      [
        'DEVICE',
        'STATE',
        'MODE',
        'ACCOUNT FROM',
        'MODEL, FIRMWARE',
        'ADDRESS',
        'SECURITY',
        'LAST HEARD',
        'UNREACHABLE BECAUSE',
      ],
      ...rows,
    ];
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
    for (const row of table)
      console.log(
        row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join('  ')
          .trimEnd(),
      );
  },
};
