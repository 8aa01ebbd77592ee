import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';

/** A device behind the NAT: its own port, and the socket by which the gateway sees it. */
interface Mapping {
  readonly inside: number;
  outer: Socket;
}

/**
 * A NAT between devices and a gateway, on real sockets of the loopback interface. To devices it is the gateway. To the
 * gateway each device has an address and port of the NAT, over IPv4 or IPv6. The table can change under both.
 */
export class Nat implements AsyncDisposable {
  readonly #inner = createSocket('udp4');
  readonly #family: 4 | 6;
  readonly #mappings = new Map<number, Mapping>();
  /** Ports of devices whose datagrams get lost, in both directions. */
  readonly lost = new Set<number>();
  /** Sees each datagram before it is passed on. `isOutward` says that a device sent it. */
  tap: (datagram: Buffer, isOutward: boolean) => void = () => {};
  #gateway = 0;

  private constructor(family: 4 | 6) {
    this.#family = family;
  }

  static async open(family: 4 | 6 = 4): Promise<Nat> {
    const nat = new Nat(family);
    nat.#inner.on('message', (datagram, { port }) => nat.#outward(datagram, port));
    nat.#inner.bind(0, '127.0.0.1');
    await once(nat.#inner, 'listening');
    return nat;
  }

  /** What devices take for the port of the gateway. */
  get coapPort(): number {
    return this.#inner.address().port;
  }

  /** Host and port that the gateway has to advertise. */
  get advertised(): string {
    return `127.0.0.1:${this.coapPort}`;
  }

  /** Sets the port of the gateway, on the loopback address of the NAT's family. */
  leadTo({ coapPort }: { readonly coapPort: number }): void {
    this.#gateway = coapPort;
  }

  /** Ports by which the gateway sees the devices, in the order in which they came. */
  get ports(): number[] {
    return [...this.#mappings.values()].map(({ outer }) => outer.address().port);
  }

  /** Ports of the devices, in the order in which they came. */
  get insidePorts(): number[] {
    return [...this.#mappings.keys()];
  }

  /** Gives each of two devices the address of the other one. */
  swap(first = this.insidePorts[0]!, second = this.insidePorts[1]!): void {
    const [a, b] = [this.#mappings.get(first)!, this.#mappings.get(second)!];
    [a.outer, b.outer] = [b.outer, a.outer];
  }

  /** Gives the addresses of a device that is gone to another one that has not come yet. */
  takeOver(old: number, heir: number): void {
    const mapping = this.#mappings.get(old)!;
    this.#mappings.delete(old);
    this.#mappings.set(heir, { inside: heir, outer: mapping.outer });
  }

  /** Forgets the mapping of a device, as after an idle time. Its next datagram gets another port. */
  async rebind(inside = this.insidePorts[0]!): Promise<void> {
    const { outer } = this.#mappings.get(inside)!;
    this.#mappings.delete(inside);
    const closed = once(outer, 'close');
    outer.close();
    await closed;
  }

  /** Sends a datagram to the gateway from the address and port by which it sees a device, as a liar can who forges both. */
  forge(datagram: Uint8Array, inside = this.insidePorts[0]!): void {
    this.#mappings.get(inside)!.outer.send(datagram, this.#gateway, this.#family === 6 ? '::1' : '127.0.0.1');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const sockets = [this.#inner, ...[...this.#mappings.values()].map(({ outer }) => outer)];
    await Promise.all(
      sockets.map(async (socket) => {
        const closed = once(socket, 'close');
        socket.close();
        await closed;
      }),
    );
  }

  #outward(datagram: Buffer, inside: number): void {
    const { outer } = this.#mappings.get(inside) ?? this.#map(inside);
    this.tap(datagram, true);
    if (this.lost.has(inside)) return;
    outer.send(datagram, this.#gateway, this.#family === 6 ? '::1' : '127.0.0.1');
  }

  #map(inside: number): Mapping {
    const outer = createSocket(`udp${this.#family}`);
    outer.bind(0, this.#family === 6 ? '::1' : '127.0.0.1');
    const mapping: Mapping = { inside, outer };
    this.#mappings.set(inside, mapping);
    outer.on('message', (datagram) => {
      this.tap(datagram, false);
      const owner = [...this.#mappings.values()].find((each) => each.outer === outer)?.inside;
      if (owner !== undefined && !this.lost.has(owner)) this.#inner.send(datagram, owner, '127.0.0.1');
    });
    return mapping;
  }
}
