import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parse, stringify } from 'smol-toml';
import { checkGatewayConfig } from '../../src/gateway/enrolled-config.ts';
import { provision } from '../../src/gateway/update/provisioning.ts';
import type { Identity } from './identities.ts';

type Table = Readonly<Record<string, unknown>>;

/** The configuration that all boards of a batch share. */
export interface Template {
  readonly tables: Readonly<Record<string, Table>>;
  /** Files that the configuration names, and the list of time servers: path on this machine, by name on CONFIG. */
  readonly files: Readonly<Record<string, string>>;
}

/** Keys that each board has of its own. */
const own = [
  ['gateway', 'id'],
  ['enrolment', 'code'],
  ['enrolment', 'serial'],
] as const;
/** Lists the time servers of a board. No configuration names it. */
const timeServers = 'ntp-servers';

/**
 * Reads the configuration of a batch.
 * @param file gateway.toml
 * @throws {Error} when it cannot be read, has no table `[enrolment]`, or has a key that each board has of its own
 */
export function readTemplate(file: string): Template {
  const tables = parse(readFileSync(file, 'utf8')) as Template['tables'];
  if (tables.enrolment === undefined)
    throw new Error(`${file}: a batch needs the table [enrolment], with the claim of its boards`);
  for (const [table, key] of own)
    if (tables[table]?.[key] !== undefined)
      throw new Error(`${file}: leave out ${table}.${key}, which each board has of its own`);
  const names = Object.values(tables).flatMap((table) => Object.values(table).flat());
  // Only what is named: beside the configuration there may be the key of an authority.
  const named = [...names, timeServers].filter(
    (name): name is string =>
      typeof name === 'string' && !name.includes('/') && existsSync(join(dirname(file), name)),
  );
  return {
    tables,
    files: Object.fromEntries(named.map((name) => [name, join(dirname(file), name)])),
  };
}

/** The gateway.toml of one board. */
export const boardConfig = ({ tables }: Template, { gateway, serial, code }: Identity): string =>
  stringify({
    ...tables,
    gateway: { ...tables.gateway, id: gateway },
    enrolment: { ...tables.enrolment, serial, code },
  });

/**
 * Provisions a board from its files, in a folder that is thrown away, so that a configuration that boards refuse is found here and
 * not at a thousand sites.
 * @param folder files for CONFIG; they stay
 * @throws {PosternError} `configuration`
 */
export function tryBoard(folder: string): void {
  const trial = mkdtempSync(join(tmpdir(), 'postern-factory-'));
  try {
    const medium = mkdtempSync(join(trial, 'config-'));
    for (const name of readdirSync(folder)) copyFileSync(join(folder, name), join(medium, name));
    provision({ from: medium, to: join(trial, 'data') }, (config, file) => checkGatewayConfig(config, file));
  } finally {
    rmSync(trial, { recursive: true });
  }
}
