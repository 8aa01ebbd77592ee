import type { Recovery } from '../base/recover-state.ts';
import { forTerminal, indented, safeJson } from '../base/safe-text.ts';
import { askGateway } from '../gateway/console/admin-api.ts';
import { defaultSocket } from '../gateway/console/admin-socket.ts';
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
    if (json) return console.log(safeJson(found, 2));
    if ('waiting' in found)
      return console.log(
        `gateway  ${found.gateway}, Postern ${found.software}\nSERVES NOBODY  ${forTerminal(String(found.waiting))}`,
      );
    const {
      gateway,
      software,
      uplink,
      certificate,
      transfer,
      join,
      coap,
      devices,
      outbox,
      sessions,
      images,
      telemetry,
      budget,
      memory,
      counts,
      fault,
      recovery,
      setAside,
      failures,
      configuration,
      refused: notAdmitted,
    } = found;
    const { restartNeeded, refused } = configuration;
    const rows = [
      ['gateway', `${gateway}, Postern ${software}`],
      ['uplink', uplinkText(uplink)],
      ...(certificate
        ? [['certificate', [`ends ${certificate.expires}`, certificate.problem].filter(Boolean).join('; ')]]
        : []),
      ...(transfer ? [['transfer', `to ${transfer.server}: ${transfer.waiting}`]] : []),
      [
        'coap',
        `port ${coap.port}${coap.securePort === undefined ? '' : `, over DTLS port ${coap.securePort}`} at ${coap.addresses.join(', ') || 'no address'}`,
      ],
      ['security', coap.security],
      ['devices', `${devices.attached} attached, ${devices.unreachable} unreachable; limit ${devices.limit}`],
      ...(join ? [['join window', `OPEN until ${join.until} for ${join.left} more devices`]] : []),
      [
        'outbox',
        `${outbox.waiting} alerts waiting, ${outbox.dropped} dropped, ${outbox.undeliverable} undeliverable, ${outbox.refused} of child gateways refused; limit ${outbox.limit}`,
      ],
      ...(recovery === undefined ? [] : [['recovery', recoveryText(recovery)]]),
      ...(fault === undefined ? [] : [['state', `NOT WRITABLE: ${fault}`]]),
      ...(budget ? trafficRows(budget) : []),
      ['sessions', String(sessions)],
      ...(notAdmitted
        ? [
            [
              'refused',
              `${notAdmitted.count} from the private network; the latest from ${notAdmitted.peer}, limit ${notAdmitted.limit}`,
            ],
          ]
        : []),
      [
        'images',
        `${images.stored} stored, ${images.coming} coming, ${images.failed} failed; ${mebibytes(images.used)} of ${mebibytes(images.quota)} MB`,
      ],
      ...(telemetry.observations + telemetry.buffered + telemetry.dropped === 0
        ? []
        : [
            [
              'telemetry',
              `${telemetry.observations} observations of ${telemetry.devices} devices; ${telemetry.buffered} values waiting, ${telemetry.dropped} dropped`,
            ],
          ]),
      ...(refused === undefined ? [] : [['configuration', `refused when it was read again: ${refused}`]]),
      ...(restartNeeded.length > 0 ? [['restart', `needed for ${restartNeeded.join(', ')}`]] : []),
      ...(setAside > 0 ? [['set aside', `${setAside} rows of the state file that cannot be read`]] : []),
      ...failures.map(({ work, failures: count, reason }) => [
        'failed',
        `${work}, ${count} times: ${reason}`,
      ]),
      ['memory', `${memory.rss} MB in all, ${memory.heap} MB heap`],
      ...Object.entries(counts).map(([name, count]) => [`  ${name}`, String(count)]),
    ];
    const width = Math.max(...rows.map(([name]) => name!.length));
    for (const [name, value] of rows)
      console.log(`${name!.padEnd(width)}  ${indented(value!, `${' '.repeat(width)}  `)}`);
  },
};

/** The uplink in one line, the worst first: `NOT CONNECTED to mqtt://broker (MQTT 5): connect ECONNREFUSED; next attempt in 12 s`. */
export function uplinkText(uplink: GatewayStatus['uplink']): string {
  const { connected, url, protocol, waiting, refused, reason, retryInSeconds } = uplink;
  const more = [
    reason,
    retryInSeconds !== undefined && `next attempt in ${retryInSeconds} s`,
    waiting > 0 && `${waiting} messages wait`,
  ].filter((part) => typeof part === 'string');
  const word = !connected ? 'NOT CONNECTED to' : refused ? 'REFUSED by' : 'connected to';
  const state = `${word} ${url} (${protocol})`;
  return more.length === 0 ? state : `${state}: ${more.join('; ')}`;
}

const mebibytes = (bytes: number): number => Math.ceil(bytes / 1_048_576);
const kilobytes = (octets: number): string => `${(octets / 1000).toFixed(1)} kB`;

/** A state that could not be used at the start. */
const recoveryText = ({ reason, aside, used }: Recovery): string =>
  `the state could not be used (${reason})${aside === undefined ? '' : `, and is kept as ${aside}`}; the gateway began with ${used ?? 'an empty state'}; postern restore takes a backup back`;

/** Characters of the longest kind of traffic. */
const kindWidth = 10;

/** What each kind has moved has a line of its own: all in one are too long for a terminal. */
export function trafficRows({ day, month, short }: BudgetView): string[][] {
  const row = (name: string, { used, limit, kinds }: TrafficView) => [
    name,
    [
      `${kilobytes(used)}${limit === undefined ? '' : ` of ${kilobytes(limit)}`}`,
      ...Object.entries(kinds).map(
        ([kind, { up, down }]) => `${kind.padEnd(kindWidth)} ${kilobytes(up)} up, ${kilobytes(down)} down`,
      ),
    ].join('\n'),
  ];
  const waiting =
    short.length === 0 ? [] : [['waiting', `${short.join(', ')}: wait for room in the data budget`]];
  return [row('today', day), row('month', month), ...waiting];
}
