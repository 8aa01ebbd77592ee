import type { Events } from '../base/events.ts';
import { ObjectId } from '../wire/lwm2m/objects.ts';
import type { Value } from '../wire/lwm2m/resource.ts';
import { linkOf } from '../wire/lwm2m/resource.ts';
import { keyOctets } from '../wire/secure/oscore/config.ts';
import { factoryIdentity, factoryKey } from '../wire/secure/transport-keys.ts';
import type { StackKey, StackSecurity } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';
import type { LwM2mObjects } from './lwm2m-objects.ts';
import { type DeviceContext, factoryContextOf } from './protected-datagrams.ts';
import { isSamePlace } from './server-sessions.ts';

export interface ClientKeysParts {
  readonly config: DeviceConfig;
  readonly objects: LwM2mObjects;
  readonly events: Events;
}

/** Resources of the object Security (LwM2M core 1.1, appendix E.1). */
const Resource = { Uri: 0, IsBootstrap: 1, Identity: 3, Key: 5, Oscore: 17 } as const;

/** The account for the LwM2M server. Undefined before a bootstrap. */
export interface ServerAccount {
  readonly uri: string;
  /** For DTLS, where it has one. */
  readonly key: StackKey | undefined;
  /** For OSCORE, where it links to one. */
  readonly context: DeviceContext | undefined;
}

export function serverAccount(objects: LwM2mObjects): ServerAccount | undefined {
  const [object, instance] =
    objects
      .instances(ObjectId.Security)
      .find((path) => objects.value(...path, Resource.IsBootstrap) === false) ?? [];
  if (object === undefined || instance === undefined) return undefined;
  const at = (resource: number) => objects.value(object, instance, resource);
  const [uri, identity, key] = [at(Resource.Uri), at(Resource.Identity), at(Resource.Key)];
  if (typeof uri !== 'string') return undefined;
  const isKey = identity instanceof Uint8Array && key instanceof Uint8Array && key.length > 0;
  return {
    uri,
    key: isKey ? { identity: Buffer.from(identity).toString(), key } : undefined,
    context: contextAt(objects, at(Resource.Oscore)),
  };
}

/** The security context that a link leads to (LwM2M core 1.1, appendix E.9). */
function contextAt(objects: LwM2mObjects, link: Value | undefined): DeviceContext | undefined {
  if (link === undefined) return undefined;
  const [masterSecret, senderId, recipientId, , , masterSalt] = [0, 1, 2, 3, 4, 5].map((resource) => {
    const value = objects.value(...linkOf(link), resource);
    return value instanceof Uint8Array ? value : undefined;
  });
  if (!masterSecret || !senderId || !recipientId) return undefined;
  const parameters = { masterSecret, senderId, recipientId, masterSalt };
  return { name: 'gateway', identity: Buffer.from(senderId).toString(), parameters };
}

/** The keys of the reference LwM2M client: that of the factory for the bootstrap, that of the account for all else. */
export class ClientKeys implements StackSecurity {
  readonly #parts: ClientKeysParts;

  constructor(parts: ClientKeysParts) {
    this.#parts = parts;
  }

  readonly keyFor = (base: string, path: string): StackKey | undefined => {
    if (path === '/bs' || path === '/.well-known/core') return this.factory();
    const account = serverAccount(this.#parts.objects);
    return account && isSamePlace(account.uri, base) ? account.key : undefined;
  };

  /** The security context for a request, where the client uses OSCORE. Discovery goes without. */
  readonly contextFor = (path: string): DeviceContext | undefined => {
    if (path === '/.well-known/core') return undefined;
    if (path === '/bs') return factoryContextOf(this.#parts.config);
    return serverAccount(this.#parts.objects)?.context;
  };

  readonly opened = (gateway: string): void => this.#tell('device.association-opened', gateway);

  /** The next renewal of the registration opens another association, or the client is bootstrapped anew. */
  readonly lost = (gateway: string): void => this.#tell('device.association-ended', gateway);

  readonly refused = (): void => {};

  /** The key for the bootstrap. */
  factory(): StackKey | undefined {
    const { device, lwm2m } = this.#parts.config;
    const { id, 'factory-secret': secret } = device;
    const own = lwm2m?.['bootstrap-key'];
    if (own !== undefined) return { identity: lwm2m?.['bootstrap-identity'] ?? id, key: keyOctets(own) };
    return secret === undefined ? undefined : { identity: factoryIdentity(id), key: factoryKey(secret, id) };
  }

  #tell(event: 'device.association-opened' | 'device.association-ended', gateway: string): void {
    this.#parts.events.emit(event, { device: this.#parts.config.device.id, gateway });
  }
}
