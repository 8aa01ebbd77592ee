import { dirname, join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { checkConfig, readToml } from '../base/config.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { demandUsable, mqttSettings } from '../wire/tunnel/mqtt-settings.ts';
import { type GatewayConfig, gatewayConfigSchema } from './config.ts';
import { BoardIdentity } from './northbound/board-identity.ts';
import { DepartureMarks } from './northbound/departure-marks.ts';
import { claimOf, Enrolment, type EnrolmentWay } from './northbound/enrolment.ts';
import { IdentityFiles } from './northbound/identity-files.ts';
import type { TransferOrder } from './northbound/transfer-order.ts';

type Table = Readonly<Record<string, unknown>>;
type Tables = Readonly<Record<string, Table | undefined>>;

/** Stands for the ServerID and the secrets that enrolment will give, so that a configuration can be checked before. */
const notYet = 'not-yet-enrolled';

/**
 * Checks a configuration. What enrolment gives is filled in where the configuration leaves it out: certificate and key for the
 * broker, and the DM account.
 * @param file name of the file, for the error messages
 * @param events for a start: what enrolment gave and is damaged is set aside, so that the board is enrolled again, and secrets of the
 *   identity that are in clear are encrypted. The events tell of it
 * @throws {PosternError} `configuration`
 */
export function checkGatewayConfig(tables: unknown, file: string, events?: Events): GatewayConfig {
  const given = tables as Tables;
  if (typeof given.enrolment !== 'object') return checkConfig(gatewayConfigSchema, tables, file);
  const identity = boardIdentity(given);
  if (events) prepare(identity, given, events);
  const account = identity.account();
  // A gateway that was passed to this owner has the configuration of the one before, also when it leaves this owner.
  const isOwned = account || new DepartureMarks(identityFolder(given)).state === 'leaving';
  const owner = isOwned ? identity.owner() : undefined;
  const broker = owner?.url === undefined ? given.mqtt : { url: owner.url, ca: owner.ca };
  const mqtt = {
    ...(account && /^(mqtts|ssl|wss):/.test(String(broker?.url))
      ? { cert: identity.connectingFile, key: identity.keyFile }
      : {}),
    ...broker,
  };
  const server = {
    id: account?.server ?? notYet,
    'client-secret': account?.clientSecret ?? notYet,
    'server-secret': account?.serverSecret ?? notYet,
    ...(!owner && given['dm-server']),
  };
  const config = checkConfig(gatewayConfigSchema, { ...given, mqtt, 'dm-server': server }, file);
  if (account && account.gateway !== config.gateway.id)
    throw new PosternError(
      'configuration',
      `${file}: gateway.id: this board is enrolled as ${account.gateway}, not as ${config.gateway.id}`,
    );
  return config;
}

/**
 * Reads and checks a configuration file, as `checkGatewayConfig`.
 * @throws {PosternError} `configuration`
 */
export const loadGatewayConfig = (file: string, events?: Events): GatewayConfig =>
  checkGatewayConfig(readToml(file), file, events);

/** Prepares an identity for a start. When its secrets cannot be encrypted, they stay in clear until the next start. */
function prepare(identity: BoardIdentity, config: Tables, events: Events): void {
  identity.mend((file, aside) => events.emit('enrolment.file-damaged', { file, aside }));
  try {
    identity.seal();
  } catch (thrown) {
    events.emit('state.key-unusable', { file: identityKey(config), reason: asPosternError(thrown).message });
  }
}

/**
 * A configuration for a gateway that runs: what enrolment gives must be there.
 * @throws {PosternError} `configuration`
 */
export function demandEnrolled(config: GatewayConfig): GatewayConfig {
  if (config['dm-server'].id !== notYet) return config;
  throw new PosternError('configuration', 'a restart enrols this gateway again');
}

/** The identity of an enrolled gateway. Undefined when its configuration does not say so, or another certificate is given. */
export function enrolledIdentity(config: GatewayConfig): BoardIdentity | undefined {
  if (!config.enrolment) return undefined;
  const identity = boardIdentity(config);
  return config.mqtt?.key === identity.keyFile ? identity : undefined;
}

/** The configuration by which a gateway is enrolled at the next owner. Where the broker is the same, so may be the claim. */
export function configAtNext(config: GatewayConfig, order: TransferOrder, folder: string): GatewayConfig {
  const { server: id, code, url, ca, cert, username, password } = order;
  const { enrolment, mqtt, 'dm-server': owner } = config;
  const claim =
    cert !== undefined
      ? { cert: join(folder, 'claim.pem'), key: join(folder, 'claim.key') }
      : username !== undefined
        ? { username, password }
        : enrolment;
  const broker = {
    url: url ?? enrolment?.url ?? mqtt!.url,
    ca: ca === undefined ? mqtt!.ca : join(folder, 'ca.pem'),
  };
  return {
    ...config,
    enrolment: {
      ...claim,
      ...{ serial: enrolment?.serial, code, folder, url: broker.url },
      'identity-key': identityKey(config),
    },
    mqtt: { ...mqtt!, ...broker },
    'dm-server': { ...owner, id },
  };
}

const besideState = ({ gateway }: Tables): string =>
  dirname(String(gateway?.state ?? '/var/lib/postern/state.db'));

/** Folder of the identity of a board. */
export const identityFolder = (config: Tables): string =>
  String(config.enrolment?.folder ?? join(besideState(config), 'identity'));

/** File of the key by which the secrets of the identity are encrypted, where no command gives that key. */
export const identityKey = (config: Tables): string =>
  String(config.enrolment?.['identity-key'] ?? join(besideState(config), 'identity.key'));

/** Reads and writes the files with secrets of the identity. */
export function identityFiles(config: Tables): IdentityFiles {
  const command = config.gateway?.['key-command'];
  if (!config.enrolment) return new IdentityFiles();
  return new IdentityFiles(Array.isArray(command) ? { command } : { file: identityKey(config) });
}

/** The identity of a board. */
export const boardIdentity = (config: Tables): BoardIdentity =>
  new BoardIdentity(identityFolder(config), identityFiles(config));

/** Milliseconds for which a gateway whose certificate has ended asks for another one before it starts without. */
const askAgainFor = 60_000;

/**
 * Enrols this gateway, if its configuration says so and it is not enrolled yet, or its certificate has ended. Returns true when the configuration is to be
 * read again.
 * @param asks called with how it stands with the broker, when it begins to ask
 * @throws {PosternError} `configuration`, `storage`; the reason of the signal when it is aborted
 */
export async function enrolIfNeeded(
  config: GatewayConfig,
  machine: { readonly clock: Clock; readonly entropy: Entropy; readonly events: Events },
  stop: AbortSignal,
  asks?: (way: () => EnrolmentWay) => void,
): Promise<boolean> {
  const { enrolment, mqtt, gateway, 'dm-server': dmServer } = config;
  if (!enrolment || !mqtt) return false;
  const identity = boardIdentity(config);
  const isEnrolled = identity.account() !== undefined;
  if (isEnrolled && machine.clock.wall() < identity.certificate().validToDate.getTime()) return false;
  const { cert, key, username, password, code, serial, url = mqtt.url } = enrolment;
  const { ca, protocol } = mqtt;
  const settings = {
    ...mqttSettings({ url, protocol, ca, cert, key, username, password } as never),
    table: 'enrolment',
    // The key of a claim may be that of a transfer.
    readKey: identityFiles(config).read,
  };
  let claim: string;
  try {
    demandUsable(settings);
    claim = username ?? claimOf(cert ?? '');
  } catch (thrown) {
    // A claim certificate may be taken away when the board is enrolled. Its devices are served all the same.
    if (!isEnrolled) throw thrown;
    machine.events.emit('enrolment.failed', { gateway: gateway.id, reason: asPosternError(thrown).message });
    return false;
  }
  machine.events.emit('enrolment.begun', { gateway: gateway.id, url });
  await using asking = new Enrolment({
    gatewayId: gateway.id,
    identity,
    settings,
    claim,
    code,
    serial,
    server: dmServer.id === notYet ? undefined : dmServer.id,
    ...machine,
  });
  asks?.(() => asking.way);
  // Devices of an enrolled gateway do not wait for a head-end that may be away.
  const enough = new AbortController();
  const timer = isEnrolled ? machine.clock.after(askAgainFor, () => enough.abort()) : undefined;
  try {
    await asking.run(AbortSignal.any([stop, enough.signal]));
    return true;
  } catch (thrown) {
    if (enough.signal.aborted && !stop.aborted) return false;
    throw thrown;
  } finally {
    timer?.cancel();
  }
}
