import { type RemoteInfo, Socket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { isIP, isIPv6 } from 'node:net';
import { dtls } from 'node-dtls-client';
import { guarded } from '../base/background.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';

/** Milliseconds for one handshake. The package repeats no flight that is lost, so a handshake on a good network is short. */
const handshakeTimeout = 2000;
/** Handshakes until the gateway counts as silent. */
const handshakes = 3;
/** Datagrams with which a gateway answers a handshake before the keys are compared: HelloVerifyRequest, ServerHello. */
const answersBeforeKeys = 2;

/** A gateway, and what opens an association with it. */
export interface SecurePeer {
  /** Name, or IP address with its zone. */
  readonly host: string;
  readonly port: number;
  readonly identity: string;
  readonly key: string | Uint8Array;
  /** Local IP address; undefined for any. */
  readonly local: string | undefined;
}

/** What the package does not declare: its socket, and the replay window of its records. */
interface Underneath {
  readonly udp: Socket;
  readonly recordLayer: { readonly currentReadEpoch: { readonly antiReplayWindow: ReplayWindow } };
}

interface ReplayWindow {
  /** Highest number that was received. */
  readonly ceiling: number;
  mayReceive: (number: number) => boolean;
}

/**
 * The package drops a record whose number is more than 64 above the highest one. RFC 6347 (section 4.1.2.6) takes it, and a gateway
 * leaves out numbers when it starts again after a power cut: the device would be deaf until its next handshake.
 */
function takeGaps(association: dtls.Socket): void {
  const window = (association as unknown as Underneath).recordLayer.currentReadEpoch.antiReplayWindow;
  const { mayReceive } = window;
  window.mayReceive = (number) => number > window.ceiling || mayReceive.call(window, number);
}

/** Binds to an address too. The package declares a number, and gives it to `bind` as it is. */
const listenAt = (address: string): number => ({ port: 0, address }) as unknown as number;

/** The class has a constructor, which its declaration lacks. */
const UdpSocket = Socket as unknown as new (options: { readonly type: 'udp4' | 'udp6' }) => Socket;

/**
 * A socket for the package `coap` whose datagrams go through one DTLS association of the package `node-dtls-client`. It is a
 * `dgram.Socket` because `coap` sends through nothing else. The socket underneath it is never bound.
 */
export class SecureSocket extends UdpSocket {
  readonly #dtls: dtls.Socket;
  readonly #peer: SecurePeer;
  readonly #ended = new AbortController();

  /** @param association after its handshake */
  private constructor(peer: SecurePeer, association: dtls.Socket, events: Events) {
    super({ type: typeOf(peer.host) });
    takeGaps(association);
    this.#peer = peer;
    this.#dtls = association;
    const from: Omit<RemoteInfo, 'size'> = {
      address: peer.host,
      port: peer.port,
      family: isIPv6(bare(peer.host)) ? 'IPv6' : 'IPv4',
    };
    const pass = (content: Buffer) => this.emit('message', content, { ...from, size: content.length });
    const end = () => this.#ended.abort();
    association.on('message', guarded(events, 'device-coap', pass));
    association.on('close', guarded(events, 'device-coap', end));
    association.on('error', guarded(events, 'device-coap', end));
  }

  /**
   * Opens an association. Tries three times, because the package sends nothing twice.
   * @throws {PosternError} `unauthorized` when the gateway answers and does not take the key; `timeout` when it is silent;
   *   `unavailable` for a name without an address
   */
  static async open(named: SecurePeer, events: Events): Promise<SecureSocket> {
    const peer = { ...named, host: await addressOf(named.host) };
    let answered = 0;
    for (let tries = 0; tries < handshakes; tries++) {
      const attempt = new Attempt(peer, events);
      const association = await attempt.outcome;
      if (association) return new SecureSocket(peer, association, events);
      if (attempt.answers >= answersBeforeKeys) answered++;
    }
    throw answered === handshakes
      ? new PosternError(
          'unauthorized',
          `the gateway at ${peer.host} does not take the key of ${peer.identity}`,
        )
      : new PosternError('timeout', `no DTLS handshake with ${peer.host} port ${peer.port}`);
  }

  /** Aborted when the association has ended, whoever ended it. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Local address and port of the association. */
  override address() {
    return (this.#dtls as unknown as Underneath).udp.address();
  }

  /** Sends through the association, whatever address is given. */
  // biome-ignore lint/suspicious/noExplicitAny: the forms of `dgram.Socket.send` differ in their arguments
  override send(content: any, ...more: any[]): void {
    const [offset, length] = more;
    const isPart = typeof offset === 'number' && typeof length === 'number';
    const done = more.findLast((each) => typeof each === 'function');
    try {
      this.#dtls.send(isPart ? content.subarray(offset, offset + length) : content, done);
    } catch (thrown) {
      done?.(thrown);
    }
  }

  /** Ends the association, and tells the gateway so. */
  override close(done?: () => void): this {
    if (!this.#ended.signal.aborted) {
      this.#ended.abort();
      this.#dtls.close();
    }
    return super.close(done);
  }

  /** The gateway that the association is with. */
  get peer(): SecurePeer {
    return this.#peer;
  }
}

/** One handshake. */
class Attempt {
  /** Datagrams of the gateway. */
  answers = 0;
  /** The association, or undefined when there is none in time. */
  readonly outcome: Promise<dtls.Socket | undefined>;

  constructor({ host, port, identity, key, local }: SecurePeer, events: Events) {
    const socket = new dtls.Socket({
      type: typeOf(host),
      address: host,
      port,
      psk: { [identity]: Buffer.from(key) },
      timeout: handshakeTimeout,
      ciphers: ['TLS_PSK_WITH_AES_128_CCM_8'],
      ...(local !== undefined && { listenPort: listenAt(local) }),
    });
    const { udp } = socket as unknown as Underneath;
    // The package throws at what it cannot read, and takes datagrams from everywhere.
    const [receive] = udp.listeners('message') as [(octets: Buffer, from: RemoteInfo) => void];
    udp.off('message', receive);
    udp.on(
      'message',
      guarded(events, 'device-coap', (octets: Buffer, from: RemoteInfo) => {
        if (from.port !== port || bare(from.address) !== bare(host)) return;
        this.answers++;
        receive(octets, from);
      }),
    );
    const { promise, resolve } = Promise.withResolvers<dtls.Socket | undefined>();
    socket.once('connected', () => resolve(socket));
    socket.on('error', () => resolve(undefined));
    socket.once('close', () => resolve(undefined));
    this.outcome = promise;
  }
}

/** The datagrams of a gateway are known by its address, so a name is looked up before. */
async function addressOf(host: string): Promise<string> {
  if (isIP(bare(host)) > 0) return host;
  try {
    return (await lookup(host, { order: 'ipv4first' })).address;
  } catch (cause) {
    throw new PosternError('unavailable', `${host} has no address`, { cause });
  }
}

const bare = (host: string): string => host.replace(/%.*$/, '');
const typeOf = (host: string): 'udp4' | 'udp6' => (isIPv6(bare(host)) ? 'udp6' : 'udp4');
