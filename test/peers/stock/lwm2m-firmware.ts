import type { NamedOption } from 'coap-packet';
import type { CoapSocket } from './coap-socket.ts';
import { type CoapAnswer, optionOf, uintBytes, uintOf } from './coap-socket.ts';
import type { Lwm2mHabits } from './lwm2m-habits.ts';
import { decodeValues, type Held, type Values } from './lwm2m-values.ts';

export interface Lwm2mFirmwareParts {
  readonly habits: Lwm2mHabits;
  /** Does something after the answer has gone, unless the client has lost its power meanwhile. */
  readonly later: (work: () => Promise<void>) => void;
  /** The socket by which it downloads. */
  readonly socket: () => CoapSocket;
  /** Goes away and comes back as its habits say. */
  readonly reboot: () => Promise<void>;
}

/** The object Firmware Update of a client (LwM2M core 1.1, appendix E.6). */
export class Lwm2mFirmware {
  readonly #parts: Lwm2mFirmwareParts;
  /** The image that it runs, and those that it has got. */
  image: Buffer = Buffer.alloc(0);
  readonly images: Buffer[] = [];
  state = 0;
  result = 0;

  constructor(parts: Lwm2mFirmwareParts) {
    this.#parts = parts;
  }

  get values(): Values {
    const integer = (value: number): Held => ({ type: 'integer', value: BigInt(value) });
    const { delivery } = this.#parts.habits;
    return new Map([
      ['5/0/3', integer(this.state)],
      ['5/0/5', integer(this.result)],
      ['5/0/8/0', integer(0)],
      ...(delivery === undefined ? [] : ([['5/0/9', integer(delivery)]] as const)),
    ]);
  }

  /** A download ends with the power of the client; a package that is there stays. */
  restart(): void {
    if (this.state === 1) this.state = 0;
  }

  do(code: string, path: string, body: Buffer): CoapAnswer {
    const { habits, later } = this.#parts;
    const { knowsReset, delivery } = habits;
    if (code === '0.02' && path === '5/0/2') {
      if (this.state !== 2) return { code: '4.05' };
      this.state = 3;
      this.result = 0;
      later(() => this.#install());
      return { code: '2.04' };
    }
    if (code !== '0.03' || this.state === 3) return { code: '4.05' };
    if (path === '5/0/0') {
      if (delivery === 0) return { code: '4.05' };
      const isReset = body.length <= 1;
      if (isReset && !knowsReset) return { code: '4.00' };
      this.state = isReset ? 0 : 2;
      this.result = 0;
      if (!isReset) this.images.push(body);
      return { code: '2.04' };
    }
    if (path !== '5/0/1' || delivery === 1) return { code: '4.05' };
    const [written = ''] = [...decodeValues(writtenFormat(body), body, path).values()];
    const uri = String(written instanceof Uint8Array ? Buffer.from(written) : written);
    if (uri === '') {
      if (!knowsReset) return { code: '4.00' };
      this.state = 0;
      this.result = 0;
      return { code: '2.04' };
    }
    this.state = 1;
    this.result = 0;
    later(() => this.#download(new URL(uri)));
    return { code: '2.04' };
  }

  /** Fetches an image block by block. */
  async #download({ pathname, search }: URL): Promise<void> {
    const { habits, socket } = this.#parts;
    const path = pathname.split('/').slice(1).map(decodeURIComponent);
    const query = search
      .slice(1)
      .split('&')
      .filter((each) => each !== '')
      .map(decodeURIComponent);
    const options: NamedOption[] = [
      ...path.map((each): NamedOption => ({ name: 'Uri-Path', value: Buffer.from(each) })),
      ...query.map((each): NamedOption => ({ name: 'Uri-Query', value: Buffer.from(each) })),
    ];
    let exponent = Math.log2(habits.block) - 4;
    const blocks: Buffer[] = [];
    for (let at = 0; ; ) {
      const block: NamedOption = {
        name: 'Block2',
        value: uintBytes(((at >> (exponent + 4)) << 4) | exponent),
      };
      const answer = await socket()
        .request('GET', [...options, block])
        .catch(() => undefined);
      if (answer?.code !== '2.05') {
        this.state = 0;
        this.result = answer ? 7 : 4;
        return;
      }
      blocks.push(answer.payload);
      at += answer.payload.length;
      // The server may give smaller blocks than it was asked for.
      exponent = Math.min(exponent, uintOf(optionOf(answer, 'Block2')) & 7);
      if ((uintOf(optionOf(answer, 'Block2')) & 8) === 0) break;
    }
    this.images.push(Buffer.concat(blocks));
    this.state = 2;
  }

  async #install(): Promise<void> {
    const { habits, reboot } = this.#parts;
    await reboot();
    const isDone = habits.updateResult === 1;
    // A failed installation leaves the package with some clients.
    this.state = isDone || habits.updateResult === 5 ? 0 : 2;
    this.result = habits.updateResult;
    if (isDone) this.image = this.images.at(-1) ?? this.image;
  }
}

/** The format of a written Package URI: a text has a scheme or is empty, SenML begins with an array. */
function writtenFormat(body: Buffer): number {
  if (body.length === 0 || /^coaps?:/.test(body.toString('latin1'))) return 0;
  if (body[0] === 0x5b) return 110;
  return (body[0] ?? 0) >> 5 === 4 ? 112 : 11542;
}
