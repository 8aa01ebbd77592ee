import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { LwM2mCalls } from '../../../src/gateway/southbound/lwm2m-calls.ts';
import { LwM2mObserver } from '../../../src/gateway/southbound/lwm2m-observer.ts';
import { LwM2mReporting } from '../../../src/gateway/southbound/lwm2m-reporting.ts';
import type { ReportedValue } from '../../../src/gateway/southbound/observer.ts';
import type { Registration } from '../../../src/gateway/store/registrations.ts';
import type { CoapAnswer, CoapCall } from '../../../src/wire/coap/blockwise-client.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import type { Observation } from '../../../src/wire/coap/observation.ts';
import { Option, uint, uintOption } from '../../../src/wire/coap/options.ts';
import { encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { parsePath, pathText } from '../../../src/wire/lwm2m/path.ts';
import { decodePaths } from '../../../src/wire/lwm2m/senml.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { turn } from '../../wire/coap/wire.ts';

export const name = 'urn:dev:1';

const methods: Readonly<Record<number, string>> = {
  [Code.GET]: 'GET',
  [Code.PUT]: 'PUT',
  [Code.FETCH]: 'FETCH',
};

/** A request as text: `PUT /3303/0/5700?pmin=1`, `GET /3303/0/5700 observe`, `FETCH /1 /2 observe`, `GET /1 cancel`. */
function textOf({
  method,
  path,
  query = [],
  options = [],
  observation,
  payload,
  contentFormat,
}: CoapCall): string {
  const listed =
    method === Code.FETCH
      ? decodePaths(contentFormat, payload!.subarray(0, payload!.length)).map(pathText).join(' ')
      : `/${path.join('/')}`;
  const observe = observation ? ' observe' : uintOption(options, Option.Observe) === 1 ? ' cancel' : '';
  return `${methods[method]} ${listed}${query.length > 0 ? `?${query.join('&')}` : ''}${observe}`;
}

type Said = Partial<CoapAnswer> | PosternError | 'observes';

/** An observer, and LwM2M clients that answer as a test says. By default they do all that they are asked. */
export function rig() {
  const clock = new HandClock();
  const events = new EventRecorder();
  const asked: string[] = [];
  const reported: [string, string | undefined, readonly ReportedValue[]][] = [];
  const heard: string[] = [];
  const registrations = new Map<string, Registration>();
  const observations: Observation[] = [];
  const at = { awake: true, silent: false };
  let answer: (request: string) => Said = () => 'observes';
  /** Resolves before each answer. */
  let network: () => Promise<void> = async () => {};
  let sequence = 1;
  const remote = { address: '192.0.2.7', port: 5, key: 'key' };

  const notify = (
    observation: Observation,
    values: Readonly<Record<string, number | string>>,
    fields: Partial<CoapAnswer> = {},
  ) => {
    const entries = Object.entries(values).map(([path, value]) => ({ path: parsePath(path), value }));
    return observation.take(
      {
        type: 1,
        messageId: 1,
        token: observation.token,
        code: Code.Content,
        options: [uint(Option.Observe, sequence++), uint(Option.ContentFormat, ContentFormat.SenmlCbor)],
        payload: encodeContent(ContentFormat.SenmlCbor, entries, []),
        ...fields,
      },
      remote,
      clock.now(),
    );
  };
  const call = async (_address: string, _port: number, request: CoapCall): Promise<CoapAnswer> => {
    const text = textOf(request);
    asked.push(text);
    await network();
    const said = answer(text);
    if (said instanceof PosternError) throw said;
    const code = request.method === Code.PUT ? Code.Changed : Code.Content;
    const plain = { code, options: [], payload: new Uint8Array() };
    if (said !== 'observes') return { ...plain, ...said };
    const { observation } = request;
    if (!observation) return plain;
    observation.begun(() => observations.splice(observations.indexOf(observation), 1));
    observations.push(observation);
    return { ...plain, options: [uint(Option.Observe, 1)] };
  };
  const observer = new LwM2mObserver({
    clientOf: (device) => registrations.get(device),
    arrivals: { hasCome: () => at.awake },
    reporting: new LwM2mReporting(
      new LwM2mCalls(call, {
        check: () => {},
        assure: async () => {
          if (at.silent) throw new PosternError('timeout', 'silent');
        },
      }),
    ),
    values: (...each) => reported.push(each),
    heard: (device, { address }) => heard.push(`${device} ${address}`),
    clock,
    entropy: seededEntropy(3),
    events,
  });
  /** Registers a client, and tells the observer, as the gateway does. */
  const register = async (changes: Partial<Registration> = {}, device = name) => {
    registrations.set(device, {
      deviceId: device,
      location: 'a',
      address: '192.0.2.7',
      port: 5,
      version: '1.1',
      lifetime: 300,
      queueMode: false,
      root: [],
      paths: [
        [3, 0],
        [3303, 0],
      ],
      formats: [],
      ...changes,
    });
    observer.heard(device);
    await settled();
  };
  const settled = async () => {
    for (let turns = 0; turns < 8; turns++) await turn();
  };
  /** Requests since the last call. */
  const take = () => asked.splice(0);
  /** Values since the last call, as `name path=value`. */
  const values = () =>
    reported
      .splice(0)
      .map(([, wish, found]) => `${wish} ${found.map(({ path, value }) => `${path}=${value}`).join(' ')}`);
  return {
    clock,
    events,
    observer,
    observations,
    registrations,
    reported,
    heard,
    at,
    register,
    settled,
    take,
    values,
    notify,
    answers: (next: typeof answer) => {
      answer = next;
    },
    delays: (next: typeof network) => {
      network = next;
    },
  };
}
