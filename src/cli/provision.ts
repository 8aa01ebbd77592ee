import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemClock } from '../base/clock.ts';
import { checkFiles } from '../base/config-files.ts';
import { PosternError } from '../base/errors.ts';
import { demandAllowed, type GatewayConfig, gatewayConfigSchema } from '../gateway/config.ts';
import { checkGatewayConfig } from '../gateway/enrolled-config.ts';
import { provision as provisionBoard } from '../gateway/update/provisioning.ts';
import type { Command } from './runner.ts';

export const provision: Command = {
  summary: 'Installs the configuration of a board at its first boot',
  help: `Usage: postern provision --from DIR --to DIR [--with PARTS]
       postern provision --from DIR --check [--with PARTS]

The firmware image runs this command when there is a gateway.toml on its partition CONFIG. The command creates the identity
of the board (ID, keys, secrets), stores the configuration on the data partition, and writes enrolment.json to CONFIG for
the operator.

  --from DIR    mount point of the partition CONFIG
  --to DIR      mount point of the data partition
  --with PARTS  optional parts of the image, such as wifi,cellular
  --check       only checks what is on CONFIG, and the files that gateway.toml names; nothing is changed`,
  options: {
    from: { type: 'string' },
    to: { type: 'string' },
    with: { type: 'string' },
    check: { type: 'boolean' },
  },
  async run({ from, to, with: parts, check }) {
    if (from === undefined || (to === undefined && !check))
      throw new PosternError('configuration', '--from is required, and either --to or --check');
    const given = {
      from: String(from),
      ...(parts !== undefined && { parts: String(parts).split(',') }),
    };
    if (check) return checkOnly(given);
    const provisioned = provisionBoard({ ...given, to: String(to) }, checkGatewayConfig);
    const { gatewayId, udp, tcp, hasPlainSecrets } = provisioned;
    const ports = [...udp.map((port) => `UDP ${port}`), ...tcp.map((port) => `TCP ${port}`)];
    console.log(`postern: this is ${gatewayId}; open ports: ${ports.join(', ')}`);
    if (hasPlainSecrets)
      console.log(
        'postern: WARNING: enrolment.json on CONFIG has the secrets of this gateway in clear; collect it, and delete it',
      );
  },
};

/** Provisions a board that is thrown away. */
function checkOnly(given: { readonly from: string; readonly parts?: readonly string[] }): void {
  const to = mkdtempSync(join(tmpdir(), 'postern-provision-'));
  let config: GatewayConfig | undefined;
  try {
    provisionBoard({ ...given, to, isTrial: true }, (tables, file) => {
      config = checkGatewayConfig(tables, file);
      return config;
    });
  } finally {
    rmSync(to, { recursive: true });
  }
  const file = join(given.from, 'gateway.toml');
  demandAllowed(config!);
  checkFiles(gatewayConfigSchema, config, file, new SystemClock());
  console.log(`${file} is valid for a board`);
}
