import type { RemoteInfo, Socket } from 'node:dgram';
import { failed, guarded } from '../../base/background.ts';
import type { Events } from '../../base/events.ts';
import { interfaceKey, type LocalAddress } from './interfaces.ts';
import { type KernelNetwork, membershipKey } from './kernel-network.ts';
import { boundSocket, type Datagram, reasonOf } from './udp-socket.ts';

/**
 * "All CoAP Nodes" multicast groups (RFC 7252 section 12.8, unchanged by RFC 9176): IPv4, IPv6 link-local, site-local.
 */
const groups = { 4: ['224.0.1.187'], 6: ['ff02::fd', 'ff05::fd'] } as const;
/** A link-local group address needs its zone, so it has a socket for each interface. */
const isLinkLocal = (group: string): boolean => group.startsWith('ff02:');

export interface MulticastGroupsParts {
  readonly events: Events;
  /** Called for each datagram that was sent to a group. `interfaceName` is known for link-local groups only. */
  readonly received: (datagram: Datagram, interfaceName: string | undefined) => void;
}

/** A membership of one interface in the group of a socket. */
interface Member {
  readonly index: number | undefined;
  /** How the interface is named when joining: an IPv4 address, or a zone. */
  readonly via: string;
}

interface Wanted {
  readonly family: 4 | 6;
  readonly group: string;
  readonly interfaceName: string | undefined;
  /** By `interfaceKey`. */
  readonly members: Map<string, Member>;
}

interface GroupSocket {
  readonly socket: Socket;
  /** Joined interfaces, and whether the kernel has listed the membership since. */
  readonly joined: Map<string, { isListed: boolean }>;
}

/**
 * The sockets of the multicast groups, which are apart from those of the local addresses: a socket does not show whether a
 * datagram was sent to a group. Memberships belong to interfaces of the kernel. When an interface has gone or was made
 * again, its socket keeps a dead membership that no call can remove or renew. So the socket is replaced.
 */
export class MulticastGroups {
  readonly #parts: MulticastGroupsParts;
  /** By the address that they are bound to. */
  readonly #sockets = new Map<string, GroupSocket>();
  /** Reasons of failures that were reported, so that each is reported once. */
  readonly #failures = new Map<string, string>();

  constructor(parts: MulticastGroupsParts) {
    this.#parts = parts;
  }

  /** Joins the groups on the interfaces of these addresses, and leaves them on all others. */
  async update(locals: readonly LocalAddress[], port: number, kernel: KernelNetwork): Promise<void> {
    const wanted = wantedFor(locals);
    for (const key of this.#failures.keys()) if (!isOf(key, wanted)) this.#failures.delete(key);
    for (const [bindTo, have] of this.#sockets) {
      const want = wanted.get(bindTo);
      // A dead membership has the index of its interface. If another interface has this index now, closing the socket
      // ends the memberships of all sockets there. So it is closed before the next one joins.
      if (!want || isDead(have, want, kernel)) this.#drop(bindTo, have.socket);
    }
    for (const [bindTo, want] of wanted) {
      const have = this.#sockets.get(bindTo);
      if (have) this.#join(have, want);
      else await this.#open(bindTo, want, port);
    }
  }

  /** Closes all sockets. */
  close(): void {
    for (const [bindTo, { socket }] of this.#sockets) this.#drop(bindTo, socket);
  }

  async #open(bindTo: string, want: Wanted, port: number): Promise<void> {
    const { family, group, interfaceName } = want;
    try {
      const socket = await boundSocket({ family, address: bindTo, port, reuseAddr: true });
      const { events, received } = this.#parts;
      socket.on(
        'message',
        guarded(events, 'coap-datagram', (octets: Buffer, { address, port: from }: RemoteInfo) =>
          received({ octets, address, port: from }, interfaceName),
        ),
      );
      socket.on('error', (error) => {
        failed(events, 'interfaces', error);
        this.#drop(bindTo, socket);
      });
      this.#failures.delete(bindTo);
      const fresh: GroupSocket = { socket, joined: new Map() };
      this.#sockets.set(bindTo, fresh);
      this.#join(fresh, want);
    } catch (thrown) {
      this.#failed(bindTo, group, interfaceName ?? '', reasonOf(thrown));
    }
  }

  #join({ socket, joined }: GroupSocket, { group, members }: Wanted): void {
    for (const [key, { via }] of members) {
      if (joined.has(key)) continue;
      const [, interfaceName = ''] = key.split(' ');
      try {
        socket.addMembership(group, via);
        joined.set(key, { isListed: false });
        this.#failures.delete(`${group} ${key}`);
      } catch (thrown) {
        this.#failed(`${group} ${key}`, group, interfaceName, reasonOf(thrown));
      }
    }
  }

  #failed(key: string, group: string, interfaceName: string, reason: string): void {
    if (this.#failures.get(key) === reason) return;
    this.#failures.set(key, reason);
    this.#parts.events.emit('coap.join-failed', { group, interface: interfaceName, reason });
  }

  #drop(bindTo: string, socket: Socket): void {
    if (this.#sockets.get(bindTo)?.socket !== socket) return;
    this.#sockets.delete(bindTo);
    socket.close();
  }
}

/** Whether a socket has a membership that is not wanted any more, or that the kernel has lost. */
function isDead({ joined }: GroupSocket, { family, group, members }: Wanted, kernel: KernelNetwork): boolean {
  for (const [key, membership] of joined) {
    const member = members.get(key);
    if (!member) return true;
    const listed = kernel.memberships[family];
    if (!listed || member.index === undefined) continue;
    const isListed = listed.has(membershipKey(member.index, group));
    // A kernel that has never listed it does not list memberships of this kind.
    if (membership.isListed && !isListed) return true;
    membership.isListed ||= isListed;
  }
  return false;
}

/** Whether a failure is about a socket or a membership that is still wanted. */
const isOf = (failure: string, wanted: ReadonlyMap<string, Wanted>): boolean =>
  wanted.has(failure) ||
  [...wanted.values()].some(({ group, members }) =>
    [...members.keys()].some((key) => failure === `${group} ${key}`),
  );

/** The sockets and memberships for local addresses, by the address that a socket is bound to. */
function wantedFor(locals: readonly LocalAddress[]): Map<string, Wanted> {
  const wanted = new Map<string, Wanted>();
  for (const local of locals) {
    const { family, interfaceName, interfaceIndex: index, address } = local;
    for (const group of groups[family]) {
      const bindTo = isLinkLocal(group) ? `${group}%${interfaceName}` : group;
      const want = wanted.get(bindTo) ?? {
        family,
        group,
        interfaceName: isLinkLocal(group) ? interfaceName : undefined,
        members: new Map<string, Member>(),
      };
      wanted.set(bindTo, want);
      const key = interfaceKey(local);
      if (!want.members.has(key))
        want.members.set(key, { index, via: family === 4 ? address : `::%${interfaceName}` });
    }
  }
  return wanted;
}
