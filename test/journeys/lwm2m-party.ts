import assert from 'node:assert/strict';
import { systemEntropy } from '../../src/base/entropy.ts';
import { composeGateway, type GatewaySurroundings } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { type CoapAnswer, type CoapCall, call } from '../../src/wire/coap/blockwise-client.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { Option } from '../../src/wire/coap/options.ts';
import { decodeContent } from '../../src/wire/lwm2m/content.ts';
import { EventRecorder } from '../event-recorder.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';
import { gatewayConfig, loopback } from './site.ts';

export const id = 'urn:dev:lwm2m:1';
export const other = 'urn:dev:lwm2m:2';
const factoryText = 'hex:0102030405060708090a0b0c0d0e0f10';
/** The key that the client `id` has from the factory. */
export const factory = { identity: id, key: Buffer.from(factoryText.slice(4), 'hex') };
/** How it has this key in its configuration. */
export const own = { 'bootstrap-key': factoryText };
/** Tables of a gateway that serves two clients over DTLS. */
export const secure = {
  coap: { port: 0, leisure: 50 },
  lwm2m: {
    device: [
      { id, 'bootstrap-key': factoryText },
      { id: other, 'bootstrap-key': 'another-another-' },
    ],
  },
};

interface IssuedKey {
  readonly identity: string;
  readonly key: Uint8Array;
  /** Instance of the object Security. */
  readonly instance: number;
}

/** The key in a Bootstrap-Pack. */
export function issuedKey(payload: Uint8Array): IssuedKey {
  const entries = decodeContent(ContentFormat.SenmlCbor, payload, []);
  const at = (resource: number) => entries.find(({ path }) => path[0] === 0 && path[2] === resource)!;
  assert.equal(at(2).value, 0);
  return {
    identity: Buffer.from(at(3).value as Uint8Array).toString(),
    key: at(5).value as Uint8Array,
    instance: at(3).path[1]!,
  };
}

/** An LwM2M client that does what the test says: one association by one key. */
export class Party implements AsyncDisposable {
  readonly end: SocketEnd;
  readonly #port: number;

  private constructor(end: SocketEnd, port: number) {
    this.end = end;
    this.#port = port;
  }

  static async open(port: number, key: Parameters<SocketEnd['dtls']['connect']>[1]): Promise<Party> {
    const end = await SocketEnd.open({ server: undefined as never });
    await end.dtls.connect({ address: '127.0.0.1', port, local: '' }, key);
    return new Party(end, port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end[Symbol.asyncDispose]();
  }

  async ask(method: number, path: string, query: string[] = [], more: Partial<CoapCall> = {}) {
    const { code, payload, options }: CoapAnswer = await call(
      this.end.coap,
      systemEntropy,
      '127.0.0.1',
      this.#port,
      {
        method,
        path: path.split('/').slice(1),
        query,
        timeout: 20_000,
        ...more,
      },
    );
    const location = options.filter(({ number }) => number === Option.LocationPath.number);
    return {
      code: codeText(code),
      payload,
      location: location.map(({ value }) => `/${Buffer.from(value)}`).join(''),
    };
  }

  /** Asks for a Bootstrap-Pack. Returns its key. */
  async pack(name = id): Promise<IssuedKey> {
    const { code, payload } = await this.ask(Code.GET, '/bspack', [`ep=${name}`]);
    assert.equal(code, '2.05');
    return issuedKey(payload);
  }

  async register(name = id): Promise<string> {
    return (await this.ask(Code.POST, '/rd', [`ep=${name}`, 'lwm2m=1.1', 'lt=300'])).code;
  }
}

/** A gateway without an uplink, with its parts. */
export async function gatewayOf(changes: object = {}, more: Partial<GatewaySurroundings> = {}) {
  const config = gatewayConfig('mqtt://127.0.0.1:1', [], { ...secure, ...changes });
  const events = new EventRecorder();
  const surroundings = { events, listInterfaces: loopback('IPv4'), ...more };
  const parts = composeGateway(config, surroundings);
  const gateway = new Gateway(config, surroundings, parts);
  await gateway.start();
  return { config, gateway, events, keys: parts.state.credentials.keys, port: gateway.coapsPort!, parts };
}

/** Whether this key opens an association. With one that is not valid nothing is answered for a minute. */
export const opens = async (port: number, key: { identity: string; key: Uint8Array }): Promise<boolean> => {
  try {
    await using _party = await Party.open(port, key);
    return true;
  } catch {
    return false;
  }
};
