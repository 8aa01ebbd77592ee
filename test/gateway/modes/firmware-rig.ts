import { randomBytes } from 'node:crypto';
import type { TestContext } from 'node:test';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { AdaptedFirmware } from '../../../src/gateway/modes/adapted-firmware.ts';
import { LwM2mCalls } from '../../../src/gateway/southbound/lwm2m-calls.ts';
import { ClientUpdates } from '../../../src/gateway/store/client-updates.ts';
import type { Registration } from '../../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { Blockwise } from '../../../src/wire/coap/blockwise.ts';
import { call } from '../../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { type CoapRequest, refusal, reply } from '../../../src/wire/coap/message.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';
import { turn } from '../../wire/coap/wire.ts';

export const deviceId = 'urn:dev:fw:1';
export const url = 'coap://192.0.2.1/img/fw?v=1&t=1';
export const httpUrl = 'http://192.0.2.1:8080/img/fw?v=1&t=1';

/** A client with the object Firmware Update, on a socket of its own. The test says what each request does to it. */
export class Client {
  state = 0;
  result = 0;
  delivery = 0;
  protocols: number[] = [];
  /** Requests but the polls. */
  readonly asked: string[] = [];
  polls = 0;
  pushed: Uint8Array | undefined;
  uri = (_value: string): number => Code.Changed;
  update = (): number => Code.Changed;
  /** Called before each poll is answered. */
  polled = (_count: number): void => {};

  readonly answer = (request: CoapRequest) => {
    const path = request.path.join('/');
    if (request.method === Code.GET) {
      this.polled(++this.polls);
      const entries = [
        { path: [5, 0, 3], value: this.state },
        { path: [5, 0, 5], value: this.result },
        ...this.protocols.map((value, at) => ({ path: [5, 0, 8, at], value })),
        { path: [5, 0, 9], value: this.delivery },
      ];
      const contentFormat = ContentFormat.LwM2mTlv;
      return reply(Code.Content, { payload: encodeContent(contentFormat, entries, [5, 0]), contentFormat });
    }
    if (path === '5/0/2') {
      this.asked.push('update');
      return reply(this.update());
    }
    if (path === '5/0/1') {
      const [entry] = decodeContent(request.contentFormat, request.payload, [5, 0, 1]);
      this.asked.push(`uri ${entry?.value}`);
      return reply(this.uri(String(entry?.value)));
    }
    if (path !== '5/0/0') return refusal(Code.NotFound, path);
    this.pushed = Buffer.from(request.payload);
    this.asked.push(`package ${request.payload.length}`);
    this.state = request.payload.length === 1 ? 0 : 2;
    this.result = 0;
    return reply(Code.Changed);
  };
}

export async function firmwareRig(
  t: TestContext,
  image = randomBytes(5000),
  database = openDatabase(':memory:', gatewaySchema),
) {
  const client = new Client();
  const clock = new HandClock();
  const events = new EventRecorder();
  const blockwise = new Blockwise((request) => client.answer(request), clock);
  const far = await CoapPeer.open(blockwise.handle);
  const near = await CoapPeer.open();
  t.after(async () => {
    await far[Symbol.asyncDispose]();
    await near[Symbol.asyncDispose]();
  });
  let registration: Registration | undefined = {
    deviceId,
    location: 'l',
    address: '127.0.0.1',
    port: far.socket.address().port,
    version: '1.1',
    lifetime: 60,
    queueMode: false,
    root: [],
    paths: [[5, 0]],
    formats: [],
  };
  const known = registration;
  /** Loses the answer to a request, or the request itself. */
  let isLost = (_path: string) => false;
  let isUnheard = (_path: string) => false;
  const calls = new LwM2mCalls(async (address, port, request) => {
    if (isUnheard(request.path.join('/'))) {
      setImmediate(() => clock.advance(30_000));
      throw new PosternError('timeout', 'no answer');
    }
    const answer = await call(near.endpoint, systemEntropy, address, port, request);
    // The next poll comes when this answer has been taken.
    setImmediate(() => clock.advance(30_000));
    if (isLost(request.path.join('/'))) throw new PosternError('timeout', 'no answer');
    return answer;
  });
  const updates = new ClientUpdates(database);
  const settled = updates.settled.bind(updates);
  updates.settled = async () => {
    await settled();
    // A disk takes its time. The next poll comes after that.
    setImmediate(() => clock.advance(30_000));
  };
  let stop = new AbortController();
  t.after(() => stop.abort());
  let done = Promise.withResolvers<number>();
  let told = (_result: number): void => {};
  const begin = () =>
    new AdaptedFirmware({
      clientOf: () => {
        // Nothing is asked of a client that is not there.
        if (!registration) setImmediate(() => clock.advance(30_000));
        return registration;
      },
      calls,
      httpUriOf: () => httpUrl,
      imageAt: (id, uri) =>
        id === deviceId && uri === url
          ? { size: image.length, hash: '', read: (from, length) => image.subarray(from, from + length) }
          : undefined,
      updates,
      succeeded: () => {},
      ended: (_deviceId, _correlator, result) => {
        told(result);
        done.resolve(result);
      },
      clock,
      events,
      signal: stop.signal,
    });
  let firmware = begin();
  const order = async (operation = 'DownloadAndUpdate', from = url): Promise<number> => {
    done = Promise.withResolvers();
    if (operation !== 'Update') firmware.set(known, [operation, 'PkgURL'], from);
    firmware.execute(known, [operation], undefined);
    clock.advance(1);
    const result = await done.promise;
    await firmware.settled;
    return result;
  };
  return {
    client,
    clock,
    events,
    updates,
    get firmware() {
      return firmware;
    },
    order,
    /** Called with each result, in the transaction of the end. */
    hear: (listener: typeof told) => {
      told = listener;
    },
    /** The gateway stops, and starts again when this has been done. Resolves with the result of what was under way. */
    restart: async (meanwhile: () => void = () => {}, awaited: readonly string[] = []): Promise<number> => {
      stop.abort();
      await firmware.settled;
      meanwhile();
      stop = new AbortController();
      done = Promise.withResolvers();
      firmware = begin();
      firmware.resume(awaited);
      // The first poll. Each answer brings the next one.
      clock.advance(1);
      await turn();
      clock.advance(1000);
      const result = await done.promise;
      await firmware.settled;
      return result;
    },
    known,
    image,
    lose: (which: typeof isLost) => {
      isLost = which;
    },
    drop: (which: typeof isUnheard) => {
      isUnheard = which;
    },
    leave: () => {
      registration = undefined;
    },
    comeBack: () => {
      registration = known;
    },
  };
}

/** What a client does that downloads and installs. */
export function behave(client: Client, installed = 1, state = 0): void {
  client.uri = (value) => {
    Object.assign(client, { state: value === '' ? 0 : 2, result: 0 });
    return Code.Changed;
  };
  client.update = () => {
    Object.assign(client, { state, result: installed });
    return Code.Changed;
  };
}
