import type { CoapMessage } from './codec.ts';
import type { Handler, Remote } from './message.ts';
import type { OutgoingRequest } from './pending-requests.ts';

/** What protects requests and responses above the message layer of an endpoint, as OSCORE does. */
export interface Protection {
  /**
   * A handler that opens protected requests for another handler, and protects the responses to them. What is not protected goes to the
   * other handler as it is.
   * @param vouch to be called when the sender of a request has proved who it is
   */
  around(handler: Handler, vouch: (remote: Remote, identity: string) => void): Handler;
  /**
   * A party has proved to be at this address and port, without protection. What is sent there is not protected any more, unless the
   * party is the one that was there before.
   */
  leave(remote: Remote, party: string): void;
  /** Who alone can read what is sent to this remote. Undefined when nothing protects that. */
  partyAt(remote: Remote): string | undefined;
  /**
   * Sends a request protected, and resolves with its opened response. Undefined when nothing protects what goes to this remote.
   * @param send sends a request as it is
   * @throws {PosternError} as `CoapEndpoint.request`; `malformed` for a response that does not verify, `unavailable` for an error that
   *   is not protected, `storage` when no sequence number can be reserved
   */
  request(
    remote: Remote,
    outgoing: OutgoingRequest,
    send: (outgoing: OutgoingRequest) => Promise<CoapMessage>,
  ): Promise<CoapMessage> | undefined;
}
