import { askGateway, defaultSocket } from '../gateway/console/admin-api.ts';
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
    const { gateway, software, uplink, coap, devices, outbox, sessions, memory, counts } = found;
    const { setAside, failures, configuration } = found;
    const { restartNeeded, refused } = configuration;
    const rows = [
      ['gateway', `${gateway}, Postern ${software}`],
      ['uplink', `${uplink.connected ? 'connected' : 'NOT CONNECTED'} to ${uplink.url} (${uplink.protocol})`],
      ['coap', `port ${coap.port} at ${coap.addresses.join(', ') || 'no address'}`],
      ['security', coap.security],
      ['devices', `${devices.attached} attached; limit ${devices.limit}`],
      ['outbox', `${outbox.waiting} alerts waiting, ${outbox.dropped} dropped; limit ${outbox.limit}`],
      ['sessions', String(sessions)],
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
    for (const [name, value] of rows) console.log(`${name!.padEnd(width)}  ${value}`);
  },
};
