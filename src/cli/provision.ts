import { checkConfig } from '../base/config.ts';
import { PosternError } from '../base/errors.ts';
import { gatewayConfigSchema } from '../gateway/config.ts';
import { provision as provisionBoard } from '../gateway/update/provisioning.ts';
import type { Command } from './runner.ts';

export const provision: Command = {
  summary: 'Takes the configuration of a board that was just flashed',
  help: `Usage: postern provision --from DIR --to DIR

The firmware image calls this when gateway.toml lies on its partition CONFIG. It gives the board what is unique to it, keeps
the configuration on the data partition, and leaves enrolment.json for the operator.

  --from DIR  where the partition CONFIG is
  --to DIR    where the data partition is`,
  options: { from: { type: 'string' }, to: { type: 'string' } },
  async run({ from, to }) {
    if (from === undefined || to === undefined)
      throw new PosternError('configuration', 'both --from and --to are needed');
    const { gatewayId, udp, tcp } = provisionBoard({ from: String(from), to: String(to) }, (config, file) =>
      checkConfig(gatewayConfigSchema, config, file),
    );
    const ports = [...udp.map((port) => `UDP ${port}`), ...tcp.map((port) => `TCP ${port}`)];
    console.log(`postern: this is ${gatewayId}; open are ${ports.join(', ')}`);
  },
};
