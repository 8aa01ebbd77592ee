import { setFlagsFromString } from 'node:v8';
import { loadConfig } from '../base/config.ts';
import { LogEvents } from '../base/log.ts';
import { gatewayConfigSchema } from '../gateway/config.ts';
import { AdminApi, defaultSocket } from '../gateway/console/admin-api.ts';
import { Gateway } from '../gateway/gateway.ts';
import { restartExitCode } from '../gateway/update/directory-slots.ts';
import { type Command, stopped } from './runner.ts';

const defaultFile = '/etc/postern/gateway.toml';

export const gateway: Command = {
  summary: 'Runs a DM Gateway',
  help: `Usage: postern gateway [--config FILE] [--check]

Serves the devices of this network by CoAP, and reaches the DM server through an MQTT broker (5 or 3.1.1).
What happens is logged to standard output, a JSON object per line. SIGINT or SIGTERM stops it cleanly.

  --config FILE  configuration, TOML; ${defaultFile} by default
  --check        only says whether the configuration is right

A configuration that is enough:

  [gateway]
  id = "gw-1"
  state = "/var/lib/postern/state.db"

  [coap]
  insecure-plain-coap = true

  [mqtt]
  url = "mqtt://broker.example:1883"

  [dm-server]
  id = "dm.example"
  client-secret = "what the gateway proves itself by"
  server-secret = "what the server proves itself by"

A gateway behind another gateway has, in place of [mqtt]:

  [parent]
  id = "gw-0"
  uri = "coap://192.0.2.1:5683"
  factory-secret = "what the parent's bootstrap server knows it by"

All keys are in docs/configuration.md.`,
  options: { config: { type: 'string' }, check: { type: 'boolean' } },
  async run({ config: file = defaultFile, check }, stop) {
    const config = loadConfig(gatewayConfigSchema, String(file));
    if (check) return console.log(`${file} is right`);
    // A board has little memory: the heap grows in small steps, at the price of more collections.
    for (const flag of ['--semi-space-growth-factor=1', '--heap-growing-percent=20'])
      setFlagsFromString(flag);
    const restart = new AbortController();
    await using running = new Gateway(config, {
      events: new LogEvents(config.log.level, 'gateway'),
      restart: () => restart.abort(),
    });
    const views = {
      '/status': () => running.status(),
      '/devices': () => running.devices(),
      '/update': () => running.firmware.status(),
    };
    await using admin = new AdminApi(config.gateway['admin-socket'] ?? defaultSocket(), views, {
      '/update': (body) => running.firmware.install(body),
    });
    // Devices first.
    await running.start();
    await admin.start();
    await stopped(AbortSignal.any([stop, restart.signal]));
    if (restart.signal.aborted) process.exitCode = restartExitCode;
  },
};
