import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'smol-toml';
import { syncFile, syncFolder, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { readNamedFile } from '../../base/named-file.ts';
import { parseCoapUri } from '../../wire/coap/uri.ts';
import type { BoardRecord, BoardSecrets } from '../../wire/tunnel/board-account.ts';
import { BoardIdentity } from '../northbound/board-identity.ts';
import { takeBoardConfig } from './board-config.ts';
import { protectedRecord } from './board-record.ts';
import { demandUsableNetwork, firewallText, networkText } from './root-files.ts';
import { timeFiles } from './time-files.ts';

/** Result of the provisioning: name of the gateway, and ports that the firewall opens. */
export interface Provisioned {
  readonly gatewayId: string;
  readonly udp: readonly number[];
  readonly tcp: readonly number[];
  /** Whether `enrolment.json` has secrets in clear. */
  readonly hasPlainSecrets: boolean;
}

/** Where a board is provisioned. */
export interface ProvisioningParts {
  /** Folder of the medium. */
  readonly from: string;
  /** Data folder of the board. */
  readonly to: string;
  /** Optional parts of the image, such as `wifi`; undefined when it is not known which image it is. */
  readonly parts?: readonly string[];
  /** Only checks. The medium is not changed, and its files are used where they are. `to` should be a folder for the moment. */
  readonly isTrial?: boolean;
}

/** What the provisioning needs to know of a checked configuration. */
export interface CheckedConfig {
  readonly coap: { readonly port: number };
  readonly coaps?: { readonly port: number } | undefined;
  readonly http?: { readonly host: string; readonly port: number } | undefined;
  readonly mqtt?: { readonly url: string } | undefined;
  readonly parent?: { readonly uri: string } | undefined;
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
/** Where the recovery system finds a bundle. */
const urlFile = 'recovery-url';

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
 *   folder `root` there: the firewall rules, the network, the time servers, the URL of the recovery system, and `allow-older` when the
 *   configuration allows that.
 * - Writes `enrolment.json` to the medium. It holds what the operator's server must know of the board: name, public key,
 *   and the secrets if the board made them, sealed to the key of the operator.
 * - Deletes the configuration and its files from the medium, because they may hold secrets.
 *
 * After a power cut at any point, it can be run again.
 * @param check validates the configuration and returns it; throws when the gateway cannot run with it
 * @throws {PosternError} `configuration`; the medium is unchanged then
 */
export function provision(
  { from, to, parts, isTrial = false }: ProvisioningParts,
  check: (config: unknown, file: string) => CheckedConfig,
): Provisioned {
  const source = join(from, configFile);
  const [config, root] = [isTrial ? from : join(to, 'config'), join(to, 'root')];
  if (!existsSync(source))
    throw new PosternError(
      'configuration',
      `put ${configFile} onto the partition CONFIG; ${configFile}.example is an example`,
    );
  makeFolder(config, { mode: 0o700 });
  makeFolder(root, { mode: 0o700 });
  const tables = readTables(source);
  const board = takeBoardConfig(tables, source);
  const made = makeIdentity(to, tables);
  const record = made.secrets
    ? protectedRecord(made.record, made.secrets, board.provision, from)
    : made.record;
  const all = { ...tables, ...mergeTables(boardDefaults(to), tables) };
  const named = fileKeys.flatMap(([table, key]) =>
    placeFile(all[table] as Table | undefined, key, from, config),
  );
  const { coap, coaps, http, mqtt, parent } = check(all, source);
  if (board.network) demandUsableNetwork(board.network, mqtt?.url, parts, source);
  const url = join(from, urlFile);
  const forRoot = { ...timeFiles(from), ...(existsSync(url) && { [urlFile]: readFileSync(url, 'utf8') }) };
  const udp = [coap.port, ...(coaps ? [coaps.port] : [])];
  const tcp = http && !/^(127\.|::1|localhost)/.test(http.host) ? [http.port] : [];
  const provisioned = { gatewayId: record.id, udp, tcp, hasPlainSecrets: record.secrets !== undefined };
  if (isTrial) return provisioned;
  // The key of the operator is public, and a later configuration needs it too.
  const taken = readdirSync(from).filter(
    (one) => (plainFiles.test(one) || named.includes(one)) && one !== board.provision['operator-key'],
  );
  for (const name of taken.filter((one) => !(one in forRoot))) {
    const copy = join(config, name);
    copyFileSync(join(from, name), copy);
    syncFile(copy);
  }
  writeDurably(join(config, configFile), stringify(all));
  const network = board.network && networkText(board.network, parent && parseCoapUri(parent.uri).host);
  const ofRoot: Readonly<Record<string, string | undefined>> = {
    'firewall.nft': firewallText({ udp, tcp }),
    network,
    'allow-older': (all.update as Table)['allow-older'] ? '' : undefined,
  };
  for (const [name, text] of Object.entries(ofRoot))
    if (text === undefined) rmSync(join(root, name), { force: true });
    else writeDurably(join(root, name), text);
  // Time servers and URL stay when a later configuration comes without any.
  for (const [name, text] of Object.entries(forRoot)) writeDurably(join(root, name), text);
  writeDurably(join(to, 'hostname'), `${record.id}\n`);
  writeFileSync(join(from, enrolmentFile), `${JSON.stringify(record, null, 2)}\n`);
  syncFile(join(from, enrolmentFile));
  for (const name of [...taken, configFile]) rmSync(join(from, name));
  syncFolder(from);
  return provisioned;
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
  const publicKey = readFileSync(join(folder, 'gateway.pub'), 'utf8');
  const record: BoardRecord = { id: String(gateway.id), publicKey };
  const secrets: BoardSecrets = {
    clientSecret: String(server['client-secret']),
    serverSecret: String(server['server-secret']),
  };
  return { record, secrets: isGiven ? undefined : secrets };
}

/** Replaces the names of files that came with the configuration by their paths on the board. Returns these names. */
function placeFile(table: Table | undefined, key: string, from: string, config: string): string[] {
  const value = table?.[key];
  if (!table || value === undefined) return [];
  const placed: string[] = [];
  const place = (name: unknown) => {
    if (typeof name !== 'string' || !existsSync(join(from, name))) return name;
    placed.push(name);
    return join(config, name);
  };
  table[key] = Array.isArray(value) ? value.map(place) : place(value);
  return placed;
}
