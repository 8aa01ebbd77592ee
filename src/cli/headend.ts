import { failed } from '../base/background.ts';
import { SystemClock } from '../base/clock.ts';
import { checkConfig, loadConfig } from '../base/config.ts';
import { checkFiles } from '../base/config-files.ts';
import { PosternError } from '../base/errors.ts';
import { tellExposed } from '../base/exposed-files.ts';
import { LogEvents } from '../base/log.ts';
import { keyFileOf } from '../base/sealing.ts';
import { HeadendApi } from '../headend/api.ts';
import { apiIdentity } from '../headend/api-identity.ts';
import { ApiToken } from '../headend/api-token.ts';
import { type HeadendConfig, headendConfigSchema } from '../headend/config.ts';
import { Headend } from '../headend/headend.ts';
import { boundGarbage } from './frugality.ts';
import { type Command, type HangUps, stopped } from './runner.ts';
import { runParty, surviveErrors } from './service.ts';

export const headend: Command = {
  summary: 'Runs the reference DM server',
  help: `Usage: postern headend [--config FILE] [--relay URL] [--token-file FILE] [--check | --new-token]

Manages devices behind gateways, over an MQTT broker. It has an HTTP API, and each request needs its token. The token is
made at the first start and written to a file beside the state, such as headend.db.token, in the form of a header for curl:

  GET  /gateways, /devices     lists gateways and devices: online or not, and behind which gateway
  POST /devices/{id}/sessions  asks a device for a session, executes operations in it, and returns their results
  POST /gateways/{id}/sessions the same for a gateway
  POST /fanouts, /triggers     starts a fan-out or a trigger on a gateway, for many devices
  POST /images                 puts an image into a gateway
  GET  /fanouts/{gateway}/{name}, /triggers/…, /images/…  state and result of an order; DELETE removes it
  GET  /orders                 lists all orders with their states
  GET  /alerts, /sessions      lists received alerts, and open sessions
  PUT  /policies/{device}      assigns a device to a gateway
  GET  /enrolments             lists boards that ask for a certificate; POST /enrolments/{key}/approve, /refuse
  POST /enrolment-codes        makes a one-time code, by which one board is enrolled without a person
  POST /gateways/{id}/replacement   lets another board have the name of a dead one
  POST /gateways/{id}/decommission, /transfer   ends a gateway, or passes it to another owner; GET /departures lists both
  GET  /openapi.json           describes the whole API (OpenAPI)

  curl -H @headend.db.token http://127.0.0.1:8080/devices
  curl -H @headend.db.token http://127.0.0.1:8080/devices/urn:dev:1/sessions \\
    --json '{"operations": [{"name": "Get", "uri": "./DevInfo/Mod"}]}'

SIGINT or SIGTERM stops it in order; a second one ends it at once. SIGHUP reads the configuration again: gateways, devices,
assignments, the names and certificates for the broker and the API, and the log level are taken over, and the log says what
needs a restart.

  --config FILE      configuration, TOML, or a pipe such as /dev/stdin; by default headend.toml in this folder
  --relay URL        relays packages of devices to this DM server over HTTP; overrides relay.url of the configuration
  --token-file FILE  file that a new token is written to; overrides api.token-file of the configuration
  --check            only checks the configuration, and the files that it names
  --new-token        only makes a new token; the one before is not accepted any more, by a head-end that runs either

A minimal configuration:

  [headend]
  id = "dm.example"

  [mqtt]
  url = "mqtts://broker.example:8883"
  ca = "/etc/postern/ca.pem"
  cert = "/etc/postern/dm.example.pem"
  key = "/etc/postern/dm.example.key"

  [[gateway]]
  id = "gw-1"
  client-secret = "secret of the gateway"
  server-secret = "secret of the DM server"

All keys are in docs/configuration.md.`,
  options: {
    config: { type: 'string', default: 'headend.toml' },
    relay: { type: 'string' },
    'token-file': { type: 'string' },
    check: { type: 'boolean' },
    'new-token': { type: 'boolean' },
  },
  reloads: true,
  async run({ config: file, relay, check, ...values }, stop, _words, hangUps) {
    boundGarbage();
    const read = () => {
      const loaded = loadConfig(headendConfigSchema, String(file));
      return relay === undefined
        ? loaded
        : checkConfig(headendConfigSchema, { ...loaded, relay: { ...loaded.relay, url: relay } }, '--relay');
    };
    if (check) {
      checkFiles(headendConfigSchema, read(), String(file), new SystemClock());
      return console.log(`${file} is valid`);
    }
    const tokenFor = (config: HeadendConfig) =>
      new ApiToken({
        state: config.headend.state,
        file: values['token-file'] === undefined ? config.api['token-file'] : String(values['token-file']),
      });
    if (values['new-token']) {
      const config = read();
      return renew(tokenFor(config), config.headend.state);
    }
    const log = new LogEvents('info', 'headend');
    const readFirst = () => {
      const config = read();
      const exposed = { file: String(file), schema: headendConfigSchema, told: new Set<string>() };
      tellExposed({ ...exposed, events: log }, config, [keyFileOf(config.headend.state)]);
      return config;
    };
    await runParty(
      log,
      async (running) => await serve({ read, readFirst, tokenFor, log }, running, stop, hangUps),
    );
  },
};

interface ServeParts {
  readonly read: () => HeadendConfig;
  /** The same at the start: tells of files that all users can open. */
  readonly readFirst: () => HeadendConfig;
  readonly tokenFor: (config: HeadendConfig) => ApiToken;
  readonly log: LogEvents;
}

/** Runs the head-end and its API until `stop`. */
async function serve(
  { read, readFirst, tokenFor, log }: ServeParts,
  isRunning: () => void,
  stop: AbortSignal,
  hangUps: HangUps,
): Promise<void> {
  const config = readFirst();
  log.level = config.log.level;
  const token = tokenFor(config);
  const tls = apiIdentity(config.api);
  log.onError = (thrown) => failed(log, 'log', thrown);
  using survivor = surviveErrors(log);
  await using running = new Headend(config, { events: log });
  survivor.complaint = () => running.complaint();
  if (token.prepare()) running.events.emit('api.token-made', { file: token.file });
  await using api = new HeadendApi({
    ...{ headend: running, events: running.events, token, settings: config.api, tls },
  });
  await api.start();
  running.events.emit('api.listening', { url: api.url });
  running.start();
  isRunning();
  hangUps.on(() => {
    const current = running.reload(read, ({ api: settings }) => {
      const renewed = apiIdentity(settings);
      if (renewed) api.renew(renewed);
    });
    log.level = current.log.level;
  });
  await stopped(stop);
}

/** @throws {PosternError} `configuration` */
function renew(token: ApiToken, state: string): void {
  if (state === ':memory:')
    throw new PosternError('configuration', 'headend.state is :memory:, so each start makes a new token');
  token.renew();
  console.log(`the new token is in ${token.file}; the one before is not accepted any more`);
}
