import { asPosternError, PosternError } from '../base/errors.ts';
import { isServerId } from '../dm/acl.ts';
import {
  type Account,
  type Credential,
  schemes as knownSchemes,
  type SaveNonces,
  type Scheme,
} from '../dm/authentication.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import { interior, leaf, type ManagementObject, type NodeDescription } from '../wire/syncml/ddf.ts';
import { isAuthentic, resyncNonces, type SignedNotification } from '../wire/syncml/notification.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import type { TransportKey } from './device-record.ts';
import { MoId } from './identifiers.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';

const secret = { occurs: 'ZeroOrOne', secret: true } as const;
/** AccessType of leaves that a server writes and never reads. */
const writeOnly = ['Add', 'Delete', 'Replace'] as const;

/** DMAcc 1.0 (OMA DM standardized objects 1.2.1, section 5.3.1): an account for one DM server. */
export const dmAcc: ManagementObject = {
  id: MoId.DmAcc,
  root: interior(
    serverCreated,
    'An account for a DM server',
    {
      AppID: leaf('chr', serverWritten, 'w7: the application identifier of DM accounts'),
      ServerID: leaf('chr', serverWritten, 'Identifier of the server'),
      Name: leaf('chr', serverWritten, 'Display name', zeroOrOne),
      AppAddr: interior(serverCreated, 'Addresses of the server', {
        '*': interior(
          serverCreated,
          'An address',
          {
            Addr: leaf('chr', serverWritten, 'The address'),
            AddrType: leaf('chr', serverWritten, 'URI, IPv4 or IPv6', zeroOrOne),
            Port: interior(serverCreated, 'Ports', {
              '*': interior(
                serverCreated,
                'A port',
                { PortNbr: leaf('chr', serverWritten, 'Port number') },
                zeroOrMore,
              ),
            }),
          },
          zeroOrMore,
        ),
      }),
      AAuthPref: leaf('chr', serverWritten, 'Authentication that the client prefers', zeroOrOne),
      AppAuth: interior(serverCreated, 'Credentials', {
        '*': interior(
          serverCreated,
          'A credential',
          {
            AAuthLevel: leaf(
              'chr',
              serverWritten,
              'CLCRED: credential of the client; SRVCRED: credential of the server',
            ),
            AAuthType: leaf(
              'chr',
              serverWritten,
              'BASIC: syncml:auth-basic; DIGEST: syncml:auth-md5; HMAC: syncml:auth-MAC; TRANSPORT: the pre-shared key for DTLS',
            ),
            AAuthName: leaf('chr', serverWritten, 'Name of the party that has the secret', zeroOrOne),
            AAuthSecret: leaf('chr', writeOnly, 'The secret', secret),
            AAuthData: leaf('bin', writeOnly, 'Nonce for the next session', secret),
          },
          zeroOrMore,
        ),
      }),
      Ext: interior(
        serverCreated,
        'Vendor extensions',
        {
          BootstrapNonce: leaf(
            'chr',
            serverWritten,
            'Nonce of the bootstrap request that this account answers',
            zeroOrOne,
          ),
          NotificationNonce: leaf(
            'bin',
            writeOnly,
            'Last nonce that was sent to the server, for Package #0',
            secret,
          ),
        },
        zeroOrOne,
      ),
    },
    zeroOrMore,
  ),
};

/** The branch `./DMAcc`. The names of the accounts below it have no meaning. */
export const accountsDescription: NodeDescription = interior(['Get'], 'Accounts for DM servers', {
  '*': dmAcc.root,
});

/** An account as the client has it in its tree: `own` is the credential of the client, `peer` that of the server. */
export interface DmAccount extends Account {
  readonly serverId: string;
  readonly name?: string;
  /** A URI, such as `coap://192.0.2.1:5683/dm`. */
  readonly address: string;
  /** Nonce of the bootstrap request, in hexadecimal. Only accounts from a local bootstrap server have it. */
  readonly bootstrapNonce?: string;
  /** Last nonce that was sent to the server, when it is not `peer.nonce`. */
  readonly notificationNonce?: Uint8Array;
  /** Key of the client for DTLS towards this server. */
  readonly transport?: TransportKey | DerivedTransportKey;
}

/** A key that is not in the account: the client derives it by a salt from the secret that it shares with whoever gave the account. */
export interface DerivedTransportKey {
  readonly identity: string;
  readonly salt: Uint8Array;
}

const text = (name: string, value: string): TndsNode => ({ name, format: 'chr', value });

/** AAuthType of each scheme. */
const authTypes: Readonly<Record<Scheme, string>> = { basic: 'BASIC', md5: 'DIGEST', mac: 'HMAC' };
const schemeOf = (authType: string | undefined): Scheme | undefined =>
  knownSchemes.find((scheme) => authTypes[scheme] === authType);

/** The nodes of a credential: one for each of its schemes. */
const credentialNodes = (
  level: 'CLCRED' | 'SRVCRED',
  { name, secret, nonce, schemes = ['md5'] }: Credential,
): TndsNode[] =>
  schemes.map((scheme, at) => ({
    name: at === 0 ? level : `${level}${at + 1}`,
    format: 'node',
    children: [
      text('AAuthLevel', level),
      text('AAuthType', authTypes[scheme]),
      text('AAuthName', name),
      text('AAuthSecret', secret),
      { name: 'AAuthData', format: 'bin', value: nonce },
    ],
  }));

/** AAuthType of a credential for the transport. */
const transportType = 'TRANSPORT';

/** The credential of the client for the transport. A derived key has the salt in AAuthData, and no AAuthSecret. */
const transportNode = (transport: TransportKey | DerivedTransportKey): TndsNode => ({
  name: transportType,
  format: 'node',
  children: [
    text('AAuthLevel', 'CLCRED'),
    text('AAuthType', transportType),
    text('AAuthName', transport.identity),
    'key' in transport
      ? text('AAuthSecret', transport.key)
      : { name: 'AAuthData', format: 'bin', value: transport.salt },
  ],
});

/** Reads what `transportNode` writes. */
function readTransport(credentials: readonly TndsNode[]): DmAccount['transport'] {
  const node = credentials.find((credential) => textOf(credential, 'AAuthType') === transportType);
  const identity = textOf(node, 'AAuthName');
  const key = textOf(node, 'AAuthSecret');
  const salt = childOf(node, 'AAuthData')?.value;
  if (!identity) return undefined;
  if (key) return { identity, key };
  return salt === undefined || salt.length === 0 ? undefined : { identity, salt: Buffer.from(salt) };
}

/** The account as a subtree named `nodeName`, as the DM Gateway Bootstrap carries it. */
export function accountNodes(nodeName: string, account: DmAccount): TndsNode {
  const { serverId, name, address, own, peer, bootstrapNonce, notificationNonce, transport } = account;
  const extensions: TndsNode[] = [
    ...(bootstrapNonce === undefined ? [] : [text('BootstrapNonce', bootstrapNonce)]),
    ...(notificationNonce === undefined
      ? []
      : [{ name: 'NotificationNonce', format: 'bin' as const, value: notificationNonce }]),
  ];
  return {
    name: nodeName,
    format: 'node',
    type: MoId.DmAcc,
    children: [
      text('AppID', 'w7'),
      text('ServerID', serverId),
      ...(name === undefined ? [] : [text('Name', name)]),
      {
        name: 'AppAddr',
        format: 'node',
        children: [
          { name: 'main', format: 'node', children: [text('Addr', address), text('AddrType', 'URI')] },
        ],
      },
      text('AAuthPref', authTypes[own.schemes?.[0] ?? 'md5']),
      {
        name: 'AppAuth',
        format: 'node',
        children: [
          ...credentialNodes('CLCRED', own),
          ...credentialNodes('SRVCRED', peer),
          ...(transport ? [transportNode(transport)] : []),
        ],
      },
      ...(extensions.length === 0 ? [] : [{ name: 'Ext', format: 'node' as const, children: extensions }]),
    ],
  };
}

const childOf = (node: TndsNode | undefined, ...path: string[]): TndsNode | undefined =>
  path.reduce<TndsNode | undefined>(
    (found, name) => found?.children?.find((child) => child.name === name),
    node,
  );
const textOf = (node: TndsNode | undefined, ...path: string[]): string | undefined => {
  const value = childOf(node, ...path)?.value;
  return typeof value === 'string' ? value : undefined;
};

/** The address of a server, with its port where the address has none. */
export function addressWith(address: string | undefined, port: string | undefined): string | undefined {
  if (address === undefined || port === undefined || !URL.canParse(address)) return address;
  const url = new URL(address);
  if (url.port === '') url.port = port;
  return url.href;
}

/**
 * Reads an account from a subtree, whatever the names of its inner nodes.
 * @throws {PosternError} `malformed` when it is not a DM account with a credential for each side
 */
export function readAccount(root: TndsNode): DmAccount {
  const serverId = textOf(root, 'ServerID');
  const place = childOf(root, 'AppAddr')?.children?.[0];
  const address = addressWith(
    textOf(place, 'Addr'),
    textOf(childOf(place, 'Port')?.children?.[0], 'PortNbr'),
  );
  if (textOf(root, 'AppID') !== 'w7' || !serverId || !address)
    throw new PosternError('malformed', 'not a DM account: AppID w7, ServerID and an address are needed');
  if (!isServerId(serverId))
    throw new PosternError('malformed', 'not a DM account: an ACL cannot name this ServerID');
  const name = textOf(root, 'Name');
  const bootstrapNonce = textOf(root, 'Ext', 'BootstrapNonce');
  const notificationNonce = childOf(root, 'Ext', 'NotificationNonce')?.value;
  const credentials = childOf(root, 'AppAuth')?.children ?? [];
  const transport = readTransport(credentials);
  return {
    serverId,
    address,
    ...(name !== undefined && { name }),
    ...(bootstrapNonce !== undefined && { bootstrapNonce }),
    ...(notificationNonce !== undefined && { notificationNonce: Buffer.from(notificationNonce) }),
    own: readCredential(credentials, 'CLCRED', '', textOf(root, 'AAuthPref')),
    peer: readCredential(credentials, 'SRVCRED', serverId),
    ...(transport && { transport }),
  };
}

/** The credential of a level. It has a node for each scheme; the node of the preferred scheme comes first. */
function readCredential(
  credentials: readonly TndsNode[],
  level: string,
  fallback: string,
  preferred?: string,
): Credential {
  const usable = credentials
    .filter((credential) => textOf(credential, 'AAuthLevel') === level && textOf(credential, 'AAuthSecret'))
    .flatMap((node) => schemeOf(textOf(node, 'AAuthType')) ?? [])
    .toSorted((a, b) => Number(authTypes[b] === preferred) - Number(authTypes[a] === preferred));
  const [scheme] = usable;
  const node = credentials.find(
    (credential) =>
      textOf(credential, 'AAuthLevel') === level && schemeOf(textOf(credential, 'AAuthType')) === scheme,
  );
  const secretValue = textOf(node, 'AAuthSecret');
  if (!scheme || !node || !secretValue)
    throw new PosternError(
      'malformed',
      `not a DM account: it has no ${level} credential of type BASIC, DIGEST or HMAC`,
    );
  return {
    ...(usable.length === 1 && scheme === 'md5' ? {} : { schemes: usable }),
    name: textOf(node, 'AAuthName') ?? fallback,
    secret: secretValue,
    nonce: Buffer.from(childOf(node, 'AAuthData')?.value ?? ''),
  };
}

/** Whether two accounts for one server have the same secrets: nonces of one are of use for the other only then. */
const isSameSecret = (one: DmAccount, other: DmAccount): boolean =>
  one.own.secret === other.own.secret && one.peer.secret === other.peer.secret;

/** The accounts in a tree. An account is found by its ServerID, not by the name of its node. */
export class Accounts {
  readonly branch: StoredBranch;
  /**
   * Accounts whose new nonces the disk did not take, by ServerID. They count until they are stored: sessions that need
   * nothing durable go on, and an overheard credential is not good a second time.
   */
  readonly #unsaved = new Map<string, DmAccount>();

  constructor(branch: StoredBranch) {
    this.branch = branch;
  }

  /** All complete accounts. */
  list(): DmAccount[] {
    return this.#nodeNames().flatMap((name) => this.#read(name) ?? []);
  }

  /** The account for this server. */
  find(serverId: string): DmAccount | undefined {
    const name = this.nodeName(serverId);
    const stored = name === undefined ? undefined : this.#read(name);
    const unsaved = this.#unsaved.get(serverId);
    return stored && unsaved && isSameSecret(stored, unsaved) ? unsaved : stored;
  }

  /** Name of the node that holds the account for this server. */
  nodeName(serverId: string): string | undefined {
    return this.#nodeNames().find((name) => this.branch.text(name, 'ServerID') === serverId);
  }

  /**
   * Writes an account in place of the one for the same server. Returns the name of its node.
   * @param isKept as for `StoredBranch.plant`
   */
  put(account: DmAccount, isKept = false): string {
    const name = this.nodeName(account.serverId) ?? this.#freeName();
    this.branch.plant([name], accountNodes(name, account), isKept);
    this.#unsaved.delete(account.serverId);
    return name;
  }

  /** Stores the nonces for the next session with this server. */
  nonceKeeper(serverId: string): SaveNonces {
    return ({ own, peer, told }) => {
      const account = this.find(serverId);
      if (!account) return;
      const { notificationNonce = account.peer.nonce } = account;
      const renewed = {
        ...account,
        own: { ...account.own, ...(own && { nonce: own }) },
        peer: { ...account.peer, ...(peer && { nonce: peer }) },
        notificationNonce: told ?? notificationNonce,
      };
      try {
        this.put(renewed);
      } catch (thrown) {
        if (asPosternError(thrown).code !== 'storage') throw thrown;
        this.#unsaved.set(serverId, renewed);
      }
    };
  }

  /**
   * Whether the digest of a Package #0 was made by this server. The nonce may be the current one, the last one that was
   * sent to the server, or the resync nonce: a server that has lost the nonces uses it to ask for a session, in which
   * both sides agree on new nonces.
   */
  believes(notification: SignedNotification): boolean {
    const account = this.find(notification.serverId);
    if (!account) return false;
    const nonces = [account.peer.nonce, account.notificationNonce ?? account.peer.nonce, ...resyncNonces];
    return nonces.some((nonce) => isAuthentic(notification, account.peer.secret, nonce));
  }

  #freeName(): string {
    const taken = new Set(this.#nodeNames());
    for (let number = 1; ; number++) if (!taken.has(`account${number}`)) return `account${number}`;
  }

  #nodeNames(): readonly string[] {
    return this.branch.view([])?.children ?? [];
  }

  /** Undefined while a server is still adding the account, node by node. */
  #read(name: string): DmAccount | undefined {
    try {
      return readAccount(this.branch.subtree([name]));
    } catch {
      return undefined;
    }
  }
}
