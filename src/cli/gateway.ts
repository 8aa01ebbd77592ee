import { SystemClock } from '../base/clock.ts';
import { loadConfig } from '../base/config.ts';
import { checkFiles } from '../base/config-files.ts';
import { LogEvents } from '../base/log.ts';
import { gatewayConfigSchema } from '../gateway/config.ts';
import { AdminApi, defaultSocket } from '../gateway/console/admin-api.ts';
import { Gateway } from '../gateway/gateway.ts';
import { restartExitCode } from '../gateway/update/directory-slots.ts';
import { beFrugal, tidyUp, watchedForWork } from './frugality.ts';
import { type Command, stopped } from './runner.ts';

/** Milliseconds after the start until its garbage is collected: the uplink is connected then. */
const tidyAfter = 2000;

const defaultFile = '/etc/postern/gateway.toml';

export const gateway: Command = {
  summary: 'Runs a DM Gateway',
  help: `Usage: postern gateway [--config FILE] [--check]

Serves the devices of this network over CoAP, and connects to the DM server through an MQTT broker (5 or 3.1.1).
The log goes to standard output, one JSON object per line. SIGINT or SIGTERM stops the gateway in order.

  --config FILE  configuration, TOML; by default ${defaultFile}
  --check        only checks the configuration, and the files that it names

A minimal configuration:

  [gateway]
  id = "gw-1"
  state = "/var/lib/postern/state.db"

  [coap]
  insecure-plain-coap = true

  [mqtt]
  url = "mqtt://broker.example:1883"

  [dm-server]
  id = "dm.example"
  client-secret = "secret of the gateway"
  server-secret = "secret of the DM server"

A gateway behind another gateway has this table instead of [mqtt]:

  [parent]
  id = "gw-0"
  uri = "coap://192.0.2.1:5683"
  factory-secret = "secret for the parent's bootstrap server"

All keys are in docs/configuration.md.`,
  options: { config: { type: 'string' }, check: { type: 'boolean' } },
  async run({ config: file = defaultFile, check }, stop) {
    beFrugal();
    const config = loadConfig(gatewayConfigSchema, String(file));
    if (check) {
      checkFiles(gatewayConfigSchema, config, String(file), new SystemClock());
      return console.log(`${file} is valid`);
    }
    const restart = new AbortController();
    await using running = new Gateway(config, {
      events: watchedForWork(new LogEvents(config.log.level, 'gateway')),
      restart: () => restart.abort(),
    });
    const views = {
      '/status': () => running.status(),
      '/devices': () => running.devices(),
      '/update': () => running.firmware.status(),
    };
    await using admin = new AdminApi(
      config.gateway['admin-socket'] ?? defaultSocket(),
      running.events,
      views,
      {
        '/update': (body) => running.firmware.install(body),
        '/backup': (body) => running.backUp((body as { target?: unknown } | null)?.target),
      },
    );
    // Devices are served first; the admin API can wait.
    await running.start();
    await admin.start();
    setTimeout(tidyUp, tidyAfter).unref();
    await stopped(AbortSignal.any([stop, restart.signal]));
    if (restart.signal.aborted) process.exitCode = restartExitCode;
  },
};
