import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import { type Database, transaction } from '../../base/database.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Protocol } from '../../mo/device-record.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { type UnlistedKeys, unlistedIdentity } from '../../wire/secure/dtls/certificates.ts';
import type { Credentials } from '../store/credentials.ts';
import type { Pin, Pins } from '../store/pins.ts';
import type { Credential } from './access.ts';
import { JoinWindow, type WindowRequest } from './join-window.ts';

export interface JoinsParts {
  readonly database: Database;
  readonly pins: Pins;
  readonly credentials: Pick<Credentials, 'get' | 'delete'>;
  /** Whether a device with this name is listed, expected or attached, so that nobody may join under it. */
  readonly isTaken: (deviceId: string) => boolean;
  /** Whether the configuration lists a device with this name. What it says of the device goes first. */
  readonly isListed: (deviceId: string) => boolean;
  /** Whether devices can prove a public key here. */
  readonly canProve: () => boolean;
  readonly clock: Clock;
  readonly events: Events;
}

/** What is told of keys to whoever has the associations. */
export interface KeyListener {
  /** The holder of a key has another name or other rights now. */
  renew(identity: string): void;
  /** The holder of a key has no rights any more. */
  revoke(identity: string): void;
  /** Some holders may have no rights any more. */
  review(): void;
}

/** Keys that have an association while a window is open, and whose holders have not joined yet. */
const mostCandidates = 64;
/** As whom all holders of unknown keys are counted together, so that many keys give nobody more room. */
const allJoining = 'joining';

/** What a gateway says of its join window. */
export interface JoinView {
  readonly window?: { readonly left: number; readonly until: string; readonly joined: readonly string[] };
  readonly pinned: readonly Pin[];
}

/**
 * Trust on first use. While a join window is open, a device that nobody has listed may open an association by a public key, and the
 * name that it says is pinned to this key. From then on the key proves the name, with and without a window.
 */
export class Joins implements UnlistedKeys {
  readonly #parts: JoinsParts;
  readonly #window: JoinWindow;
  readonly #candidates = new BoundedMap<string, true>(mostCandidates, (mark) =>
    this.#listener?.revoke(unlistedIdentity(mark)),
  );
  #listener: KeyListener | undefined;

  constructor(parts: JoinsParts) {
    this.#parts = parts;
    this.#window = new JoinWindow(parts.clock, (reason, joined) => {
      parts.events.emit('join.closed', { reason, devices: joined.length });
      for (const mark of [...this.#candidates.keys()]) this.#candidates.delete(mark);
      this.#listener?.review();
    });
  }

  listen(listener: KeyListener): void {
    this.#listener = listener;
  }

  /**
   * Opens the window, or another one in its place.
   * @param by who asks for it, for the log
   * @throws {PosternError} `malformed`, `notAllowed` where no device could prove a public key
   */
  open(request: WindowRequest, by: string): void {
    this.demandPossible();
    this.#window.open(request);
    this.#parts.events.emit('join.opened', { ...request, by });
  }

  /** @throws {PosternError} `notAllowed` where no device could prove a public key */
  demandPossible(): void {
    if (this.#parts.canProve()) return;
    throw new PosternError(
      'notAllowed',
      'a device joins by a public key over DTLS, and this gateway has none of its own: set coaps.key-file',
    );
  }

  close(): void {
    this.#window.close('closed by hand');
  }

  stop(): void {
    this.#window.close('the gateway stops');
  }

  get view(): JoinView {
    const window = this.#window.view;
    return { ...(window && { window }), pinned: [...this.#parts.pins.values()] };
  }

  get isTaking(): boolean {
    return this.#parts.pins.size > 0 || this.#window.isOpen;
  }

  admits(mark: string): boolean {
    if (this.#pinAt(mark)) return true;
    if (!this.#window.isOpen) return false;
    this.#candidates.set(mark, true);
    return true;
  }

  holds(mark: string): boolean {
    return this.#pinAt(mark) !== undefined || (this.#window.isOpen && this.#candidates.has(mark));
  }

  /** Who the holder of an unlisted key is; undefined for another identity. */
  ownerOf(
    identity: string,
    proof: string | undefined,
  ): (Pick<Remote, 'identity' | 'party'> & { readonly credential: Credential }) | undefined {
    const [kind, mark = ''] = proof?.split(' ') ?? [];
    if (kind !== 'raw' || identity !== unlistedIdentity(mark)) return undefined;
    const pin = this.#pinAt(mark);
    if (!pin) return { identity, credential: 'joining', party: allJoining };
    return { identity: pin.deviceId, credential: pin.protocol === 'LwM2M' ? 'configuration' : 'pinned' };
  }

  /** Whether a device has joined with this protocol. */
  has(deviceId: string, protocol: Protocol): boolean {
    return this.#parts.pins.get(deviceId)?.protocol === protocol && !this.#parts.isListed(deviceId);
  }

  /**
   * Whether the sender of a request is the device that it says it is, because the device has joined or does so now.
   * @param store what is to be stored together with the key
   * @returns false when this is not about joining
   * @throws {PosternError} `forbidden`, `full`, `storage`
   */
  isJoined(deviceId: string, protocol: Protocol, remote: Remote, store: () => void = () => {}): boolean {
    const { pins } = this.#parts;
    if (remote.credential !== 'joining') {
      if (remote.identity !== deviceId || !this.has(deviceId, protocol)) return false;
      store();
      return true;
    }
    const mark = remote.identity!.slice(unlistedIdentity('').length);
    const known = pins.get(deviceId);
    // Its earlier request over this association has joined it.
    if (known?.mark === mark && known.protocol === protocol) store();
    else this.#join({ deviceId, mark, protocol }, remote, store);
    return true;
  }

  /**
   * Gives the sender of a request the rights of a device that has joined, over the association that it has. Not while it gets an
   * answer in blocks: their transfer belongs to who it was before.
   */
  settle({ identity, credential }: Remote): void {
    if (credential === 'joining') this.#listener?.renew(identity!);
  }

  /**
   * Forgets the key of a device, and what it got by it. Returns false when it had none.
   * @throws {PosternError} `storage`
   */
  forget(deviceId: string): boolean {
    const { database, pins, credentials, events } = this.#parts;
    const pin = pins.get(deviceId);
    if (!pin) return false;
    transaction(database, () => {
      // A client has keys alone, without a credential.
      if (this.has(deviceId, 'LwM2M') || credentials.get(deviceId)?.origin === 'joined')
        credentials.delete(deviceId);
      pins.delete(deviceId);
      database.afterCommit(() => {
        this.#listener?.revoke(unlistedIdentity(pin.mark));
        events.emit('join.forgotten', { device: deviceId });
      });
    });
    return true;
  }

  #join(
    { deviceId, mark, protocol }: Pick<Pin, 'deviceId' | 'mark' | 'protocol'>,
    { address }: Remote,
    store: () => void,
  ): void {
    const { database, pins, clock, events, isTaken } = this.#parts;
    const why = pins.get(deviceId)
      ? 'another key is pinned to this name'
      : pins.at(mark)
        ? 'this key is pinned to another name'
        : isTaken(deviceId)
          ? 'the gateway knows a device with this name'
          : !this.#window.isOpen
            ? 'no join window is open'
            : undefined;
    if (why !== undefined) {
      events.emit('join.refused', { device: deviceId, peer: address, reason: why });
      throw new PosternError('forbidden', 'this device may not join here');
    }
    transaction(database, () => {
      pins.add({ deviceId, mark, protocol, joined: clock.wall() });
      store();
      database.afterCommit(() => {
        this.#candidates.delete(mark);
        events.emit('join.joined', { device: deviceId, peer: address, protocol, key: mark });
        this.#window.took(deviceId);
      });
    });
  }

  #pinAt(mark: string): Pin | undefined {
    const pin = this.#parts.pins.at(mark);
    return pin && !this.#parts.isListed(pin.deviceId) ? pin : undefined;
  }
}
