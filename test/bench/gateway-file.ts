import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { secrets } from './crowd.ts';

/** A `[[bootstrap.device]]` for each of these devices. */
export const factoryDevices = (ids: readonly string[]): string =>
  ids.map((id) => `[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "${secrets.factory(id)}"\n`).join('');

/**
 * Writes the configuration of a gateway `gw-1`, with its state in the folder. Returns its path.
 * @param more further tables, as TOML
 * @param served name of the interface that it serves: loopback if absent
 */
export function writeGatewayFile(
  folder: string,
  broker: string,
  more: string,
  port = 0,
  served = 'lo',
): string {
  const file = join(folder, 'gateway.toml');
  writeFileSync(
    file,
    `[gateway]
id = "gw-1"
state = "${join(folder, 'state.db')}"
admin-socket = "${join(folder, 'admin.sock')}"
[coap]
port = ${port}
interfaces = ["${served}"]
insecure-plain-coap = true
[mqtt]
url = "${broker}"
[dm-server]
id = "dm.example"
client-secret = "${secrets.gatewayClient}"
server-secret = "${secrets.gatewayServer}"
${more}`,
  );
  return file;
}
