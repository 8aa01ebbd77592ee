import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { packBlock } from '../../src/wire/coap/blockwise.ts';
import { decode, encode, Malformed, Type } from '../../src/wire/coap/codec.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { Option, opaque, sorted, uint, uintOption } from '../../src/wire/coap/options.ts';

/** A message that the server sends. */
export interface Said {
  readonly code?: number;
  /** Block2 of the message. */
  readonly block?: { readonly number: number; readonly more: boolean; readonly exponent: number };
  /** Block1 that is acknowledged. */
  readonly acknowledged?: { readonly number: number; readonly more: boolean; readonly exponent: number };
  readonly etag?: string;
  readonly payload?: Uint8Array;
  /** As a confirmable message of its own, and not with the acknowledgement. */
  readonly isSeparate?: boolean;
}

/** What the client asks for. */
export interface Asked {
  /** How many requests came before. */
  readonly index: number;
  readonly number: number;
  readonly exponent: number;
}

/** The block of a body that was asked for. */
export function blockOf(
  body: Uint8Array,
  { number, exponent }: Pick<Asked, 'number' | 'exponent'>,
  etag?: string,
): Said {
  const size = 1 << (exponent + 4);
  const payload = body.subarray(number * size, (number + 1) * size);
  const more = (number + 1) * size < body.length;
  return { block: { number, more, exponent }, payload, ...(etag !== undefined && { etag }) };
}

/** A CoAP server that answers each request with the messages that the test says, in their order. */
export async function lyingCoapServer(answer: (asked: Asked) => readonly Said[]) {
  const socket = createSocket('udp4');
  const asked: Asked[] = [];
  const acknowledged: number[] = [];
  let separate = 0x4000;
  socket.on('message', (datagram, { address, port }) => {
    const request = decode(datagram);
    if (request instanceof Malformed) return;
    if (request.code === Code.Empty) {
      acknowledged.push(request.messageId);
      return;
    }
    const wanted = uintOption(request.options, Option.Block2) ?? 0;
    const next = { index: asked.length, number: Math.floor(wanted / 16), exponent: wanted & 7 };
    asked.push(next);
    for (const { code = Code.Content, block, acknowledged: part, etag, payload, isSeparate } of answer(
      next,
    )) {
      const options = sorted([
        ...(etag === undefined ? [] : [opaque(Option.ETag, Buffer.from(etag))]),
        ...(block ? [uint(Option.Block2, packBlock(block))] : []),
        ...(part ? [uint(Option.Block1, packBlock(part))] : []),
      ]);
      const message = encode({
        type: isSeparate ? Type.CON : Type.ACK,
        code,
        messageId: isSeparate ? separate++ : request.messageId,
        token: request.token,
        options,
        payload: payload ?? new Uint8Array(),
      });
      socket.send(message, port, address);
    }
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return {
    uri: `coap://127.0.0.1:${socket.address().port}/fw`,
    asked,
    /** Message IDs that the client acknowledged. */
    acknowledged,
    [Symbol.asyncDispose]: async () => {
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}
