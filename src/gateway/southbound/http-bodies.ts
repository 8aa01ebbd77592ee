import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Admission } from '../../base/admission.ts';
import { PosternError } from '../../base/errors.ts';
import { type FairBounds, FairMap } from '../../base/fair-map.ts';
import { addressOf } from '../../base/http-connections.ts';
import { messageLimits } from '../../wire/syncml/elements.ts';

/**
 * Bodies that are being read, of addresses where a device proved itself lately and of others. At a bound of bytes the body that
 * began first gives way.
 */
export const bodyBounds = {
  known: { entries: 512, perAddress: 128, perPrefix: 512, bytes: 8 * 1024 * 1024 },
  strangers: { entries: 256, perAddress: 32, perPrefix: 128, bytes: 4 * 1024 * 1024 },
} as const satisfies Record<string, FairBounds>;

/** Bytes of a body that one token of the admission pays for, as 16 datagrams of CoAP with a block of 1 KiB each do. */
const bytesPerToken = 16 * 1024;

/**
 * Reads the bodies of requests. A large body costs more of the sender's budget than a small one, because it costs more to decode.
 * Bodies that arrive slowly hold a bounded number of bytes.
 */
export class HttpBodies {
  readonly #admission: Admission;
  readonly #known: FairMap<Socket>;
  readonly #strangers: FairMap<Socket>;
  #count = 0;

  constructor(admission: Admission) {
    this.#admission = admission;
    const giveWay = (_: string, socket: Socket) => {
      socket.destroy();
    };
    this.#known = new FairMap<Socket>(bodyBounds.known, giveWay);
    this.#strangers = new FairMap<Socket>(bodyBounds.strangers, giveWay);
  }

  /** Bytes of the bodies that are being read. */
  get bytes(): number {
    return this.#known.bytes + this.#strangers.bytes;
  }

  /** @throws {PosternError} `tooLarge`, `full` when the sender has no budget left, `unavailable` when the connection broke */
  async read(request: IncomingMessage): Promise<Uint8Array> {
    const { socket } = request;
    const address = addressOf(socket);
    const table = this.#admission.isKnown(address) ? this.#known : this.#strangers;
    const key = String(++this.#count);
    table.set(key, address, socket);
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    let paid = bytesPerToken;
    try {
      for await (const chunk of request as AsyncIterable<Uint8Array>) {
        bytes += chunk.length;
        if (bytes > messageLimits.bytes)
          throw new PosternError('tooLarge', `a package of more than ${messageLimits.bytes} bytes`);
        for (; paid < bytes; paid += bytesPerToken)
          if (!this.#admission.admits(address)) throw new PosternError('full', 'too many large packages');
        table.grow(key, chunk.length);
        chunks.push(chunk);
      }
    } catch (thrown) {
      throw thrown instanceof PosternError
        ? thrown
        : new PosternError('unavailable', 'the connection broke', { cause: thrown });
    } finally {
      table.delete(key);
    }
    return Buffer.concat(chunks);
  }
}
