import { Demo } from '../demo/demo.ts';
import { AdminApi, defaultSocket } from '../gateway/console/admin-api.ts';
import { type Command, stopped } from './runner.ts';

export const demo: Command = {
  summary: 'Runs all parties on this machine and describes what happens',
  help: `Usage: postern demo [--once]

Runs an MQTT broker, a DM server, a gateway and a few End Devices on the loopback interface. Ctrl-C stops them.
Each step of each party is one line.

  --once  ends after the last journey`,
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
