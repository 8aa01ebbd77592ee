import { PosternError } from '../base/errors.ts';
import { inOneLine, safeJson } from '../base/safe-text.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
import { joinLimits } from '../gateway/southbound/join-window.ts';
import type { JoinView } from '../gateway/southbound/joins.ts';
import type { Command } from './runner.ts';

export const join: Command = {
  summary: 'Lets devices join that no list has, for some minutes',
  help: `Usage: postern join [--socket PATH] [--json]
       postern join --minutes N --devices M [--socket PATH]
       postern join --close [--socket PATH]
       postern join --forget DEVICE [--socket PATH]

Without options it shows the window and the devices that have joined. In an open window, a device that no list has may join by
a public key over DTLS. The gateway believes the name that the device says, and pins the name to the key. Anyone on the private
network can join then, so open the window only while you watch it, and compare who has joined.

  --minutes N      opens the window for so long: 1 to ${joinLimits.minutes}
  --devices M      closes it when so many devices have joined: 1 to ${joinLimits.devices}
  --close          closes the window
  --forget DEVICE  forgets the key of a device that has joined, and ends what it has
  --socket PATH    admin socket of the gateway, if it is not the default one
  --json           prints all fields, as JSON`,
  options: {
    socket: { type: 'string' },
    json: { type: 'boolean' },
    minutes: { type: 'string' },
    devices: { type: 'string' },
    close: { type: 'boolean' },
    forget: { type: 'string' },
  },
  async run({ socket = defaultSocket(), json, minutes, devices, close, forget }) {
    const orders = [
      ...(minutes !== undefined || devices !== undefined
        ? [{ minutes: Number(minutes), devices: Number(devices) }]
        : []),
      ...(close ? [{ close }] : []),
      ...(forget !== undefined ? [{ forget }] : []),
    ];
    if (orders.length > 1)
      throw new PosternError(
        'malformed',
        'one order at a time: --minutes and --devices, --close or --forget',
      );
    const shown = (await askGateway(String(socket), '/join', orders[0])) as JoinView;
    console.log(json ? safeJson(shown, 2) : describe(shown));
  },
};

function describe({ window, pinned }: JoinView): string {
  const state = window
    ? `open until ${window.until} for ${window.left} more devices; joined: ${window.joined.join(', ') || 'none'}`
    : 'closed';
  const rows = pinned.map(({ deviceId, protocol, joined, mark }) =>
    inOneLine(`${deviceId}  ${protocol}  joined ${new Date(joined).toISOString()}  key ${mark}`),
  );
  return [`join window: ${inOneLine(state)}`, ...rows].join('\n');
}
