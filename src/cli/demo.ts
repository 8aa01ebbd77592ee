import { PosternError } from '../base/errors.ts';
import { noEvents } from '../base/events.ts';
import { Demo } from '../demo/demo.ts';
import { AdminApi } from '../gateway/console/admin-api.ts';
import { ownSocket } from '../gateway/console/admin-socket.ts';
import { type Command, stopped } from './runner.ts';

/** The answer to a command for which the demo has nothing. */
const notHere = (): never => {
  throw new PosternError(
    'notAllowed',
    'this is the demo, whose gateway has its state in memory and no slots: stop it and start a gateway (postern gateway --config FILE)',
  );
};

export const demo: Command = {
  summary: 'Runs all parties on this machine and describes what happens',
  help: `Usage: postern demo [--once] [--ipv6]

Runs an MQTT broker, a DM server, a gateway and a few End Devices on the loopback interface. Ctrl-C stops them.
Each step of each party is one line.

  --once  ends after the last journey
  --ipv6  uses IPv6; the default on a machine without IPv4`,
  options: { once: { type: 'boolean' }, ipv6: { type: 'boolean' } },
  async run({ once, ipv6 }, stop) {
    await using show = new Demo(console.log, ipv6 ? 6 : undefined);
    const views = {
      '/status': () => show.gateway.status(),
      '/devices': () => show.gateway.devices(),
      '/join': () => show.gateway.joins(),
      '/update': notHere,
    };
    await using admin = new AdminApi(ownSocket(), noEvents, views, {
      '/join': (body) => show.gateway.orderJoins(body),
      ...{ '/update': notHere, '/update/cancel': notHere, '/backup': notHere, '/reset': notHere },
    });
    await admin.start();
    await show.run(stop);
    if (!once && !stop.aborted) await stopped(stop);
    console.log('\nstopping ...');
  },
};
