import type { Socket } from 'node:dgram';
import { isIPv4, isIPv6 } from 'node:net';
import { Standing } from '../base/admission.ts';
import { background, guarded } from '../base/background.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import {
  type CoapMessage,
  decode,
  encode,
  encodeEmpty,
  Malformed,
  noBytes,
  Type,
} from '../wire/coap/codec.ts';
import { Code, isRequestCode } from '../wire/coap/codes.ts';
import { CoapRequest, type Handler, type Remote, type Reply, type Seal } from '../wire/coap/message.ts';
import { Option, textOptions, uintOption } from '../wire/coap/options.ts';
import { remoteKey } from '../wire/coap/peer.ts';
import type { OutgoingRequest } from '../wire/coap/pending-requests.ts';
import { parametersOf } from '../wire/secure/oscore/config.ts';
import { OscoreContexts, type SenderRecord, type SenderStore } from '../wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../wire/secure/oscore/keys.ts';
import { hasOscore } from '../wire/secure/oscore/messages.ts';
import { Oscore } from '../wire/secure/oscore/protection.ts';
import { factoryContext, factoryIdentity, ofDevice } from '../wire/secure/transport-keys.ts';
import type { DeviceConfig } from './config.ts';

export interface ProtectionParts {
  readonly clock: Clock;
  readonly events: Events;
  readonly entropy?: Entropy;
  /** The context for a request to this path and place. Undefined where the request leaves without protection. */
  readonly contextFor: (path: string, to: Place) => DeviceContext | undefined;
  /** Called when the gateway does not know the context with this identity. Nothing proves that it was the gateway. */
  readonly refused?: (identity: string) => void;
  readonly senders: SenderStore;
}

/** A security context of the device. */
export interface DeviceContext {
  /** It takes the place of the earlier context of this name. */
  readonly name: string;
  /** Identity of the key that gives it. */
  readonly identity: string;
  readonly parameters: OscoreParameters;
}

/** A socket as the package `coap` uses it, below the protection. */
interface Below {
  /** Sends a datagram as it is. */
  readonly send: (datagram: Buffer, to: Place) => void;
  /** Hands a datagram to the package. */
  readonly deliver: (datagram: Buffer, from: Place) => void;
}

interface Place {
  readonly address: string;
  readonly port: number;
}

/** A request of the package that waits for its response. */
interface Asked {
  readonly messageId: number;
  /** That of the context. */
  readonly identity: string;
  /** The last request that was sent for it. */
  sent: Sent | undefined;
  /** The package has its response. */
  isDone: boolean;
}

/** One protected request on the wire. A request of the package may need several: with an Echo, and for the parts of a proxy. */
interface Sent {
  readonly asked: Asked;
  readonly datagram: Buffer;
  readonly believes: OutgoingRequest['believes'];
  /** The gateway has it, so repetitions of the package are not sent. */
  isAcknowledged: boolean;
  /** Takes the response that arrives. */
  answered: ((message: CoapMessage) => void) | undefined;
}

/** A request of the gateway that the package answers. */
interface Served {
  /** What the package gets, also when the request is repeated. */
  plain: Buffer | undefined;
  /** Takes the response of the package. */
  answered: ((reply: Reply) => void) | undefined;
  readonly below: Below;
  /** Protects the notifications that follow. */
  seal: Seal | undefined;
  /** The last of them. */
  notification: { readonly messageId: number; readonly datagram: Promise<Buffer> } | undefined;
  /** Type and message ID of this response. */
  header: Pick<CoapMessage, 'type' | 'messageId'> | undefined;
  sent: Buffer | undefined;
}

/** Requests in each direction that are remembered. The package has few at one time. */
const remembered = 64;
/** Milliseconds for a request, which the package itself gives up before. */
const patience = 300_000;
/** What a party says that does not know the context of a request (RFC 8613 section 8.2). */
const unknownContext = 'Security context not found';

/**
 * OSCORE below the package `coap`, which knows nothing of it: the datagrams of the package are protected on their way out and opened
 * on their way in. The package keeps its message IDs, tokens, repetitions and blocks. OSCORE itself is the same code as in the gateway.
 */
export class ProtectedDatagrams {
  readonly #parts: ProtectionParts;
  readonly #entropy: Entropy;
  readonly #contexts: OscoreContexts;
  readonly #oscore: Oscore;
  readonly #handle: Handler;
  /** By token of the package. */
  readonly #asked = new BoundedMap<string, Asked>(remembered);
  /** By place and message ID, and the same by place and token. */
  readonly #served = new BoundedMap<string, Served>(remembered);
  readonly #servedByToken = new BoundedMap<string, Served>(remembered);
  /** Requests that observe, by place and token. */
  readonly #observed = new BoundedMap<string, Served>(remembered);
  /**
   * By the token on the wire, which no two requests share, and by message ID. So a late response to an earlier request is not taken
   * for that to a later one.
   */
  readonly #sent = new BoundedMap<string, Sent>(remembered);
  readonly #sentById = new BoundedMap<number, Sent>(remembered);

  constructor(parts: ProtectionParts) {
    const { entropy = systemEntropy, clock, events, senders: store } = parts;
    this.#parts = parts;
    this.#entropy = entropy;
    this.#contexts = new OscoreContexts({ clock, events, store });
    this.#oscore = new Oscore({ contexts: this.#contexts, clock, entropy, events });
    this.#handle = this.#oscore.around(
      (request) => this.#handOver(request),
      () => {},
    );
  }

  /** Puts the protection under a socket. To be called before the package gets it. */
  under(socket: Socket): void {
    const { events } = this.#parts;
    const send = socket.send.bind(socket) as (datagram: Buffer, port: number, address: string) => void;
    const emit = socket.emit.bind(socket) as (name: string, ...rest: unknown[]) => boolean;
    const below: Below = {
      send: (datagram, { address, port }) => {
        try {
          send(datagram, port, address);
        } catch {
          // The socket was closed meanwhile. Datagrams may be lost.
        }
      },
      deliver: (datagram, from) => emit('message', datagram, { ...from, size: datagram.length }),
    };
    const outgoing = guarded(events, 'device-coap', (datagram: Buffer, to: Place) =>
      this.#leaves(datagram, to, below),
    );
    const incoming = guarded(events, 'device-coap', (datagram: Buffer, from: Place) =>
      this.#arrives(datagram, from, below),
    );
    // The package also says offset and length, which are those of the whole datagram.
    socket.send = ((datagram: Buffer, ...rest: unknown[]) => {
      const [port, address] = (typeof rest[1] === 'number' ? rest.slice(2) : rest) as [number, string];
      const sent = rest.at(-1);
      outgoing(datagram, { address, port });
      if (typeof sent === 'function') sent(null, datagram.length);
    }) as Socket['send'];
    socket.emit = ((name: string, ...rest: unknown[]) => {
      if (name !== 'message') return emit(name, ...rest);
      const [datagram, from] = rest as [Buffer, Place];
      incoming(datagram, from);
      return true;
    }) as Socket['emit'];
  }

  #leaves(datagram: Buffer, to: Place, below: Below): void {
    const message = decode(datagram);
    if (message instanceof Malformed || message.code === Code.Empty || isGroup(to.address))
      below.send(datagram, to);
    else if (isRequestCode(message.code)) {
      const context = this.#contextFor(`/${textOptions(message.options, Option.UriPath).join('/')}`, to);
      if (context) this.#ask(message, to, below, context);
      else below.send(datagram, to);
    } else this.#answer(message, to, below);
  }

  /** The context for a path, known to OSCORE. */
  #contextFor(path: string, to: Place): DeviceContext | undefined {
    const found = this.#parts.contextFor(path, to);
    const why = found && this.#contexts.add(found.name, found.parameters);
    if (why !== undefined) throw new PosternError('conflict', why);
    return found;
  }

  #ask(message: CoapMessage, to: Place, below: Below, { name, identity }: DeviceContext): void {
    const { type, messageId, token } = message;
    const key = hexOf(token);
    const known = this.#asked.get(key);
    if (known?.messageId === messageId) {
      if (known.sent?.isAcknowledged === false) below.send(known.sent.datagram, to);
      return;
    }
    const asked: Asked = { messageId, identity, sent: undefined, isDone: false };
    this.#asked.set(key, asked);
    // The device speaks to its gateway alone, wherever that is.
    this.#contexts.follow(this.#contexts.get(name)!, to);
    const send = ({ code, options, payload = noBytes, believes }: OutgoingRequest) => {
      // The package sees one request.
      const ownId = asked.sent ? Buffer.from(this.#entropy.bytes(2)).readUInt16BE() : messageId;
      const ownToken = this.#entropy.bytes(8);
      const datagram = encode({ type, messageId: ownId, token: ownToken, code, options, payload });
      const { promise, resolve } = Promise.withResolvers<CoapMessage>();
      const sent: Sent = { asked, datagram, believes, isAcknowledged: false, answered: resolve };
      asked.sent = sent;
      this.#sent.set(hexOf(ownToken), sent);
      this.#sentById.set(ownId, sent);
      below.send(datagram, to);
      return promise;
    };
    const { code, options, payload } = message;
    const outgoing = { code, options, payload, timeout: patience };
    const { events } = this.#parts;
    void background(events, 'device-coap', async () => {
      const response = await this.#oscore
        .request(remoteOf(to), outgoing, send)
        ?.catch((thrown) => asPosternError(thrown));
      asked.isDone = true;
      if (!response) return;
      if (response instanceof PosternError) {
        events.emit('oscore.unanswered', { peer: to.address, reason: response.message });
        below.deliver(encodeEmpty(Type.RST, messageId), to);
        return;
      }
      // A confirmable one was acknowledged when it arrived.
      const kind = { type: Type.ACK, messageId, token };
      const { code: said, options: all, payload: body } = response;
      below.deliver(encode({ ...kind, code: said, options: all, payload: body }), to);
    });
  }

  /** Protects a response of the package. */
  #answer({ type, messageId, token, code, options, payload }: CoapMessage, to: Place, below: Below): void {
    const key = `${keyOf(to)} ${hexOf(token)}`;
    const served = this.#servedByToken.get(key) ?? this.#observed.get(key);
    if (!served) return;
    if (served.sent && served.header?.messageId === messageId) below.send(served.sent, to);
    else if (served.sent && served.seal) {
      this.#notify(served, served.seal, { type, messageId, token, code, options, payload }, to);
      return;
    }
    served.header ??= { type, messageId };
    served.answered?.({ code, options, payload });
    served.answered = undefined;
  }

  /** Protects a notification (RFC 7641) once, and sends it as often as the package does. */
  #notify(served: Served, seal: Seal, message: CoapMessage, to: Place): void {
    const { type, messageId, token } = message;
    if (served.notification?.messageId !== messageId) {
      const sealed = seal(message).then((reply) => encode({ type, messageId, token, ...reply }));
      served.notification = { messageId, datagram: sealed };
    }
    const { datagram } = served.notification;
    void background(this.#parts.events, 'device-coap', async () => served.below.send(await datagram, to));
  }

  #arrives(datagram: Buffer, from: Place, below: Below): void {
    const message = decode(datagram);
    if (message instanceof Malformed) return;
    const { code } = message;
    if (code === Code.Empty) this.#takeEmpty(message, datagram, from, below);
    else if (isRequestCode(code)) this.#serve(message, from, below);
    else this.#take(message, datagram, from, below);
  }

  /**
   * An acknowledgement ends the repetitions of one request on the wire. The package goes on with them, for the case that another one
   * takes its place.
   */
  #takeEmpty({ type, messageId }: CoapMessage, datagram: Buffer, from: Place, below: Below): void {
    const sent = this.#sentById.get(messageId);
    if (!sent || sent.asked.isDone || type === Type.CON) below.deliver(datagram, from);
    else if (type === Type.ACK) sent.isAcknowledged = true;
    else if (sent.asked.sent === sent) below.deliver(encodeEmpty(Type.RST, sent.asked.messageId), from);
  }

  /** Takes a response. One to a request that was not protected is for the search by multicast. */
  #take(message: CoapMessage, datagram: Buffer, from: Place, below: Below): void {
    const sent = this.#sent.get(hexOf(message.token));
    if (!sent) {
      below.deliver(datagram, from);
      return;
    }
    // What is read lives as long as the response does.
    const response = decode(Buffer.from(datagram)) as CoapMessage;
    const { type, messageId, code, payload } = response;
    const { answered } = sent;
    if (answered && sent.believes?.(response) === false) return;
    sent.answered = undefined;
    sent.isAcknowledged = true;
    if (type === Type.CON) below.send(encodeEmpty(Type.ACK, messageId), from);
    const isUnknown = code === Code.Unauthorized && Buffer.from(payload).toString() === unknownContext;
    if (answered && isUnknown && !hasOscore(response)) this.#parts.refused?.(sent.asked.identity);
    answered?.(response);
  }

  #serve(message: CoapMessage, from: Place, below: Below): void {
    const { type, messageId, token } = message;
    // Only what is protected is served.
    if (!hasOscore(message)) return;
    // After a restart the gateway may speak first.
    this.#contextFor('/', from);
    const key = `${keyOf(from)} ${messageId}`;
    const known = this.#served.get(key);
    if (known) {
      if (known.plain) below.deliver(known.plain, from);
      else if (known.sent) below.send(known.sent, from);
      return;
    }
    const served: Served = {
      below,
      seal: undefined,
      notification: undefined,
      plain: undefined,
      answered: undefined,
      header: undefined,
      sent: undefined,
    };
    this.#served.set(key, served);
    const account = { room: Number.POSITIVE_INFINITY, standing: Standing.Proven };
    const request = new CoapRequest(remoteOf(from), message, false, message.payload, account);
    void background(this.#parts.events, 'device-coap', async () => {
      const reply = await this.#handle(request);
      if (!reply) return;
      const direct = { type: type === Type.CON ? Type.ACK : Type.NON, messageId };
      served.sent = encode({ ...(served.header ?? direct), token, ...reply });
      below.send(served.sent, from);
    });
  }

  /** Hands an opened request to the package, and waits for its response. */
  #handOver({ message, payload, remote, seal }: CoapRequest): Promise<Reply> | undefined {
    const { type, messageId, token, code, options } = message;
    const served = this.#served.get(`${remote.key} ${messageId}`);
    if (!served) return undefined;
    const observes = uintOption(options, Option.Observe) === 0;
    if (observes) served.seal = seal;
    (observes ? this.#observed : this.#servedByToken).set(`${remote.key} ${hexOf(token)}`, served);
    served.plain = encode({ type, messageId, token, code, options, payload });
    const { promise, resolve } = Promise.withResolvers<Reply>();
    served.answered = resolve;
    served.below.deliver(served.plain, remote);
    return promise;
  }
}

/**
 * The protection that a configuration asks for: by the context of the configuration, else by those of `parts` where the device is to use
 * OSCORE. Without durable state, reservations last as long as the process.
 */
export function protectionOf(
  { oscore, device }: DeviceConfig,
  parts: Omit<ProtectionParts, 'senders'> & { readonly senders?: SenderStore },
): ProtectedDatagrams | undefined {
  const senders = new VolatileSenders();
  if (!oscore)
    return device.security === 'oscore' ? new ProtectedDatagrams({ senders, ...parts }) : undefined;
  const context = { name: 'gateway', identity: '', parameters: parametersOf(oscore) };
  return new ProtectedDatagrams({ senders, ...parts, contextFor: () => context });
}

/** The context that the factory secret gives for the bootstrap. */
export const factoryContextOf = ({ device }: DeviceConfig): DeviceContext | undefined => {
  const { id, 'factory-secret': secret } = device;
  if (secret === undefined) return undefined;
  const parameters = ofDevice(factoryContext(secret, id));
  return { name: 'factory', identity: factoryIdentity(id), parameters };
};

/** Reservations of a device without durable state. Its numbers begin by the clock at each start. */
export class VolatileSenders implements SenderStore {
  readonly #known = new Map<string, SenderRecord>();

  get(mark: string): SenderRecord | undefined {
    return this.#known.get(mark);
  }

  put(mark: string, record: SenderRecord): void {
    this.#known.set(mark, record);
  }

  async settled(): Promise<void> {}
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const keyOf = ({ address, port }: Place): string => remoteKey(address, port);
const remoteOf = (place: Place): Remote => ({ ...place, key: keyOf(place) });

const isGroup = (address: string): boolean =>
  (isIPv4(address) && Number(address.split('.')[0]) >= 224) ||
  (isIPv6(address.replace(/%.*$/, '')) && /^ff/i.test(address));
