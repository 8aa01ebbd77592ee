import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Monotonic } from '../../../src/base/clock.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { AdaptationMode } from '../../../src/gateway/modes/adaptation.ts';
import { Campaign } from '../../../src/gateway/modes/campaign.ts';
import { fanOutTo, isRepeatable } from '../../../src/gateway/modes/fan-out.ts';
import { LwM2mCalls } from '../../../src/gateway/southbound/lwm2m-calls.ts';
import { Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { ClientUpdates } from '../../../src/gateway/store/client-updates.ts';
import type { Registration } from '../../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { type FanoutOrder, operationsOf } from '../../../src/mo/fanout-order.ts';
import { call } from '../../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapEndpoint } from '../../../src/wire/coap/endpoint.ts';
import { type CoapRequest, type Handler, type Reply, refusal } from '../../../src/wire/coap/message.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

/** Answers a client's request; undefined for none: the client does not hear it. */
export type ClientAnswer = (request: CoapRequest) => Reply | Promise<never> | undefined;

export const get = (uri: string) =>
  `<Get><CmdID>1</CmdID><Item><Target><LocURI>${uri}</LocURI></Target></Item></Get>`;
export const replace = (uri: string, data: string, format?: string) =>
  `<Replace><CmdID>1</CmdID>${format ? `<Meta><Format xmlns="syncml:metinf">${format}</Format></Meta>` : ''}<Item><Target><LocURI>${uri}</LocURI></Target><Data>${data}</Data></Item></Replace>`;
/** An Add of a leaf, or of an interior node when there is no data. */
export const add = (uri: string, data?: string, format?: string) =>
  data === undefined
    ? replace(uri, '', 'node').replaceAll('Replace', 'Add')
    : replace(uri, data, format).replaceAll('Replace', 'Add');
export const atomic = (...commands: readonly string[]) =>
  `<Atomic><CmdID>1</CmdID>${commands.join('')}</Atomic>`;

/** An endpoint of CoAP on a socket of its own. */
async function open(clock: HandClock, handler: Handler, hears: (request: Buffer) => boolean = () => true) {
  const socket = createSocket('udp4');
  const endpoint = new CoapEndpoint({
    clock,
    entropy: seededEntropy(socket.getMaxListeners()),
    events: new EventRecorder(),
    handler,
    send: (datagram, port, address) => socket.send(datagram, port, address),
  });
  socket.on('message', (datagram, { address, port }) => {
    if (hears(datagram)) endpoint.receive(datagram, address, port);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { socket, endpoint };
}

/**
 * Adaptation mode with fan-outs and one LwM2M client, `c`, over real sockets. The clock moves by hand. The client proves
 * itself by an answer to its Registration Update Trigger.
 */
export async function adaptedRig(
  answer: ClientAnswer,
  client: Partial<Registration> = {},
  isDeaf: () => boolean = () => false,
) {
  const clock = new HandClock();
  const events = new EventRecorder();
  /** Paths of the requests that the client has heard. */
  const heard: string[] = [];
  const requests: CoapRequest[] = [];
  const device = await open(
    clock,
    (request) => {
      heard.push(`/${request.path.join('/')}`);
      requests.push(request);
      return answer(request) ?? new Promise<never>(() => {});
    },
    () => !isDeaf(),
  );
  const gateway = await open(clock, () => refusal(Code.NotFound, ''));
  const registration: Registration = {
    deviceId: 'c',
    location: 'l',
    address: '127.0.0.1',
    port: device.socket.address().port,
    version: '1.1',
    lifetime: 600,
    queueMode: false,
    root: [],
    paths: [
      [1, 0],
      [3, 0],
      [3303, 0],
      [26241, 0],
    ],
    formats: [],
    ...client,
  };
  const calls = new LwM2mCalls((address, port, request) =>
    call(gateway.endpoint, seededEntropy(3), address, port, request),
  );
  let lastHeard = clock.now();
  const isThere = async (_id: string, since: Monotonic, signal: AbortSignal): Promise<boolean> => {
    if (lastHeard >= since) return true;
    return await calls.execute(registration, [1, 0, 8], '', signal).then(
      () => true,
      () => false,
    );
  };
  const database = openDatabase(':memory:', gatewaySchema);
  const mode = new AdaptationMode({
    clientOf: (id) => (id === 'c' ? registration : undefined),
    lastHeard: () => lastHeard,
    isThere,
    calls,
    updated: () => {},
    succeeded: () => {},
    httpUriOf: () => undefined,
    imageAt: () => undefined,
    updates: new ClientUpdates(database),
    clock,
    events,
  });
  const results: string[] = [];
  let away = 0;
  const fanOut = new Campaign<FanoutOrder>({
    kind: 'fanout',
    campaigns: new Campaigns(database, 'fanout'),
    clock,
    events,
    order: () => {
      throw new Error('no restart here');
    },
    isRepeatable,
    mayActOn: () => true,
    childOf: () => undefined,
    attempt: (id, order, options) =>
      fanOutTo({ manage: mode.manage, adapt: (_, operations) => operations }, id, order, {
        ...options,
        away: () => {
          away++;
          options.away();
        },
      }),
    delegate: async () => [],
    ended: (_run, result) => results.push(result),
  });
  return {
    clock,
    mode,
    heard,
    requests,
    results,
    away: () => away,
    /** The client sends something. */
    wake: () => {
      lastHeard = clock.now();
      mode.heard('c');
    },
    start: (name: string, command: string, more: Partial<FanoutOrder> = {}) => {
      const order: FanoutOrder = {
        name,
        server: 'dm',
        command,
        operations: operationsOf(command),
        devices: ['c'],
        returnFormat: 0,
        timeout: 60_000,
        patience: more.timeout ?? more.deadline ?? 3_600_000,
        deadline: 3_600_000,
        ...more,
      };
      fanOut.admit(order);
      fanOut.record(order, undefined);
      fanOut.launch(order);
    },
    /** Moves the clock until this holds, and returns the seconds that it took. Datagrams have their turns first. */
    async until(isReached: () => boolean, most = 4000): Promise<number> {
      const begun = clock.now();
      while (!isReached() && clock.now() - begun < most * 1000) {
        for (let at = 0; at < 40 && !isReached(); at++) await turn();
        if (!isReached()) clock.advance(1000);
      }
      return Math.round((clock.now() - begun) / 1000);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await fanOut[Symbol.asyncDispose]();
      await mode[Symbol.asyncDispose]();
      for (const { socket, endpoint } of [device, gateway]) {
        endpoint.stop();
        socket.close();
        await once(socket, 'close');
      }
    },
  };
}
