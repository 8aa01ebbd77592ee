import { PosternError } from '../base/errors.ts';
import { checkGatewayConfig } from '../gateway/enrolled-config.ts';
import { provision as provisionBoard } from '../gateway/update/provisioning.ts';
import type { Command } from './runner.ts';

export const provision: Command = {
  summary: 'Installs the configuration of a board at its first boot',
  help: `Usage: postern provision --from DIR --to DIR

The firmware image runs this command when there is a gateway.toml on its partition CONFIG. The command creates the identity
of the board (ID, keys, secrets), stores the configuration on the data partition, and writes enrolment.json to CONFIG for
the operator.

  --from DIR  mount point of the partition CONFIG
  --to DIR    mount point of the data partition`,
  options: { from: { type: 'string' }, to: { type: 'string' } },
  async run({ from, to }) {
    if (from === undefined || to === undefined)
      throw new PosternError('configuration', '--from and --to are both required');
    const { gatewayId, udp, tcp } = provisionBoard({ from: String(from), to: String(to) }, (config, file) =>
      checkGatewayConfig(config, file),
    );
    const ports = [...udp.map((port) => `UDP ${port}`), ...tcp.map((port) => `TCP ${port}`)];
    console.log(`postern: this is ${gatewayId}; open ports: ${ports.join(', ')}`);
  },
};
