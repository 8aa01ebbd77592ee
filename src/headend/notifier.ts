import { background } from '../base/background.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { encodeNotification, resyncNonces } from '../wire/syncml/notification.ts';
import type { Downlink } from './downlink.ts';
import type { Parties } from './parties.ts';

export interface NotifierParts {
  /** ServerID of this server. */
  readonly serverId: string;
  readonly parties: Parties;
  readonly downlink: Downlink;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Makes Package #0 for a party, its digest over the party's current nonce or over another nonce. */
type Package0Maker = (nonce?: Uint8Array) => Uint8Array;

/**
 * Builds and sends Package #0 (OMA DM notification 1.2.1): the request to a party to open a session with this server.
 */
export class Notifier {
  readonly #parts: NotifierParts;
  #lastSessionId: number;

  constructor(parts: NotifierParts) {
    this.#parts = parts;
    this.#lastSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /**
   * Builds a Package #0 whose digest is over the resync nonce (OMA DM notification 1.2.1, section 6.1). It stays
   * valid when other sessions change the party's nonce before the package is delivered.
   * @throws {PosternError} `notFound` when the party has no account for this server
   */
  durablePackage0(partyId: string): Uint8Array {
    return this.#package0Maker(partyId)(resyncNonces[0]);
  }

  /**
   * Sends Package #0 to a party through a broker gateway. Resolves when the party has accepted it; with the reason when it cannot
   * be asked and has to come by itself. When the party
   * refuses the digest, its nonce differs from the one that this server has; the package is then sent once more with
   * the resync nonce (section 6.1).
   * @throws {PosternError} `notFound` when the party has no account for this server; otherwise as
   * `Downlink.deliverNotification`
   */
  async sendPackage0(partyId: string, brokerGateway: string): Promise<string | undefined> {
    const { downlink, events } = this.#parts;
    const package0 = this.#package0Maker(partyId);
    const device = brokerGateway === partyId ? undefined : partyId;
    const send = async (nonce?: Uint8Array) => {
      events.emit('notification.sent', { device: partyId, gateway: brokerGateway });
      return await downlink.deliverNotification(brokerGateway, device, package0(nonce));
    };
    try {
      return await send();
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'unauthorized') throw thrown;
      events.emit('notification.resync', { device: partyId, gateway: brokerGateway });
      return await send(resyncNonces[0]);
    }
  }

  /** Asks a party for a session, if it can be reached. Does not wait. */
  ask(partyId: string, brokerGateway: string): void {
    const { events } = this.#parts;
    void background(events, 'notification', async () => {
      try {
        await this.sendPackage0(partyId, brokerGateway);
      } catch (thrown) {
        const { message: reason } = asPosternError(thrown);
        events.emit('notification.failed', { gateway: brokerGateway, reason });
      }
    });
  }

  #package0Maker(partyId: string): Package0Maker {
    const { serverId, parties } = this.#parts;
    const party = parties.get(partyId);
    if (!party) throw new PosternError('notFound', `${partyId} has no account for this server`);
    const { own } = parties.account(serverId, party);
    this.#lastSessionId = (this.#lastSessionId % 0xffff) + 1;
    const notification = {
      uiMode: 1,
      serverInitiated: true,
      sessionId: this.#lastSessionId,
      serverId,
    } as const;
    return (nonce = own.nonce) => encodeNotification(notification, own.secret, nonce);
  }
}
