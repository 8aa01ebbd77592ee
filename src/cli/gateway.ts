import { failed } from '../base/background.ts';
import { SystemClock } from '../base/clock.ts';
import { checkFiles } from '../base/config-files.ts';
import { systemEntropy } from '../base/entropy.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { tellExposed } from '../base/exposed-files.ts';
import { LogEvents } from '../base/log.ts';
import { keyFileOf } from '../base/sealing.ts';
import { userOf } from '../base/state-lock.ts';
import { otherBrokerName } from '../gateway/broker-name.ts';
import { demandAllowed, type GatewayConfig, gatewayConfigSchema } from '../gateway/config.ts';
import { AdminApi } from '../gateway/console/admin-api.ts';
import { demandFree, ownSocket } from '../gateway/console/admin-socket.ts';
import { departIfNeeded } from '../gateway/departure.ts';
import {
  demandEnrolled,
  enrolIfNeeded,
  identityFiles,
  identityKey,
  loadGatewayConfig,
} from '../gateway/enrolled-config.ts';
import { resetIfOrdered } from '../gateway/factory-reset.ts';
import { Gateway } from '../gateway/gateway.ts';
import { LiveSettings } from '../gateway/live-settings.ts';
import type { EnrolmentWay } from '../gateway/northbound/enrolment.ts';
import { configurationExitCode, restartExitCode, slotVariable } from '../gateway/update/directory-slots.ts';
import { systemdWatchdog } from '../gateway/update/systemd.ts';
import { watchdogsOf } from '../gateway/update/watchdog.ts';
import { beFrugal, tidyUpWhenQuiet, watchedForWork } from './frugality.ts';
import { type Command, type HangUps, stopped } from './runner.ts';
import { runParty, surviveErrors } from './service.ts';
import { Waiting } from './waiting.ts';

const defaultFile = '/etc/postern/gateway.toml';

export const gateway: Command = {
  summary: 'Runs a DM Gateway',
  help: `Usage: postern gateway [--config FILE] [--check]

Serves the devices of this network over CoAP with DTLS, and connects to the DM server through an MQTT broker (5 or 3.1.1).
The log goes to standard output, one JSON object per line. SIGINT or SIGTERM stops the gateway in order; a second one ends
it at once. SIGHUP reads the configuration again: devices, credentials, certificates and the log level are taken over, and the
log says what needs a restart. A configuration that is wrong is refused, and the one from before stays.

  --config FILE  configuration, TOML, or a pipe such as /dev/stdin; by default ${defaultFile}
  --check        only checks the configuration, and the files that it names

A minimal configuration:

  [gateway]
  id = "gw-1"
  state = "/var/lib/postern/state.db"

  [mqtt]
  url = "mqtts://broker.example:8883"
  ca = "/etc/postern/ca.pem"
  cert = "/etc/postern/gw-1.pem"
  key = "/etc/postern/gw-1.key"

  [dm-server]
  id = "dm.example"
  client-secret = "secret of the gateway"
  server-secret = "secret of the DM server"

With a table [enrolment] the gateway gets cert, key and the secrets from its head-end at its first start (docs/operations.md).
A gateway behind another gateway has this table instead of [mqtt]:

  [parent]
  id = "gw-0"
  uri = "coaps://192.0.2.1:5684"
  factory-secret = "secret for the parent's bootstrap server"

All keys are in docs/configuration.md.`,
  options: { config: { type: 'string' }, check: { type: 'boolean' } },
  reloads: true,
  async run({ config: file = defaultFile, check }, stop, _words, hangUps) {
    beFrugal();
    const exposed = { file: String(file), schema: gatewayConfigSchema, told: new Set<string>() };
    const read = (events?: Events) => {
      const config = loadGatewayConfig(String(file), events);
      const own = [keyFileOf(config.gateway.state), identityKey(config)];
      if (events) tellExposed({ ...exposed, events }, config, own);
      return config;
    };
    if (check) {
      const config = read();
      demandAllowed(config);
      checkFiles(gatewayConfigSchema, config, String(file), new SystemClock(), identityFiles(config).read);
      // What does not fit together in files that can be read each.
      new LiveSettings(config);
      const other = otherBrokerName(config);
      if (other)
        console.log(
          `warning: mqtt.cert: ${other.file}: ${other.reason}; see mqtt.other-name in docs/events.md`,
        );
      return console.log(`${file} is valid`);
    }
    const log = new LogEvents('info', 'gateway');
    try {
      await runParty(log, async (running) => {
        while (await serve(read, log, running, stop, hangUps));
      });
    } catch (thrown) {
      // The launcher must not blame the slot for it.
      if (process.env[slotVariable] && asPosternError(thrown).code === 'configuration')
        process.exitCode = configurationExitCode;
      throw thrown;
    }
  },
};

/** Runs the gateway until `stop`, or until an update restarts it. Returns true when it is to be started again at once. */
async function serve(
  read: (events?: Events) => GatewayConfig,
  log: LogEvents,
  isRunning: () => void,
  stop: AbortSignal,
  hangUps: HangUps,
): Promise<boolean> {
  const config = await enrolled(read, log, stop);
  if (stop.aborted) return false;
  const socket = config.gateway['admin-socket'] ?? ownSocket();
  const restart = new AbortController();
  const again = new AbortController();
  using survivor = surviveErrors(log);
  await using running = new Gateway(config, {
    events: watchedForWork(log),
    restart: () => restart.abort(),
    startAgain: () => again.abort(),
  });
  log.onError = (thrown) => failed(running.events, 'log', thrown);
  Object.assign(survivor, { events: running.events, complaint: () => running.complaint() });
  const views = {
    '/status': () => running.status(),
    '/devices': () => running.devices(),
    '/join': () => running.joins(),
    '/update': () => running.firmware.status(),
  };
  await using admin = new AdminApi(socket, running.events, views, {
    '/update': (body) => running.firmware.install(body),
    '/update/cancel': () => running.firmware.cancel(),
    '/backup': (body) => running.backUp(body),
    '/join': (body) => running.orderJoins(body),
    '/reset': (body) => running.reset(body),
  });
  // Devices are served before the admin API. But nothing is begun when that could not be served.
  await demandFree(socket);
  await running.start();
  await admin.start();
  isRunning();
  const { events } = running;
  await using told = new AsyncDisposableStack();
  for (const one of systemdWatchdog({ check: () => running.complaint(), clock: clockOf(log), events }))
    told.use(one).start();
  hangUps.on(() => {
    log.level = running.reload(() => demandEnrolled(read())).log.level;
  });
  tidyUpWhenQuiet();
  await stopped(AbortSignal.any([stop, restart.signal, again.signal]));
  if (restart.signal.aborted) process.exitCode = restartExitCode;
  return again.signal.aborted && !stop.aborted && !restart.signal.aborted;
}

const clockOf = (log: LogEvents) => new SystemClock((thrown) => failed(log, 'timer', thrown));

/**
 * The configuration of this gateway, which departs or is enrolled first where that is needed. It serves nobody meanwhile, and
 * its admin socket says what it waits for.
 */
async function enrolled(
  read: (events?: Events) => GatewayConfig,
  log: LogEvents,
  stop: AbortSignal,
): Promise<GatewayConfig> {
  const clock = clockOf(log);
  for (;;) {
    const config = read(log);
    log.level = config.log.level;
    // Two gateways of one configuration would be enrolled, or depart, side by side.
    const { 'admin-socket': socket = ownSocket(), state } = config.gateway;
    await demandFree(socket, () => userOf(state));
    try {
      await using events = new Waiting(config, log);
      // A person may take hours to approve the gateway.
      await using fed = new AsyncDisposableStack();
      const watchdogs = { check: () => undefined, clock, events: log };
      if (config.enrolment)
        for (const one of [...watchdogsOf(config.update?.watchdog, watchdogs), ...systemdWatchdog(watchdogs)])
          fed.use(one).start();
      const machine = { clock, entropy: systemEntropy, events };
      resetIfOrdered(config, log);
      if (await departIfNeeded(config, machine, stop)) continue;
      const asks = (way: () => EnrolmentWay) => events.asks(way);
      return (await enrolIfNeeded(config, machine, stop, asks)) ? read() : config;
    } catch (thrown) {
      if (!stop.aborted) throw thrown;
      return config;
    }
  }
}
