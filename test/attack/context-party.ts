import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { SystemClock } from '../../src/base/clock.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { noEvents } from '../../src/base/events.ts';
import { leavingAlert } from '../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { call } from '../../src/wire/coap/blockwise-client.ts';
import { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { OscoreContexts } from '../../src/wire/secure/oscore/contexts.ts';
import { OscoreKeys } from '../../src/wire/secure/oscore/keys.ts';
import { Oscore } from '../../src/wire/secure/oscore/protection.ts';
import { issuedContext, ofDevice } from '../../src/wire/secure/transport-keys.ts';
import { MemorySenders } from '../wire/secure/oscore/party.ts';
import type { Target } from './attacker.ts';
import { DmParty } from './dm-party.ts';
import { KeyedParty } from './keyed-party.ts';

/**
 * Milliseconds that it waits for an answer: as long as CoAP may take (MAX_TRANSMIT_WAIT, RFC 7252 section 4.8.2). Its attack ends as
 * failed when there is none.
 */
const patience = 93_000;

/** A device whose requests are protected by the security context that a bootstrap gave it. The bootstrap is over DTLS. */
export class ContextParty {
  readonly #target: Target;
  readonly #dtls: KeyedParty;
  readonly #contexts: OscoreContexts;
  readonly #device: DmParty;
  /** What it has sent in its present context. */
  #sent: Buffer[] = [];

  private constructor(id: string, target: Target, socket: Socket, dtls: KeyedParty) {
    const clock = new SystemClock();
    const entropy = systemEntropy;
    const events = noEvents;
    this.#target = target;
    this.#dtls = dtls;
    this.#contexts = new OscoreContexts({ clock, events, store: new MemorySenders() });
    const coap = new CoapEndpoint({
      ...{ clock, entropy, events },
      handler: () => undefined,
      protection: new Oscore({ clock, entropy, events, contexts: this.#contexts }),
      send: (datagram, port, address) => {
        this.#sent.push(Buffer.from(datagram));
        socket.send(datagram, port, address);
      },
    });
    socket.on('message', (datagram, { address, port }) => coap.receive(datagram, address, port));
    this.#device = new DmParty(id, (asked) =>
      call(coap, entropy, target.host, target.coap, { timeout: patience, ...asked }),
    );
  }

  static async open(id: string, target: Target): Promise<ContextParty> {
    const from = { address: target.multicast, port: 0 };
    const socket = createSocket('udp4');
    socket.on('error', () => {});
    socket.bind(from);
    await once(socket, 'listening');
    const dtls = await KeyedParty.open({ host: target.host, port: target.coaps }, from);
    return new ContextParty(id, target, socket, dtls);
  }

  /**
   * Gets a new context, and proves itself by it in a session: a former context has ended then.
   * @returns the keys of the new context
   */
  async renew(): Promise<OscoreKeys> {
    const { identity, key } = await this.#device.bootstrap(this.#dtls);
    const parameters = ofDevice(issuedContext(identity, key));
    this.#contexts.add('gateway', parameters);
    this.#contexts.follow(this.#contexts.get('gateway')!, {
      address: this.#target.host,
      port: this.#target.coap,
    });
    this.#sent = [];
    await this.#device.report([]);
    return new OscoreKeys(parameters);
  }

  /** What it has sent since it got its context. */
  get sent(): readonly Buffer[] {
    return this.#sent;
  }

  /** Leaves the gateway, which ends its context. */
  async leave(): Promise<void> {
    await this.#device.report([leavingAlert(ownVocabulary, this.#device.id)]);
  }
}
