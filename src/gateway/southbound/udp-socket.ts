import { createSocket, type Socket } from 'node:dgram';
import { literalLookup } from '../../base/source-address.ts';

/** A datagram as it came in: its octets, and the address and port of its sender. */
export interface Datagram {
  readonly octets: Buffer;
  readonly address: string;
  readonly port: number;
}

export interface BoundSocketOptions {
  readonly family: 4 | 6;
  readonly address: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly reuseAddr?: boolean;
}

/** Bytes of the receive buffer of a socket, for bursts of datagrams. The kernel's own limit (`net.core.rmem_max`) may reduce it. */
const recvBufferSize = 4 * 1024 * 1024;

/**
 * A UDP socket of one family, bound to an address of literals.
 * @throws the error of the system when it cannot be bound
 */
export async function boundSocket({ family, address, port, ...rest }: BoundSocketOptions): Promise<Socket> {
  const socket = createSocket({
    type: family === 6 ? 'udp6' : 'udp4',
    ipv6Only: family === 6,
    recvBufferSize,
    ...literalLookup,
    ...rest,
  });
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const fail = (error: Error) => {
    socket.close();
    reject(error);
  };
  socket.once('error', fail);
  socket.bind({ port, address, exclusive: true }, () => {
    socket.off('error', fail);
    resolve(socket);
  });
  return await promise;
}

/** Why something failed, as text. */
export const reasonOf = (thrown: unknown): string =>
  thrown instanceof Error ? thrown.message : String(thrown);
