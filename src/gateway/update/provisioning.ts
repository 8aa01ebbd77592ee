import { generateKeyPairSync, randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'smol-toml';
import { syncFile, syncFolder } from '../../base/durable.ts';
import { PosternError } from '../../base/errors.ts';

export interface Provisioned {
  readonly gatewayId: string;
  readonly udp: readonly number[];
  readonly tcp: readonly number[];
}

type Table = Record<string, unknown>;

/** Keys of the configuration that name files, which come with it. */
const fileKeys: readonly (readonly [table: string, key: string])[] = [
  ['mqtt', 'ca'],
  ['mqtt', 'cert'],
  ['mqtt', 'key'],
  ['http', 'tls-cert'],
  ['http', 'tls-key'],
  ['images', 'ca'],
  ['images', 'signing-keys'],
  ['update', 'ca'],
];
const configFile = 'gateway.toml';
const enrolmentFile = 'enrolment.json';
const plainFiles = /\.(pem|crt|key)$|^ntp-servers$/;

/** What a board gives to each configuration, unless it says otherwise. */
const ofTheBoard = (data: string): Readonly<Record<string, Table>> => ({
  gateway: { state: join(data, 'state/state.db'), 'admin-socket': '/run/postern/admin.sock' },
  images: { directory: join(data, 'state/images'), quota: 80 },
  update: { slots: 'rauc', watchdog: '/dev/watchdog' },
});

/**
 * Takes a configuration from the medium that came with a board: makes what is to be unique of each board, its name, its key
 * pair and its secrets, where the configuration does not give them; keeps it on the board's own flash; takes what is secret
 * off the medium; and leaves there, in enrolment.json, what the operator's server has to know of a board that made its own.
 * A power cut at any point lets it be done again.
 * @param check whether the gateway can run by it
 * @throws {PosternError} `configuration`; the medium is as it was
 */
export function provision(
  { from, to }: { readonly from: string; readonly to: string },
  check: (
    config: unknown,
    file: string,
  ) => { coap: { port: number }; http?: { host: string; port: number } | undefined },
): Provisioned {
  const source = join(from, configFile);
  const config = join(to, 'config');
  if (!existsSync(source))
    throw new PosternError(
      'configuration',
      `put ${configFile} onto the partition CONFIG; ${configFile}.example is one`,
    );
  mkdirSync(config, { recursive: true, mode: 0o700 });
  const tables = readTables(source);
  const made = makeIdentity(to, tables);
  const all = { ...tables, ...mergeTables(ofTheBoard(to), tables) };
  for (const [table, key] of fileKeys) placeFile(all[table] as Table | undefined, key, from, config);
  const { coap, http } = check(all, source);
  for (const name of readdirSync(from).filter((one) => plainFiles.test(one))) {
    copyFileSync(join(from, name), join(config, name));
    syncFile(join(config, name));
  }
  keep(join(config, configFile), stringify(all));
  const udp = [coap.port];
  const tcp = http && !/^(127\.|::1|localhost)/.test(http.host) ? [http.port] : [];
  keep(join(config, 'firewall.nft'), firewall({ udp, tcp }));
  keep(join(to, 'hostname'), `${made.id}\n`);
  writeFileSync(join(from, enrolmentFile), `${JSON.stringify(made.enrolment, null, 2)}\n`);
  syncFile(join(from, enrolmentFile));
  for (const name of readdirSync(from).filter((one) => one === configFile || plainFiles.test(one)))
    rmSync(join(from, name));
  syncFolder(from);
  return { gatewayId: made.id, udp, tcp };
}

function readTables(file: string): Record<string, Table> {
  try {
    return parse(readFileSync(file, 'utf8')) as Record<string, Table>;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `${file}: no TOML: ${why}`, { cause });
  }
}

/** The tables of the board, with what the configuration says above them. */
const mergeTables = (board: Readonly<Record<string, Table>>, given: Record<string, Table>) =>
  Object.fromEntries(Object.entries(board).map(([name, table]) => [name, { ...table, ...given[name] }]));

/** Completes the tables with what this board alone has. What was made once stays, whatever is provisioned later. */
function makeIdentity(to: string, tables: Record<string, Table>) {
  const folder = join(to, 'identity');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const once = (name: string, make: () => string): string => {
    const file = join(folder, name);
    if (!existsSync(file)) keep(file, make());
    return readFileSync(file, 'utf8').trim();
  };
  const secret = () => `${randomBytes(24).toString('base64url')}\n`;
  const privateKey = () => {
    const { privateKey: key, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    keep(join(folder, 'gateway.pub'), publicKey.export({ type: 'spki', format: 'pem' }) as string);
    return key.export({ type: 'pkcs8', format: 'pem' }) as string;
  };
  once('gateway.key', privateKey);
  const gateway: Table = { ...tables.gateway };
  const server: Table = { ...tables['dm-server'] };
  Object.assign(tables, { gateway, 'dm-server': server });
  gateway.id ??= once('id', () => `gw-${randomBytes(6).toString('hex')}\n`);
  const isGiven = 'client-secret' in server && 'server-secret' in server;
  server['client-secret'] ??= once('client-secret', secret);
  server['server-secret'] ??= once('server-secret', secret);
  const id = String(gateway.id);
  const enrolment = {
    id,
    publicKey: readFileSync(join(folder, 'gateway.pub'), 'utf8'),
    ...(!isGiven && { clientSecret: server['client-secret'], serverSecret: server['server-secret'] }),
  };
  return { id, enrolment };
}

/** A file that came with the configuration is named by its place on the board. */
function placeFile(table: Table | undefined, key: string, from: string, config: string): void {
  const named = table?.[key];
  const place = (name: unknown) =>
    typeof name === 'string' && existsSync(join(from, name)) ? join(config, name) : name;
  if (table && named !== undefined) table[key] = Array.isArray(named) ? named.map(place) : place(named);
}

function firewall({ udp, tcp }: Pick<Provisioned, 'udp' | 'tcp'>): string {
  const open = (set: string, ports: readonly number[]) =>
    ports.map((port) => `add element inet postern ${set} { ${port} }\n`).join('');
  return open('open_udp', udp) + open('open_tcp', tcp);
}

/** All of it is there after a power cut, or what was there before. */
function keep(file: string, text: string): void {
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  syncFile(`${file}.new`);
  renameSync(`${file}.new`, file);
  syncFolder(join(file, '..'));
}
