import type { IncomingMessage, OutgoingMessage, Server } from 'coap';
import { createServer } from 'coap';
import { guarded } from '../base/background.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';
import { CheckedAgent } from './checked-agent.ts';
import type { SocketListener } from './coap-sockets.ts';
import { type SecurePeer, SecureSocket } from './secure-socket.ts';

/** Client and server through one association. */
export interface SecureLink {
  readonly agent: CheckedAgent;
  /** Aborted when the association has ended. */
  readonly ended: AbortSignal;
}

export interface SecureLinksParts {
  readonly listener: SocketListener;
  readonly events: Events;
  /** Local IP address of all associations; undefined for any. */
  readonly local: string | undefined;
  /** The own address as a host sees it now. */
  readonly sourceTowards: (host: string) => string | undefined;
  /** Called when an association is there. */
  readonly opened: (base: string) => void;
  /** Called when the gateway answers and does not take a key. */
  readonly refused: (base: string, identity: string) => void;
  /** Called when the gateway has ended an association, or it cannot be used any more. */
  readonly lost: (base: string, identity: string) => void;
}

interface OpenLink extends SecureLink {
  readonly socket: SecureSocket;
  readonly server: Server;
  /** The own address when it was opened. */
  readonly source: string | undefined;
}

/**
 * The associations of the device, one for each gateway and key. The gateway reaches the device through them. The package has no
 * connection IDs, so an association ends when the own address changes, and a new one is opened.
 */
export class SecureLinks implements AsyncDisposable {
  readonly #parts: SecureLinksParts;
  /** By base and identity. */
  readonly #links = new Map<string, OpenLink>();
  /** Handshakes under way, by base and identity. */
  readonly #opening = new Map<string, Promise<OpenLink>>();

  constructor(parts: SecureLinksParts) {
    this.#parts = parts;
  }

  /**
   * The association with a gateway, which is opened if there is none.
   * @throws {PosternError} as `SecureSocket.open`
   */
  async towards(base: string, key: Pick<SecurePeer, 'identity' | 'key'>): Promise<SecureLink> {
    const name = nameOf(base, key.identity);
    const { host } = parseCoapUri(base);
    const known = this.#links.get(name);
    if (known && known.source === this.#parts.sourceTowards(host)) return known;
    if (known) this.drop(base, key.identity);
    const opening =
      this.#opening.get(name) ?? this.#open(base, key).finally(() => this.#opening.delete(name));
    this.#opening.set(name, opening);
    return await opening;
  }

  /** Ends an association without a word to the rest of the device. The next request opens another one. */
  drop(base: string, identity: string): void {
    const name = nameOf(base, identity);
    const link = this.#links.get(name);
    this.#links.delete(name);
    if (link) end(link);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#opening.values());
    const all = [...this.#links.values()];
    this.#links.clear();
    for (const link of all) end(link);
  }

  async #open(base: string, { identity, key }: Pick<SecurePeer, 'identity' | 'key'>): Promise<OpenLink> {
    const { listener, events, local, sourceTowards, opened, lost, refused } = this.#parts;
    const { host, port } = parseCoapUri(base);
    const source = sourceTowards(host);
    const socket = await SecureSocket.open({ host, port, identity, key, local }, events).catch((thrown) => {
      if (asPosternError(thrown).code === 'unauthorized') refused(base, identity);
      throw thrown;
    });
    const agent = new CheckedAgent({ socket });
    const server = createServer((request: IncomingMessage, response: OutgoingMessage) =>
      listener.request(request, response),
    );
    const { failed } = listener;
    agent.on('error', failed);
    server.on('error', failed);
    server.listen(socket);
    const link: OpenLink = { agent, server, socket, ended: socket.ended, source };
    const name = nameOf(base, identity);
    const dropped = guarded(events, 'device-coap', () => {
      if (this.#links.get(name) !== link) return;
      this.drop(base, identity);
      lost(base, identity);
    });
    socket.ended.addEventListener('abort', dropped);
    this.#links.set(name, link);
    opened(base);
    return link;
  }
}

const nameOf = (base: string, identity: string): string => `${base} ${identity}`;

function end({ agent, server, socket }: OpenLink): void {
  server.close();
  agent.close();
  socket.close();
}
