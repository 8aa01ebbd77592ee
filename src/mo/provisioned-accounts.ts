import { PosternError } from '../base/errors.ts';
import type { Credential, Scheme } from '../dm/authentication.ts';
import type { Characteristic } from '../wire/syncml/provisioning.ts';
import { addressWith, type DmAccount } from './dm-acc.ts';

/**
 * AAUTHLEVEL of the credential of the client (own) and of the server (peer): OMA DM bootstrap 1.2.1, mapping of `w7`.
 */
const levels = { own: 'APPSRV', peer: 'CLIENT' } as const;
/** Scheme of each AAUTHTYPE. */
const schemes: Readonly<Record<string, Scheme>> = { BASIC: 'basic', DIGEST: 'md5', HMAC: 'mac' };

/**
 * Reads the DM accounts of a Client Provisioning document: its characteristics APPLICATION with APPID `w7`.
 * @throws {PosternError} `malformed` when there is no such account, or an account is incomplete
 */
export function provisionedAccounts(document: readonly Characteristic[]): DmAccount[] {
  const applications = document.filter(
    ({ type, parameters }) => type === 'APPLICATION' && parameters.APPID === 'w7',
  );
  if (applications.length === 0)
    throw new PosternError('malformed', 'a provisioning document without a DM account');
  return applications.map(accountOf);
}

function accountOf(application: Characteristic): DmAccount {
  const { 'PROVIDER-ID': serverId, NAME: name, ADDR } = application.parameters;
  const address = addressOf(application.children.find(({ type }) => type === 'APPADDR')) ?? ADDR;
  if (!serverId || !address)
    throw new PosternError('malformed', 'a DM account must have a PROVIDER-ID and an address');
  return {
    serverId,
    address,
    ...(name !== undefined && { name }),
    own: credentialOf(application, levels.own, ''),
    peer: credentialOf(application, levels.peer, serverId),
  };
}

/** The address of an APPADDR, with its port. */
function addressOf(appAddr: Characteristic | undefined): string | undefined {
  const port = appAddr?.children.find(({ type }) => type === 'PORT')?.parameters.PORTNBR;
  return addressWith(appAddr?.parameters.ADDR, port);
}

/** The credential of a level, with the schemes of all its characteristics APPAUTH. */
function credentialOf({ children }: Characteristic, level: string, fallback: string): Credential {
  const usable = children.filter(
    ({ type, parameters: { AAUTHLEVEL, AAUTHTYPE = 'DIGEST', AAUTHSECRET } }) =>
      type === 'APPAUTH' && AAUTHLEVEL === level && AAUTHSECRET && Object.hasOwn(schemes, AAUTHTYPE),
  );
  const [first] = usable;
  if (!first) throw new PosternError('malformed', `a DM account must have an APPAUTH of AAUTHLEVEL ${level}`);
  const { AAUTHNAME, AAUTHSECRET = '', AAUTHDATA = '' } = first.parameters;
  return {
    name: AAUTHNAME ?? fallback,
    secret: AAUTHSECRET,
    nonce: Buffer.from(AAUTHDATA),
    schemes: usable.map(({ parameters }) => schemes[parameters.AAUTHTYPE ?? 'DIGEST']!),
  };
}
