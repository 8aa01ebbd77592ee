import { Code } from '../../wire/coap/codes.ts';
import { type CoapRequest, type Handler, type Remote, type Reply, refusal } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths } from '../../wire/resources.ts';

/**
 * How the sender of a request has proved itself to the transport. `plain`: not at all, over CoAP without DTLS. `factory`: by the
 * key that its factory secret gives, or that an LwM2M client has from the factory. `gateway`: by a key that a bootstrap issued.
 * `configuration`: by a key of the configuration, by a certificate, or by a security context of OSCORE. `joining`: by a public key
 * that nobody has listed, while a join window is open. `pinned`: by the public key by which an OMA DM device has joined. `parent`:
 * the parent gateway, in the association that this gateway has opened with it. `none`: by a key that has ended meanwhile.
 */
export const credentials = [
  'plain',
  'factory',
  'gateway',
  'configuration',
  'joining',
  'pinned',
  'parent',
  'none',
] as const;
export type Credential = (typeof credentials)[number];

/** Path of the notifications that a parent gateway sends to this one. */
const notification = `/${paths.notification[0]}`;

/**
 * Who may use which resource. What is not in this table is for nobody. docs/security.md has the same table. `plain` stands for
 * what goes without any key; where the configuration allows plain CoAP by name (`coap.insecure-plain-coap`), `plain` may use all.
 */
export const access: Readonly<Record<string, readonly Credential[]>> = {
  '/.well-known/core': ['plain', 'factory', 'gateway', 'configuration', 'joining', 'pinned', 'parent'],
  [paths.status]: ['gateway', 'configuration'],
  [paths.bootstrap]: ['factory', 'configuration', 'joining', 'pinned'],
  [paths.sessions]: ['gateway', 'configuration'],
  [paths.tunnel]: ['plain', 'gateway', 'configuration'],
  [paths.images]: ['gateway', 'configuration'],
  [paths.lwm2mBootstrap]: ['factory', 'configuration', 'joining'],
  [paths.lwm2mBootstrapPack]: ['factory', 'configuration', 'joining'],
  [paths.registrations]: ['gateway', 'configuration', 'joining'],
  [paths.send]: ['gateway', 'configuration'],
  // To the parent this gateway is a device. `parent.insecure-plain-coap` allows plain CoAP here.
  [notification]: ['parent'],
};

/** Resources that tell a device without a key where to go. */
const pointing: ReadonlySet<string> = new Set([
  paths.bootstrap,
  paths.lwm2mBootstrap,
  paths.lwm2mBootstrapPack,
]);

export interface AccessParts {
  /** Whether devices are served over CoAP without security. */
  readonly isPlainAllowed: boolean;
  /** The resource is served over DTLS. */
  readonly isSecure: boolean;
  /** The URI of a path over DTLS. */
  readonly secureUri: (path: string) => string;
  /** Tells a refusal to the operator. The sender learns less. */
  readonly refused: (remote: Remote, reason: string) => void;
}

/** How the sender of a request has proved itself. */
export const credentialOf = ({ identity, credential }: Remote): Credential => {
  if (identity === undefined) return 'plain';
  // Only OSCORE says nothing of the kind of its contexts. They are of the configuration.
  if (credential === undefined) return 'configuration';
  return credentials.find((each) => each === credential) ?? 'none';
};

/** Whether this resource is for senders that have proved themselves in this way. */
export const mayUse = (path: string, credential: Credential, isPlainAllowed: boolean): boolean =>
  (access[path]?.includes(credential) ?? false) ||
  (credential === 'plain' && isPlainAllowed && access[path] !== undefined);

/**
 * A resource that serves only those that `access` names. Its links name the address over DTLS to those that may not use it without.
 */
export function restricted(resource: Resource, parts: AccessParts): Resource {
  const { links, offer, ...rest } = resource;
  const { path, methods, etag } = rest;
  const { isPlainAllowed, isSecure, secureUri } = parts;
  const guarded = Object.fromEntries(
    Object.entries(methods).map(([method, handler]): [string, Handler] => [
      method,
      (request) =>
        mayUse(path, credentialOf(request.remote), isPlainAllowed)
          ? handler(request)
          : refused(request, path, parts),
    ]),
  );
  const isOpen = isSecure || mayUse(path, 'plain', isPlainAllowed);
  return {
    ...rest,
    methods: guarded,
    // Otherwise the answer to a condition would tell what the resource holds.
    ...(etag && {
      etag: (request: CoapRequest) =>
        mayUse(path, credentialOf(request.remote), isPlainAllowed) ? etag(request) : undefined,
    }),
    // An offer that comes with a link is for the address that asks, and for this socket.
    ...(offer && isOpen && { offer }),
    ...(links && {
      links: isOpen ? links : () => links().map((link) => ({ ...link, target: secureUri(link.target) })),
    }),
  };
}

function refused({ remote }: CoapRequest, path: string, { secureUri, refused: tell }: AccessParts): Reply {
  const credential = credentialOf(remote);
  if (credential === 'plain') tell(remote, `plain CoAP is not allowed at ${path}`);
  else if (credential === 'none') tell(remote, 'the key that it proved itself by has ended');
  else tell(remote, `${path} is not for a key of the kind ${credential}`);
  if (remote.identity !== undefined) return refusal(Code.Forbidden, 'this key is not for this resource');
  return refusal(Code.Unauthorized, pointing.has(path) ? secureUri(path) : 'CoAP over DTLS only');
}
