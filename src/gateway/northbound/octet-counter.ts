import type { Socket } from 'node:net';
import type { Octets } from '../store/traffic.ts';

/**
 * Octets that a connection has carried on the wire so far. A TLSSocket counts what is inside TLS; the handle below it
 * counts what TCP carries. Node does not document that handle, so without it the count inside TLS is used.
 */
function carried(socket: Socket): Octets {
  if (!('encrypted' in socket)) return { up: socket.bytesWritten, down: socket.bytesRead };
  const { _handle: handle } = socket as unknown as {
    _handle?: { _parent?: { bytesWritten?: number; bytesRead?: number } } | null;
  };
  const { bytesWritten: up = socket.bytesWritten, bytesRead: down = socket.bytesRead } =
    handle?._parent ?? {};
  return { up, down };
}

/** Counts the octets of TCP connections while they are open. */
export class OctetCounter<Kind> {
  /** What is counted already, by connection. */
  readonly #followed = new Map<Socket, { readonly kind: Kind; seen: Octets }>();
  readonly #add: (kind: Kind, octets: Octets) => void;

  /** @param add takes what was carried since the last sample */
  constructor(add: (kind: Kind, octets: Octets) => void) {
    this.#add = add;
  }

  /** Counts a connection from its beginning to its end. A connection that is counted already stays of its kind. */
  follow(socket: Socket, kind: Kind): void {
    if (this.#followed.has(socket) || socket.destroyed) return;
    this.#followed.set(socket, { kind, seen: { up: 0, down: 0 } });
    socket.once('close', () => {
      this.sample();
      this.#followed.delete(socket);
    });
  }

  /** Counts what was carried since the last sample. */
  sample(): void {
    for (const [socket, followed] of this.#followed) {
      const { up, down } = carried(socket);
      const { seen, kind } = followed;
      const more = { up: Math.max(0, up - seen.up), down: Math.max(0, down - seen.down) };
      if (more.up === 0 && more.down === 0) continue;
      followed.seen = { up: seen.up + more.up, down: seen.down + more.down };
      this.#add(kind, more);
    }
  }
}
