import { checkConfig, loadConfig } from '../base/config.ts';
import { LogEvents } from '../base/log.ts';
import { HeadendApi } from '../headend/api.ts';
import { headendConfigSchema } from '../headend/config.ts';
import { Headend } from '../headend/headend.ts';
import { type Command, stopped } from './runner.ts';

export const headend: Command = {
  summary: 'Runs the reference DM server',
  help: `Usage: postern headend --config FILE [--relay URL] [--check]

Manages devices behind gateways, over an MQTT broker, and offers an HTTP API:

  GET  /gateways, /devices     which there are, online or not, and behind which gateway
  POST /devices/{id}/sessions  has a device open a session, does operations in it, and answers with what they came to
  POST /gateways/{id}/sessions the same with a gateway
  POST /fanouts, /triggers     has a gateway do something with many devices
  POST /images                 puts an image into a gateway
  GET  /alerts, /sessions      what was reported, and what is under way
  PUT  /policies/{device}      chooses the gateway that a device belongs to
  GET  /openapi.json           all of it, as OpenAPI

  curl -X POST http://127.0.0.1:8080/devices/urn:dev:1/sessions \\
    -d '{"operations": [{"name": "Get", "uri": "./DevInfo/Mod"}]}'

  --config FILE  configuration, TOML
  --relay URL    hands packages of devices to this DM server, over HTTP, in place of the configuration's relay.url
  --check        only says whether the configuration is right

A configuration that is enough:

  [headend]
  id = "dm.example"

  [mqtt]
  url = "mqtt://broker.example:1883"

  [[gateway]]
  id = "gw-1"
  client-secret = "what the gateway proves itself by"
  server-secret = "what the server proves itself by"

All keys are in docs/configuration.md.`,
  options: {
    config: { type: 'string', default: 'headend.toml' },
    relay: { type: 'string' },
    check: { type: 'boolean' },
  },
  async run({ config: file, relay, check }, stop) {
    const loaded = loadConfig(headendConfigSchema, String(file));
    const config =
      relay === undefined
        ? loaded
        : checkConfig(headendConfigSchema, { ...loaded, relay: { ...loaded.relay, url: relay } }, '--relay');
    if (check) return console.log(`${file} is right`);
    const events = new LogEvents(config.log.level, 'headend');
    await using running = new Headend(config, { events });
    await using api = new HeadendApi(running, events);
    await api.start(config.api.host, config.api.port);
    events.emit('api.listening', { url: api.url });
    running.start();
    await stopped(stop);
  },
};
