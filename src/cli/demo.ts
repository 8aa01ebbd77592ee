import { Demo } from '../demo/demo.ts';
import { AdminApi, defaultSocket } from '../gateway/console/admin-api.ts';
import { type Command, stopped } from './runner.ts';

export const demo: Command = {
  summary: 'Runs everything on this machine, and tells what happens',
  help: `Usage: postern demo [--once]

An MQTT broker, a DM server, a gateway and a few End Devices, all on the loopback interface. Ctrl-C stops it.

  --once  ends when all was shown`,
  options: { once: { type: 'boolean' } },
  async run({ once }, stop) {
    await using show = new Demo(console.log);
    await using admin = new AdminApi(defaultSocket(), {
      '/status': () => show.gateway.status(),
      '/devices': () => show.gateway.devices(),
    });
    await admin.start();
    await show.run(stop);
    if (!once && !stop.aborted) await stopped(stop);
    console.log('\nstopping ...');
  },
};
