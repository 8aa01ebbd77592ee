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
       postern device --id ID [--factory-secret SECRET | --lwm2m] [--gateway URI] [--interface ADDRESS] [--readable]

Finds a gateway, is bootstrapped to it, attaches, and then waits for its DM server to ask for sessions; or, as an LwM2M
client, registers and waits for what its gateway does in adaptation mode.

  --config FILE            configuration, TOML; all keys are in docs/configuration.md
  --id ID                  DevId, instead of a configuration file
  --factory-secret SECRET  what it proves itself to the local bootstrap server by
  --lwm2m                  it is an LwM2M client, ID its endpoint name
  --gateway URI            where the gateway is, coap://192.0.2.1:5683; found by multicast when absent
  --interface ADDRESS      own IPv4 address to speak from
  --readable               sentences instead of JSON
  --check                  only says whether the configuration is right`,
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
    if (values.check) return console.log('the configuration is right');
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
