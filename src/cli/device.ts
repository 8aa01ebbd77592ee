import { failed } from '../base/background.ts';
import { SystemClock } from '../base/clock.ts';
import { checkConfig, loadConfig } from '../base/config.ts';
import { checkFiles } from '../base/config-files.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { tellExposed } from '../base/exposed-files.ts';
import { LiveConfig } from '../base/live-config.ts';
import { LogEvents } from '../base/log.ts';
import { readNamedFile } from '../base/named-file.ts';
import { Narrator } from '../demo/narrator.ts';
import { deviceConfigSchema, deviceReloads } from '../device/config.ts';
import { Device } from '../device/device.ts';
import { LwM2mDevice } from '../device/lwm2m-device.ts';
import { type Command, stopped, type Values } from './runner.ts';
import { runParty, surviveErrors } from './service.ts';

export const device: Command = {
  summary: 'Runs a reference End Device',
  help: `Usage: postern device --config FILE [--readable] [--check]
       postern device --id ID [--factory-secret-file FILE] [--lwm2m] [--gateway URI] [--interface WHERE] [--readable]

The device finds a gateway, is bootstrapped to it and attaches. Then it waits for requests of its DM server for sessions.
As an LwM2M client, it registers and waits for requests of its gateway (adaptation mode).

SIGINT or SIGTERM stops it in order; a second one ends it at once. SIGHUP reads the configuration file again: the log level is
taken over, and the log says what needs a restart.

  --config FILE               configuration, TOML; all keys are in docs/configuration.md
  --id ID                     DevId, instead of a configuration file
  --factory-secret-file FILE  file with the secret for the local bootstrap server
  --lwm2m                     runs as an LwM2M client; ID is its endpoint name
  --gateway URI               address of the gateway, such as coap://192.0.2.1:5683 or coaps://192.0.2.1:5684; by default
                              found by multicast
  --interface WHERE           IP address or name of the interface to use; by default all
  --readable                  prints sentences instead of JSON
  --check                     only checks the configuration, and the files that it names

Without --factory-secret-file, the environment variable POSTERN_FACTORY_SECRET has the secret, if there is one. It is no option,
because the list of processes shows options to all users.`,
  options: {
    config: { type: 'string' },
    id: { type: 'string' },
    'factory-secret': { type: 'string' },
    'factory-secret-file': { type: 'string' },
    lwm2m: { type: 'boolean' },
    gateway: { type: 'string' },
    interface: { type: 'string' },
    readable: { type: 'boolean' },
    check: { type: 'boolean' },
  },
  reloads: true,
  async run(values, stop, _words, hangUps) {
    const read = () =>
      values.config === undefined
        ? checkConfig(deviceConfigSchema, fromOptions(values), 'the command line')
        : loadConfig(deviceConfigSchema, String(values.config));
    if (values.check) {
      const file = String(values.config ?? 'the command line');
      checkFiles(deviceConfigSchema, read(), file, new SystemClock());
      return console.log('the configuration is valid');
    }
    const log = new LogEvents('info', 'device');
    const events = values.readable ? new Narrator('device', console.log) : log;
    log.onError = (thrown) => failed(events, 'log', thrown);
    await runParty(events, async (isRunning) => {
      const config = read();
      log.level = config.log.level;
      const file = values.config ?? values['factory-secret-file'];
      if (file !== undefined)
        tellExposed({ events, file: String(file), schema: deviceConfigSchema, told: new Set() }, config);
      using _ = surviveErrors(events);
      await using running = config.lwm2m
        ? new LwM2mDevice(config, { events })
        : new Device(config, { events });
      await running.start();
      isRunning();
      const live = new LiveConfig(config, events, (key) => deviceReloads.includes(key));
      hangUps.on(() => {
        live.reload(read, () => {});
        log.level = live.current.log.level;
      });
      await stopped(stop);
    });
  },
};

function fromOptions(values: Values): unknown {
  const { id, lwm2m, gateway, interface: address } = values;
  const secret = factorySecret(values);
  return {
    device: { ...(id !== undefined && { id }), ...(secret !== undefined && { 'factory-secret': secret }) },
    ...(lwm2m && { lwm2m: {} }),
    network: {
      ...(gateway !== undefined && { gateway }),
      ...(address !== undefined && { interface: address }),
    },
  };
}

/** @throws {PosternError} `configuration` */
function factorySecret({ 'factory-secret': given, 'factory-secret-file': file }: Values): string | undefined {
  if (given !== undefined)
    throw new PosternError(
      'configuration',
      '--factory-secret would show the secret in the list of processes; use --factory-secret-file FILE, or the environment variable POSTERN_FACTORY_SECRET',
    );
  if (file === undefined) return process.env.POSTERN_FACTORY_SECRET;
  try {
    return readNamedFile(String(file), { takesPipe: true })
      .toString()
      .replace(/\r?\n$/, '');
  } catch (cause) {
    const { message } = asPosternError(cause);
    throw new PosternError('configuration', `--factory-secret-file: ${file} ${message}`, { cause });
  }
}
