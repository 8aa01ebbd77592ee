import { failed } from '../base/background.ts';
import { SystemClock } from '../base/clock.ts';
import { checkConfig, loadConfig } from '../base/config.ts';
import { checkFiles } from '../base/config-files.ts';
import { LogEvents } from '../base/log.ts';
import { HeadendApi } from '../headend/api.ts';
import { headendConfigSchema } from '../headend/config.ts';
import { Headend } from '../headend/headend.ts';
import { type Command, stopped } from './runner.ts';
import { surviveErrors } from './service.ts';

export const headend: Command = {
  summary: 'Runs the reference DM server',
  help: `Usage: postern headend --config FILE [--relay URL] [--check]

Manages devices behind gateways, over an MQTT broker. It has an HTTP API:

  GET  /gateways, /devices     lists gateways and devices: online or not, and behind which gateway
  POST /devices/{id}/sessions  asks a device for a session, executes operations in it, and returns their results
  POST /gateways/{id}/sessions the same for a gateway
  POST /fanouts, /triggers     starts a fan-out or a trigger on a gateway, for many devices
  POST /images                 puts an image into a gateway
  GET  /alerts, /sessions      lists received alerts, and open sessions
  PUT  /policies/{device}      assigns a device to a gateway
  GET  /openapi.json           describes the whole API (OpenAPI)

  curl -X POST http://127.0.0.1:8080/devices/urn:dev:1/sessions \\
    -d '{"operations": [{"name": "Get", "uri": "./DevInfo/Mod"}]}'

SIGINT or SIGTERM stops it in order; a second one ends it at once. SIGHUP reads the configuration again: gateways, devices,
assignments, the name and certificate for the broker and the log level are taken over, and the log says what needs a restart.

  --config FILE  configuration, TOML
  --relay URL    relays packages of devices to this DM server over HTTP; overrides relay.url of the configuration
  --check        only checks the configuration, and the files that it names

A minimal configuration:

  [headend]
  id = "dm.example"

  [mqtt]
  url = "mqtt://broker.example:1883"

  [[gateway]]
  id = "gw-1"
  client-secret = "secret of the gateway"
  server-secret = "secret of the DM server"

All keys are in docs/configuration.md.`,
  options: {
    config: { type: 'string', default: 'headend.toml' },
    relay: { type: 'string' },
    check: { type: 'boolean' },
  },
  reloads: true,
  async run({ config: file, relay, check }, stop, _words, hangUps) {
    const read = () => {
      const loaded = loadConfig(headendConfigSchema, String(file));
      return relay === undefined
        ? loaded
        : checkConfig(headendConfigSchema, { ...loaded, relay: { ...loaded.relay, url: relay } }, '--relay');
    };
    const config = read();
    if (check) {
      checkFiles(headendConfigSchema, config, String(file), new SystemClock());
      return console.log(`${file} is valid`);
    }
    const events = new LogEvents(config.log.level, 'headend');
    events.onError = (thrown) => failed(events, 'log', thrown);
    using survivor = surviveErrors(events);
    await using running = new Headend(config, { events });
    survivor.complaint = () => running.complaint();
    await using api = new HeadendApi(running, events);
    await api.start(config.api.host, config.api.port);
    events.emit('api.listening', { url: api.url });
    running.start();
    hangUps.on(() => {
      events.level = running.reload(read).log.level;
    });
    await stopped(stop);
  },
};
