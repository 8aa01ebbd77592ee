import { askGateway, defaultSocket } from '../gateway/console/admin-api.ts';
import type { BudgetView, TrafficView } from '../gateway/northbound/data-budget.ts';
import type { GatewayStatus } from '../gateway/status.ts';
import type { Command } from './runner.ts';

const common = `  --socket PATH  admin socket of the gateway, if it is not the default one
  --json         prints all fields, as JSON`;

const options = { socket: { type: 'string' }, json: { type: 'boolean' } } as const;

export const status: Command = {
  summary: 'Shows the state of a running gateway',
  help: `Usage: postern status [--socket PATH] [--json]

${common}`,
  options,
  async run({ socket = defaultSocket(), json }) {
    const found = (await askGateway(String(socket), '/status')) as GatewayStatus;
    if (json) return console.log(JSON.stringify(found, null, 2));
    const {
      gateway,
      software,
      uplink,
      coap,
      devices,
      outbox,
      sessions,
      budget,
      memory,
      counts,
      fault,
      recovery,
    } = found;
    const rows = [
      ['gateway', `${gateway}, Postern ${software}`],
      ['uplink', `${uplink.connected ? 'connected' : 'NOT CONNECTED'} to ${uplink.url} (${uplink.protocol})`],
      ['coap', `port ${coap.port} at ${coap.addresses.join(', ') || 'no address'}`],
      ['security', coap.security],
      ['devices', `${devices.attached} attached, ${devices.unreachable} unreachable; limit ${devices.limit}`],
      [
        'outbox',
        `${outbox.waiting} alerts waiting, ${outbox.dropped} dropped, ${outbox.undeliverable} undeliverable; limit ${outbox.limit}`,
      ],
      ...(recovery === undefined
        ? []
        : [['recovery', `${recovery.reason}; uses ${recovery.used ?? 'a new state'}`]]),
      ...(fault === undefined ? [] : [['state', `NOT WRITABLE: ${fault}`]]),
      ...(budget ? trafficRows(budget) : []),
      ['sessions', String(sessions)],
      ['memory', `${memory.rss} MB in all, ${memory.heap} MB heap`],
      ...Object.entries(counts).map(([name, count]) => [`  ${name}`, String(count)]),
    ];
    const width = Math.max(...rows.map(([name]) => name!.length));
    for (const [name, value] of rows) console.log(`${name!.padEnd(width)}  ${value}`);
  },
};

const kilobytes = (octets: number): string => `${(octets / 1000).toFixed(1)} kB`;

function trafficRows({ day, month, short }: BudgetView): string[][] {
  const row = (name: string, { used, limit, kinds }: TrafficView) => [
    name,
    `${kilobytes(used)}${limit === undefined ? '' : ` of ${kilobytes(limit)}`}: ${Object.entries(kinds)
      .map(([kind, { up, down }]) => `${kind} ${kilobytes(up)} up, ${kilobytes(down)} down`)
      .join('; ')}`,
  ];
  const waiting = short.length === 0 ? [] : [['waiting', `${short.join(', ')}: the data budget runs short`]];
  return [row('today', day), row('month', month), ...waiting];
}
