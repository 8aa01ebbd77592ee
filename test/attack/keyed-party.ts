import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { type CoapAnswer, type CoapCall, call } from '../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { remoteKey } from '../../src/wire/coap/peer.ts';
import type { Association, Place } from '../../src/wire/secure/dtls/association.ts';
import { DtlsEndpoint } from '../../src/wire/secure/dtls/endpoint.ts';

/** A pre-shared key and its identity. */
export interface PartyKey {
  readonly identity: string;
  readonly key: Uint8Array;
}

/** A party that speaks CoAP over DTLS with a gateway from one address and port, and answers its pings. It has one association at a time. */
export class KeyedParty implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #gateway: Place;
  readonly #dtls: DtlsEndpoint;
  readonly #coap: CoapEndpoint;
  #association: Association | undefined;
  /** Rejects when the gateway ends the association. */
  #end = Promise.withResolvers<never>();
  /** Called with each Package #0, which is then answered with 2.04. */
  notified: ((notification: Uint8Array) => void) | undefined;
  /** Called with each datagram just before it is sent. */
  leaving: ((datagram: Buffer) => void) | undefined;

  private constructor(socket: Socket, gateway: Place) {
    const clock = new SystemClock();
    this.#socket = socket;
    this.#gateway = gateway;
    this.#dtls = new DtlsEndpoint({
      clock,
      entropy: systemEntropy,
      send: (datagram, { port, address }) => {
        this.leaving?.(datagram);
        socket.send(datagram, port, address);
      },
      received: ({ place }, content) => this.#coap.receive(content, place.address, place.port),
      closed: (association, reason) => {
        if (association === this.#association)
          this.#end.reject(new Error(`the association has ended: ${reason}`));
      },
      opened: ({ place: { address, port } }) =>
        this.#coap.vouch({ address, port, key: remoteKey(address, port) }),
    });
    this.#coap = new CoapEndpoint({
      clock,
      entropy: systemEntropy,
      events: noEvents,
      handler: ({ message }) => {
        const isNotification = message.code === Code.POST && this.notified !== undefined;
        if (isNotification) this.notified?.(message.payload);
        return reply(isNotification ? Code.Changed : Code.NotFound);
      },
      send: (content) => this.send(content),
    });
    socket.on('message', (datagram, { address, port }) =>
      this.#dtls.receive(datagram, { address, port, local: '' }),
    );
  }

  /** @param gateway where it serves CoAP over DTLS */
  static async open(
    gateway: { readonly host: string; readonly port: number },
    from: { readonly address: string; readonly port: number },
  ): Promise<KeyedParty> {
    const socket = createSocket('udp4');
    socket.on('error', () => {});
    socket.bind(from);
    await once(socket, 'listening');
    return new KeyedParty(socket, { address: gateway.host, port: gateway.port, local: '' });
  }

  /** Opens an association by this key in place of the one that there is. */
  async connect(key: PartyKey): Promise<void> {
    if (this.#association) this.#dtls.close(this.#association);
    this.#association = (await this.#dtls.connect(this.#gateway, key)).association;
    this.#end = Promise.withResolvers<never>();
    // Whoever asks then finds out.
    this.#end.promise.catch(() => {});
  }

  /** Sends a CoAP message through the association without waiting for anything. It is lost when the association has ended. */
  send(content: Buffer): void {
    try {
      if (this.#association) this.#dtls.send(this.#association, content);
    } catch {
      // Whoever waits for an answer finds out.
    }
  }

  /** Sends a request through the association. Resolves with the response, whatever its code. Rejects when the association ends. */
  async ask(request: Omit<CoapCall, 'timeout'>): Promise<CoapAnswer> {
    const { address, port } = this.#gateway;
    const answer = call(this.#coap, systemEntropy, address, port, { timeout: 20_000, ...request });
    return await Promise.race([answer, this.#end.promise]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#dtls.stop();
    this.#coap.stop();
    this.#socket.close();
    await once(this.#socket, 'close');
  }
}
