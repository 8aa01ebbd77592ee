import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'smol-toml';
import { syncFile, syncFolder, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { readNamedFile } from '../../base/named-file.ts';
import { BoardIdentity } from '../northbound/board-identity.ts';

/** Result of the provisioning: name of the gateway, and ports that the firewall opens. */
export interface Provisioned {
  readonly gatewayId: string;
  readonly udp: readonly number[];
  readonly tcp: readonly number[];
}

type Table = Record<string, unknown>;

/** Keys of the configuration whose values are names of files. These files may come with the configuration. */
const fileKeys: readonly (readonly [table: string, key: string])[] = [
  ['mqtt', 'ca'],
  ['mqtt', 'cert'],
  ['mqtt', 'key'],
  ['enrolment', 'cert'],
  ['enrolment', 'key'],
  ['coaps', 'certificate-file'],
  ['coaps', 'key-file'],
  ['coaps', 'ca-files'],
  ['http', 'tls-cert'],
  ['http', 'tls-key'],
  ['images', 'ca'],
  ['images', 'signing-keys'],
  ['update', 'ca'],
];
const configFile = 'gateway.toml';
/** File on the medium by which the operator's server learns of the board. */
const enrolmentFile = 'enrolment.json';
/** Files on the medium that are copied beside the configuration. */
const plainFiles = /\.(pem|crt|key)$|^(ntp-servers|recovery-url)$/;
/** Those that root reads. */
const ofRoot = /^(ntp-servers|recovery-url)$/;

/** Defaults of the board. The configuration on the medium overrides them. */
const boardDefaults = (data: string): Readonly<Record<string, Table>> => ({
  gateway: { state: join(data, 'state/state.db'), 'admin-socket': '/run/postern/admin.sock' },
  images: { directory: join(data, 'state/images'), quota: 80 },
  update: { slots: 'rauc', watchdog: '/dev/watchdog' },
});

/**
 * Takes over the configuration from the medium of a board:
 * - Makes the board's key pair; and its name and secrets, unless the configuration gives them, or enrolment will.
 * - Stores the configuration and the files that came with it in the board's own data folder. What root reads is in the
 *   folder `root` there: the firewall rules, the time servers, the URL of the recovery system, and `allow-older` when the configuration allows that.
 * - Writes `enrolment.json` to the medium. It holds what the operator's server must know of the board: name, public key,
 *   and the secrets if the board made them.
 * - Deletes the configuration and its files from the medium, because they may hold secrets.
 *
 * After a power cut at any point, it can be run again.
 * @param from folder of the medium
 * @param to data folder of the board
 * @param check validates the configuration and returns it; throws when the gateway cannot run with it
 * @throws {PosternError} `configuration`; the medium is unchanged then
 */
export function provision(
  { from, to }: { readonly from: string; readonly to: string },
  check: (
    config: unknown,
    file: string,
  ) => {
    coap: { port: number };
    coaps?: { port: number } | undefined;
    http?: { host: string; port: number } | undefined;
  },
): Provisioned {
  const source = join(from, configFile);
  const [config, root] = [join(to, 'config'), join(to, 'root')];
  if (!existsSync(source))
    throw new PosternError(
      'configuration',
      `put ${configFile} onto the partition CONFIG; ${configFile}.example is an example`,
    );
  makeFolder(config, { mode: 0o700 });
  makeFolder(root, { mode: 0o700 });
  const tables = readTables(source);
  const made = makeIdentity(to, tables);
  const all = { ...tables, ...mergeTables(boardDefaults(to), tables) };
  for (const [table, key] of fileKeys) placeFile(all[table] as Table | undefined, key, from, config);
  const { coap, coaps, http } = check(all, source);
  for (const name of readdirSync(from).filter((one) => plainFiles.test(one))) {
    const copy = join(ofRoot.test(name) ? root : config, name);
    copyFileSync(join(from, name), copy);
    syncFile(copy);
  }
  writeDurably(join(config, configFile), stringify(all));
  const udp = [coap.port, ...(coaps ? [coaps.port] : [])];
  const tcp = http && !/^(127\.|::1|localhost)/.test(http.host) ? [http.port] : [];
  writeDurably(join(root, 'firewall.nft'), firewall({ udp, tcp }));
  if ((all.update as Table)['allow-older']) writeDurably(join(root, 'allow-older'), '');
  else rmSync(join(root, 'allow-older'), { force: true });
  writeDurably(join(to, 'hostname'), `${made.id}\n`);
  writeFileSync(join(from, enrolmentFile), `${JSON.stringify(made.enrolment, null, 2)}\n`);
  syncFile(join(from, enrolmentFile));
  for (const name of readdirSync(from).filter((one) => one === configFile || plainFiles.test(one)))
    rmSync(join(from, name));
  syncFolder(from);
  return { gatewayId: made.id, udp, tcp };
}

function readTables(file: string): Record<string, Table> {
  try {
    return parse(readNamedFile(file).toString()) as Record<string, Table>;
  } catch (cause) {
    const { code, message } = asPosternError(cause);
    const why = code === 'configuration' ? message : `no TOML: ${message}`;
    throw new PosternError('configuration', `${file}: ${why}`, { cause });
  }
}

/** The board's tables; keys that the configuration gives replace the board's. */
const mergeTables = (board: Readonly<Record<string, Table>>, given: Record<string, Table>) =>
  Object.fromEntries(Object.entries(board).map(([name, table]) => [name, { ...table, ...given[name] }]));

/**
 * Makes the identity of the board and adds it to the tables. Key pair, name and secrets are made once, and stay the
 * same when the board is provisioned again.
 */
function makeIdentity(to: string, tables: Record<string, Table>) {
  const folder = join(to, 'identity');
  makeFolder(folder, { mode: 0o700 });
  const once = (name: string, make: () => string): string => {
    const file = join(folder, name);
    if (!existsSync(file)) writeDurably(file, make());
    return readFileSync(file, 'utf8').trim();
  };
  const secret = () => `${randomBytes(24).toString('base64url')}\n`;
  // In clear: the gateway encrypts it at its first start, by a key that is to be its own.
  new BoardIdentity(folder).makeKey();
  const gateway: Table = { ...tables.gateway };
  const server: Table = { ...tables['dm-server'] };
  Object.assign(tables, { gateway, 'dm-server': server });
  gateway.id ??= once('id', () => `gw-${randomBytes(6).toString('hex')}\n`);
  const isGiven = tables.enrolment !== undefined || ('client-secret' in server && 'server-secret' in server);
  if (tables.enrolment !== undefined) tables.enrolment = { folder, ...tables.enrolment };
  else {
    server['client-secret'] ??= once('client-secret', secret);
    server['server-secret'] ??= once('server-secret', secret);
  }
  const id = String(gateway.id);
  const enrolment = {
    id,
    publicKey: readFileSync(join(folder, 'gateway.pub'), 'utf8'),
    ...(!isGiven && { clientSecret: server['client-secret'], serverSecret: server['server-secret'] }),
  };
  return { id, enrolment };
}

/** Replaces the name of a file that came with the configuration by its path on the board. */
function placeFile(table: Table | undefined, key: string, from: string, config: string): void {
  const named = table?.[key];
  const place = (name: unknown) =>
    typeof name === 'string' && existsSync(join(from, name)) ? join(config, name) : name;
  if (table && named !== undefined) table[key] = Array.isArray(named) ? named.map(place) : place(named);
}

/** nftables commands that open the ports. */
function firewall({ udp, tcp }: Pick<Provisioned, 'udp' | 'tcp'>): string {
  const open = (set: string, ports: readonly number[]) =>
    ports.map((port) => `add element inet postern ${set} { ${port} }\n`).join('');
  return open('open_udp', udp) + open('open_tcp', tcp);
}
