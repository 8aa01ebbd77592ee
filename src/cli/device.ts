import { checkConfig, loadConfig } from '../base/config.ts';
import { LogEvents } from '../base/log.ts';
import { Narrator } from '../demo/narrator.ts';
import { deviceConfigSchema } from '../device/config.ts';
import { Device } from '../device/device.ts';
import { LwM2mDevice } from '../device/lwm2m-device.ts';
import { type Command, stopped, type Values } from './runner.ts';

export const device: Command = {
  summary: 'Runs a reference End Device',
  help: `Usage: postern device --config FILE [--readable] [--check]
       postern device --id ID [--factory-secret SECRET | --lwm2m] [--gateway URI] [--interface WHERE] [--readable]

The device finds a gateway, is bootstrapped to it and attaches. Then it waits for requests of its DM server for sessions.
As an LwM2M client, it registers and waits for requests of its gateway (adaptation mode).

  --config FILE            configuration, TOML; all keys are in docs/configuration.md
  --id ID                  DevId, instead of a configuration file
  --factory-secret SECRET  secret for the local bootstrap server
  --lwm2m                  runs as an LwM2M client; ID is its endpoint name
  --gateway URI            address of the gateway, such as coap://192.0.2.1:5683; by default found by multicast
  --interface WHERE        IP address or name of the interface to use; by default all
  --readable               prints sentences instead of JSON
  --check                  only checks the configuration`,
  options: {
    config: { type: 'string' },
    id: { type: 'string' },
    'factory-secret': { type: 'string' },
    lwm2m: { type: 'boolean' },
    gateway: { type: 'string' },
    interface: { type: 'string' },
    readable: { type: 'boolean' },
    check: { type: 'boolean' },
  },
  async run(values, stop) {
    const config =
      values.config === undefined
        ? checkConfig(deviceConfigSchema, fromOptions(values), 'the command line')
        : loadConfig(deviceConfigSchema, String(values.config));
    if (values.check) return console.log('the configuration is valid');
    const events = values.readable
      ? new Narrator('device', console.log)
      : new LogEvents(config.log.level, 'device');
    await using running = config.lwm2m ? new LwM2mDevice(config, { events }) : new Device(config, { events });
    await running.start();
    await stopped(stop);
  },
};

function fromOptions({ id, 'factory-secret': secret, lwm2m, gateway, interface: address }: Values): unknown {
  return {
    device: { ...(id !== undefined && { id }), ...(secret !== undefined && { 'factory-secret': secret }) },
    ...(lwm2m && { lwm2m: {} }),
    network: {
      ...(gateway !== undefined && { gateway }),
      ...(address !== undefined && { interface: address }),
    },
  };
}
