import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import type { Delivery } from '../../src/wire/coap/exit.ts';
import { type CoapRequest, type Remote, type Reply, refusal, reply } from '../../src/wire/coap/message.ts';
import { Option, sorted, uint, uintOption } from '../../src/wire/coap/options.ts';
import { encodeContent } from '../../src/wire/lwm2m/content.ts';
import { type Path, parsePath, pathText } from '../../src/wire/lwm2m/path.ts';
import type { Entry } from '../../src/wire/lwm2m/resource.ts';
import { decodePaths } from '../../src/wire/lwm2m/senml.ts';
import type { EnablerPeer } from './enabler-client.ts';

/** One observation at the client. */
interface Relation {
  readonly paths: readonly Path[];
  readonly isComposite: boolean;
  readonly remote: Remote;
  readonly token: Uint8Array;
}

const root: Path = [];

/**
 * Observations of an enabler test client. It notifies when the test says so: what its conditions make of a change is a matter of the
 * client.
 */
export class EnablerReports {
  /** SenML format of the values. */
  format: number = ContentFormat.SenmlCbor;
  /** Whether a request to end an observation is answered with an error, and the observation goes on. */
  keeps = false;
  readonly #peer: EnablerPeer;
  readonly #relations = new Map<string, Relation>();
  #sequence = 1;

  constructor(peer: EnablerPeer) {
    this.#peer = peer;
    peer.client.instead = (request) => this.#answer(request);
  }

  /** What is observed: the paths of each observation. */
  get observed(): string[] {
    return [...this.#relations.values()].map(({ paths }) => paths.map(pathText).join(' '));
  }

  /** Notifies the observer of exactly these paths, by a confirmable message. A Reset ends the observation. */
  async notify(...paths: readonly string[]): Promise<Delivery> {
    const [key, relation] = [...this.#relations].find(
      ([, each]) => each.paths.map(pathText).join() === paths.join(),
    )!;
    const { remote, token } = relation;
    const fate = await this.#peer.endpoint.notify(remote, token, this.#numbered(this.#read(relation)), true)
      .fate;
    if (fate === 'reset') this.#relations.delete(key);
    return fate;
  }

  #answer(request: CoapRequest): Reply | undefined {
    const { message, method, remote, contentFormat, payload, path } = request;
    const wish = uintOption(message.options, Option.Observe);
    const isComposite = method === Code.FETCH;
    if (wish === undefined && !isComposite) return undefined;
    const paths = isComposite
      ? decodePaths(contentFormat, payload)
      : [parsePath(path.map((segment) => `/${segment}`).join(''))];
    const key = Buffer.from(message.token).toString('hex');
    const relation = { paths, isComposite, remote, token: Uint8Array.from(message.token) };
    const first = this.#read(relation);
    if (wish === undefined) return first;
    if (wish === 1) {
      if (this.keeps) return refusal(Code.NotFound, '');
      this.#relations.delete(key);
      return first;
    }
    if (first.code !== Code.Content) return first;
    this.#relations.set(key, relation);
    return this.#numbered(first);
  }

  #numbered(response: Reply): Reply {
    return { ...response, options: sorted([...response.options, uint(Option.Observe, this.#sequence++)]) };
  }

  /** A composite leaves out what is not there, and what cannot be read (LwM2M core 1.1, section 6.3.8). */
  #read({ paths, isComposite }: Relation): Reply {
    const readable = ({ path }: Entry) => path[0] !== 0;
    const entries = paths.flatMap((path) => this.#peer.client.below(path)).filter(readable);
    if (entries.length === 0 && !isComposite) return refusal(Code.NotFound, '');
    const payload = encodeContent(this.format, entries, isComposite ? root : paths[0]!);
    return reply(Code.Content, { payload, contentFormat: this.format });
  }
}
