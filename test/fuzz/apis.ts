import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { checkConfig } from '../../src/base/config.ts';
import type { EventName } from '../../src/base/event-table.ts';
import { AdminApi } from '../../src/gateway/console/admin-api.ts';
import { HeadendApi } from '../../src/headend/api.ts';
import { routes } from '../../src/headend/api-routes.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import { Site } from '../journeys/site.ts';
import { type Dice, mutate } from './mutate.ts';
import type { Finding, Run } from './run.ts';

/** A request as a client may send it. */
interface Made {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
  /** Whether it has the token, and names this server. */
  readonly isAllowed: boolean;
}

type Serve = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

const mostFindings = 10;
const token = 'the-token-of-the-fuzzer';

/** Has one request answered, as the HTTP server of Node would pass it on, and returns what came back. */
async function answered(serve: Serve, { method, url, headers, body }: Made) {
  const length = body.length === 0 ? {} : { 'content-length': String(body.length) };
  const request = Object.assign(Readable.from(body.length === 0 ? [] : [body]), {
    method,
    url,
    headers: { ...headers, ...length },
    socket: { remoteAddress: '127.0.0.1', localAddress: '127.0.0.1' },
    complete: true,
  });
  const got = { status: 0, body: '', ends: 0 };
  const response = {
    setHeader: () => response,
    writeHead: (status: number) => {
      got.status = status;
      return response;
    },
    end: (text = '') => {
      got.body = text;
      got.ends++;
      return response;
    },
  };
  await serve(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  return got;
}

/** Changes a text here and there. A URL and a header are ASCII; the server of Node refuses all else before. */
function changed(dice: Dice, text: string, other: string): string {
  const scratch = Buffer.alloc(4096);
  const octets = mutate(dice, Buffer.from(text), Buffer.from(other), scratch);
  return octets.toString('latin1').replace(/[^\x21-\x7e]/g, '~');
}

/** Feeds requests to an API. A finding is a rejection, an answer that is none, an error of the program, or an open door. */
async function fuzzApi(
  name: string,
  serve: Serve,
  make: (dice: Dice) => Made,
  { dice, inputs, until }: { dice: Dice; inputs: number; until: number },
): Promise<Run> {
  const findings: Finding[] = [];
  let accepted = 0;
  let slowest = 0;
  let done = 0;
  for (; done < inputs && findings.length < mostFindings; done++) {
    if ((done & 255) === 0 && performance.now() > until) break;
    const made = make(dice);
    const report = (what: string) =>
      findings.push({ target: name, what, input: `${made.method} ${made.url} ${made.body.toString('hex')}` });
    const began = performance.now();
    try {
      const { status, body, ends } = await answered(serve, made);
      if (ends !== 1 || status < 200 || status > 599) report(`answered ${ends} times, status ${status}`);
      if (status === 500) report(`status 500: ${body}`);
      if (body !== '') JSON.parse(body);
      if (!made.isAllowed && status < 400) report(`let in with ${JSON.stringify(made.headers)}`);
      if (status < 300) accepted++;
    } catch (error) {
      report(`threw ${String(error)}`);
    }
    slowest = Math.max(slowest, performance.now() - began);
  }
  return { inputs: done, accepted, slowest, findings };
}

const bodies = [
  { operations: [{ name: 'Get', uri: './DevInfo/Man' }] },
  { operations: [{ name: 'Atomic', operations: [{ name: 'Replace', uri: './a', data: 'b' }] }] },
  { gateway: 'gw-1', name: 'a', devices: ['x'], operations: [{ name: 'Get', uri: './a' }], returnFormat: 2 },
  { gateway: 'gw-1', name: 'a', version: '1', data: 'AAAA' },
  { gateway: 'gw-1', name: 'a', url: 'http://127.0.0.1/x' },
  { gateway: 'gw-1', devices: ['x'] },
  { gateway: 'gw-1' },
].map((body) => Buffer.from(JSON.stringify(body)));

/** Mostly requests of people with the token, since all others are refused before anything is read. */
function headendRequest(dice: Dice): Made {
  const route = routes[dice.roll(routes.length)]!;
  const path = route.path.replace(/\{(\w+)\}/g, () => ['gw-1', 'urn:dev:1', 'a', '%2e%2e'][dice.roll(4)]!);
  const url = dice.roll(8) === 0 ? `${path}?limit=${dice.roll(1000)}&before=${dice.roll(9)}` : path;
  const chosen = bodies[dice.roll(bodies.length)]!;
  const other = bodies[dice.roll(bodies.length)]!;
  const body =
    route.method === 'GET'
      ? Buffer.alloc(0)
      : dice.roll(3) === 0
        ? chosen
        : Buffer.from(mutate(dice, chosen, other, Buffer.alloc(4096)));
  const door = dice.roll(10);
  const right = `Bearer ${token}`;
  const authorization = door === 0 ? changed(dice, right, right) : right;
  const host = door === 1 ? changed(dice, 'localhost', '127.0.0.1') : 'localhost';
  const origin = door === 2 ? { origin: 'https://evil.example' } : {};
  const isAllowed =
    /^Bearer +/i.test(authorization) && authorization.replace(/^bearer +/i, '') === token && door !== 2;
  return {
    method: dice.roll(12) === 0 ? ['HEAD', 'PATCH', 'OPTIONS', 'get', ''][dice.roll(5)]! : route.method,
    url: dice.roll(3) === 0 ? `/${changed(dice, url, path)}` : url,
    headers: { host, authorization, 'content-type': 'application/json', ...origin },
    body,
    isAllowed,
  };
}

/** The API of a whole head-end that has no broker. */
export async function fuzzHeadendApi(dice: Dice, inputs: number, until: number): Promise<Run> {
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 1 },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      gateway: [{ id: 'gw-1', 'client-secret': 'client-secret', 'server-secret': 'server-secret' }],
      device: [{ id: 'urn:dev:1', 'client-secret': 'client-secret', 'server-secret': 'server-secret' }],
    },
    'fuzz',
  );
  const failed: string[] = [];
  const emit = (name: EventName, fields: object) => {
    if (name === 'api.failed' || name === 'background.failed') failed.push(JSON.stringify(fields));
  };
  await using headend = new Headend(config, { events: { emit } });
  const api = new HeadendApi({
    headend,
    events: { emit },
    token: { accepts: (given) => given === token },
    settings: config.api,
  });
  const run = await fuzzApi('head-end API', (...each) => api.serve(...each), headendRequest, {
    dice,
    inputs,
    until,
  });
  const more = failed.slice(0, mostFindings).map((what) => ({ target: 'head-end API', what, input: '' }));
  return { ...run, findings: [...run.findings, ...more] };
}

const adminBodies = [
  { url: 'file:/none/x.bundle' },
  { url: 'https://127.0.0.1:1/x' },
  { target: '/none/x' },
  {},
  [],
].map((body) => Buffer.from(JSON.stringify(body)));
const adminPaths = ['/status', '/devices', '/update', '/backup', '/toString', '/__proto__', '/'];

function adminRequest(dice: Dice): Made {
  const chosen = adminBodies[dice.roll(adminBodies.length)]!;
  const path = adminPaths[dice.roll(adminPaths.length)]!;
  return {
    method: dice.roll(3) === 0 ? 'POST' : ['GET', 'HEAD', 'PUT', 'post'][dice.roll(4)]!,
    url: dice.roll(3) === 0 ? changed(dice, path, '/status') : path,
    headers: {},
    body:
      dice.roll(2) === 0 ? chosen : Buffer.from(mutate(dice, chosen, adminBodies[0]!, Buffer.alloc(4096))),
    isAllowed: true,
  };
}

/** The admin API of a whole gateway, with the views and actions of `postern gateway` that change no file. */
export async function fuzzAdminApi(dice: Dice, inputs: number, until: number): Promise<Run> {
  await using site = new Site('mqtt://127.0.0.1:1');
  const gateway = await site.gateway([], {}, false);
  const failed: string[] = [];
  const emit = (name: EventName, fields: object) => {
    if (name === 'background.failed') failed.push(JSON.stringify(fields));
  };
  const api = new AdminApi(
    '/none/admin.sock',
    { emit },
    { '/status': () => gateway.status(), '/devices': () => gateway.devices() },
    {
      '/update': (body) => gateway.firmware.install(body),
      '/backup': (body) => gateway.backUp(body),
    },
  );
  const run = await fuzzApi('admin API', (...each) => api.serve(...each), adminRequest, {
    dice,
    inputs,
    until,
  });
  const more = failed.slice(0, mostFindings).map((what) => ({ target: 'admin API', what, input: '' }));
  return { ...run, findings: [...run.findings, ...more] };
}
