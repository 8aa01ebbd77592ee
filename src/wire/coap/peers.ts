import { conversation } from '../../base/admission.ts';
import type { Entry } from './entry.ts';
import type { Remote } from './message.ts';
import type { MessageIds } from './message-ids.ts';
import { Peer, remoteKey } from './peer.ts';

/** The peers of an endpoint about which there is state. A peer is dropped when it is idle. */
export class Peers {
  readonly #entry: Entry;
  readonly #messageIds: MessageIds;
  readonly #byKey = new Map<string, Peer>();
  #made = 0;
  #last: Remote = { address: '', port: 0, key: remoteKey('', 0) };

  /** @param remoteOf replaces `remoteOf` for a transport that knows its peers by more than their address */
  constructor(entry: Entry, messageIds: MessageIds, remoteOf?: Peers['remoteOf']) {
    if (remoteOf) this.remoteOf = remoteOf;
    this.#entry = entry;
    this.#messageIds = messageIds;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** The remote at this address and port. Datagrams of one sender come in bursts, so the last one is kept. */
  remoteOf(address: string, port: number): Remote {
    const last = this.#last;
    if (last.port === port && last.address === address) return last;
    this.#last = { address, port, key: remoteKey(address, port) };
    return this.#last;
  }

  get({ key }: Remote): Peer | undefined {
    return this.#byKey.get(key);
  }

  /** The peer of a message of our own. */
  of(remote: Remote): Peer {
    const peer = this.#byKey.get(remote.key) ?? this.#add(remote);
    peer.standing = this.#entry.standingOf(remote);
    return peer;
  }

  /** A new peer, whose first datagram was admitted. */
  admitted(remote: Remote, bytes: number): Peer {
    const peer = this.#add(remote);
    peer.credit = conversation - 1;
    peer.received(bytes);
    return peer;
  }

  /** Drops a peer if it is idle. */
  forgetIdle(peer: Peer): void {
    if (peer.idle && this.#byKey.get(peer.key) === peer) this.#byKey.delete(peer.key);
  }

  clear(): void {
    this.#byKey.clear();
  }

  #add(remote: Remote): Peer {
    const peer = new Peer(remote, this.#made++, this.#messageIds);
    this.#byKey.set(remote.key, peer);
    return peer;
  }
}
