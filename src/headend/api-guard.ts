import type { IncomingMessage } from 'node:http';
import { senderOf } from '../base/address-prefix.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { addressOf, type ConnectionJudge } from '../base/http-connections.ts';
import { uriHost } from '../base/uri-host.ts';
import { LockOut } from '../dm/lock-out.ts';
import type { ApiToken } from './api-token.ts';

/** Wrong tokens of one address without a consequence, and addresses that are remembered: with wrong tokens, and with the right one. */
export const guardLimits = { free: 5, first: 5000, cap: 3_600_000, peers: 1024, known: 256 } as const;

export interface ApiGuardParts {
  readonly token: Pick<ApiToken, 'accepts'>;
  /** Address that the API listens on. */
  readonly host: string;
  /** Further names of this server, as the header Host may have them. */
  readonly hosts: readonly string[];
  /** Origins of web pages that may use the API (RFC 6454), such as `https://ops.example`. */
  readonly origins: readonly string[];
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Decides who may use the API, before anything of a request is read but its headers. A request names this server by a name
 * that it knows: a web page of a foreign name, which resolves to this address, is refused (DNS rebinding). It comes from no
 * web page, or from one that is listed. It has the token.
 */
export class ApiGuard implements ConnectionJudge {
  readonly #parts: ApiGuardParts;
  readonly #hosts: ReadonlySet<string>;
  readonly #wrong: LockOut;
  /** Addresses where the token was shown lately. */
  readonly #known = new BoundedMap<string, true>(guardLimits.known);

  constructor(parts: ApiGuardParts) {
    this.#parts = parts;
    this.#hosts = new Set(
      ['localhost', uriHost(parts.host), ...parts.hosts].map((host) => host.toLowerCase()),
    );
    this.#wrong = new LockOut(parts.clock, guardLimits);
  }

  /** Whether web pages of this origin may use the API. */
  allowsOrigin(origin: string): boolean {
    return this.#parts.origins.includes(origin);
  }

  /** Whether the token was shown at this address lately. */
  isKnown(address: string): boolean {
    return this.#known.has(address);
  }

  /** Tells of a connection that was closed because there are too many. */
  refusedConnection(peer: string): void {
    this.#parts.events.emit('api.refused', { peer, reason: 'too many connections' });
  }

  /** @throws {PosternError} `forbidden`, `unauthorized`, or `lockedOut` for a further wrong token of one address */
  check(request: IncomingMessage): void {
    try {
      this.#checkPlace(request);
      this.#checkToken(request);
    } catch (thrown) {
      const { message: reason } = thrown as PosternError;
      this.#parts.events.emit('api.refused', { peer: peerOf(request), reason });
      throw thrown;
    }
  }

  /** @throws {PosternError} `forbidden` */
  #checkPlace({ headers, socket }: IncomingMessage): void {
    const host = hostIn(headers.host);
    // An address is no name that could be made to resolve to here.
    const own = uriHost((socket.localAddress ?? '').replace(/^::ffff:/, ''));
    if (host === undefined || (host !== own && !this.#hosts.has(host)))
      throw new PosternError(
        'forbidden',
        'the header Host names another server; api.hosts lists further names',
      );
    if (headers.origin !== undefined && !this.allowsOrigin(headers.origin))
      throw new PosternError('forbidden', 'web pages of this origin are not in api.origins');
  }

  /**
   * A right token is always taken. Otherwise anybody at the address of an operator could lock the operator out.
   * @throws {PosternError} `unauthorized`, `lockedOut`
   */
  #checkToken(request: IncomingMessage): void {
    const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
    const peer = peerOf(request);
    if (token !== undefined && this.#parts.token.accepts(token)) {
      this.#wrong.succeeded(senderOf(peer));
      this.#known.set(peer, true);
      return;
    }
    const wait = this.#wrong.remaining(senderOf(peer));
    if (wait > 0)
      throw new PosternError('lockedOut', `too many wrong tokens; try again in ${Math.ceil(wait / 1000)} s`);
    if (token === undefined)
      throw new PosternError(
        'unauthorized',
        'a token is needed: curl -H @FILE, with the file of api.token-file',
      );
    this.#wrong.failed(senderOf(peer));
    throw new PosternError('unauthorized', 'this is not the token');
  }
}

/** The host in a header Host, in lower case and without its port. */
function hostIn(header: string | undefined): string | undefined {
  if (header === undefined || !URL.canParse(`http://${header}/`)) return undefined;
  const { hostname, username, pathname } = new URL(`http://${header}/`);
  return username === '' && pathname === '/' ? hostname : undefined;
}

const peerOf = ({ socket }: IncomingMessage): string => addressOf(socket);
