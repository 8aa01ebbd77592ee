import * as v from 'valibot';
import { checkConfig, described, text } from '../../base/config.ts';
import { networkSection } from './network-config.ts';

/** The tables of a board's `gateway.toml` that the gateway itself does not know. They end with the provisioning. */
export const boardConfigSchema = v.strictObject({
  network: networkSection,
  provision: v.optional(
    v.pipe(
      v.strictObject({
        'operator-key': described(
          v.optional(text),
          'PEM file with a public key on P-256, beside the configuration. A board that makes its own secrets seals them to it, in `enrolment.json` (`postern account`)',
        ),
        'insecure-plain-secrets': described(
          v.optional(v.boolean(), false),
          'Write the secrets into `enrolment.json` in clear. Whoever reads the medium before the file is deleted can speak for the gateway',
        ),
      }),
      v.check(
        (table) => table['operator-key'] === undefined || !table['insecure-plain-secrets'],
        'operator-key and insecure-plain-secrets exclude each other; remove one',
      ),
    ),
    {},
  ),
});
export type BoardConfig = v.InferOutput<typeof boardConfigSchema>;

/**
 * Takes the tables of the board out of those of a configuration, and checks them.
 * @param file name of the file, for the error messages
 * @throws {PosternError} `configuration`
 */
export function takeBoardConfig(tables: Record<string, unknown>, file: string): BoardConfig {
  const { network, provision } = tables;
  delete tables.network;
  delete tables.provision;
  return checkConfig(boardConfigSchema, { network, provision }, file);
}
